// TensorRT's engines, and TensorRT for RTX's, as backends/_trt_session.py runs them.
#if defined(DLCV_WITH_TENSORRT) || defined(DLCV_WITH_TENSORRT_RTX)

#include <NvInfer.h>

#include <cstring>
#include <mutex>
#include <utility>

#include "backend.hpp"
#include "cuda.hpp"
#include "tensorrt_log.hpp"

namespace dlcv {
namespace {

#ifdef DLCV_WITH_TENSORRT_RTX
constexpr const char* kFile = "model.rtx.engine";
#else
constexpr const char* kFile = "model.engine";
#endif
#ifdef TRT_MAJOR_RTX  // as the headers of TensorRT for RTX's own SDK have it
constexpr bool kHeadersOfRtx = true;
#else
constexpr bool kHeadersOfRtx = false;
#endif

std::string number(int version) {
  return std::to_string(version / 10000) + "." + std::to_string(version / 100 % 100) + "." +
         std::to_string(version % 100);
}

// As the package is numbered: "10.14.1.48".
std::string version() { return number(getInferLibVersion()) + "." + std::to_string(getInferLibBuildVersion()); }

// TensorRT's headers call by place in tables that each major version orders anew, and TensorRT for RTX in its own way:
// with other headers than the library's, a call ends somewhere else. createInferRuntime does not look (1.7.1).
void check_headers() {
#ifdef DLCV_WITH_TENSORRT_RTX
  const bool own = kHeadersOfRtx;
#else
  const bool own = !kHeadersOfRtx;
#endif
  const int linked = getInferLibVersion(), headers = NV_TENSORRT_VERSION;
  if (own && linked / 10000 == headers / 10000 && linked >= headers) return;
  throw Error(ErrorKind::missing, "",
              std::string("this library was compiled with the headers of TensorRT ") +
                  (kHeadersOfRtx ? "for RTX " : "") + number(headers) + ", and runs with " + kTensorRtTool + " " +
                  number(linked),
              std::string("compile it with the headers of ") + kTensorRtTool + "'s own SDK: TENSORRT_ROOT");
}

nvinfer1::Dims dims_of(const TensorInfo& tensor, std::int64_t rows) {
  nvinfer1::Dims dims{};
  dims.nbDims = static_cast<std::int32_t>(tensor.shape.size()) + 1;
  dims.d[0] = rows;
  for (std::size_t i = 0; i < tensor.shape.size(); ++i) dims.d[i + 1] = tensor.shape[i];
  return dims;
}

bool same(const nvinfer1::Dims& a, const nvinfer1::Dims& b, std::int32_t from = 0) {
  if (a.nbDims != b.nbDims) return false;
  for (std::int32_t i = from; i < a.nbDims; ++i)
    if (a.d[i] != b.d[i]) return false;
  return true;
}

// The engine must have a tensor as the manifest describes it.
void check_tensor(const nvinfer1::ICudaEngine& engine, const TensorInfo& tensor, nvinfer1::TensorIOMode mode) {
  const char* name = tensor.name.c_str();
  if (tensor.shape.size() >= static_cast<std::size_t>(nvinfer1::Dims::MAX_DIMS) || engine.getTensorIOMode(name) != mode)
    throw damaged(kTensorRt, "it has no tensor named '" + tensor.name + "'");
  if (engine.getTensorDataType(name) != nvinfer1::DataType::kFLOAT ||
      !same(engine.getTensorShape(name), dims_of(tensor, 0), 1))
    throw damaged(kTensorRt, "its tensor '" + tensor.name + "' is not the manifest's");
}

// Where a tensor lives: pinned memory on the host and memory on the device, for the largest batch.
struct Slot {
  Slot(TensorInfo info, std::int64_t most)
      : tensor(std::move(info)), device(bytes(most), false), host(bytes(most), true) {}  // what runs out first

  std::size_t bytes(std::int64_t rows) const { return static_cast<std::size_t>(rows) * tensor.size() * sizeof(float); }

  TensorInfo tensor;
  cuda::Memory device, host;
};

// An engine on the GPU with its buffers and its stream. Calls from several threads wait in turn.
//
// The engine's work is captured as a CUDA graph at the second call in a row of one batch size, and replayed from then
// on. There is one graph at a time: TensorRT's guide promises that one stays right as long as its context keeps its
// shapes. Where capturing fails, the work is enqueued anew each time. TensorRT for RTX captures graphs itself.
class TensorRtSession : public Session {
 public:
  TensorRtSession(const EngineEntry& engine, const Manifest& manifest, const std::map<std::string, Bytes>& files,
                  const LoadOptions& options)
      : device_(options.device), current_(device_), capture_(options.cuda_graphs), log_(TensorRtLog::of_process()) {
    log_.take_errors();
    if (engine.plugin) register_plugin(*engine.plugin, file_of(files, kTensorRt, engine.plugin->file));
    deserialize(engine, file_of(files, kTensorRt, kFile));
    check_tensor(*engine_, manifest.inputs.front(), nvinfer1::TensorIOMode::kINPUT);
    for (const auto& output : manifest.outputs) check_tensor(*engine_, output, nvinfer1::TensorIOMode::kOUTPUT);
    if (engine_->getNbIOTensors() != static_cast<std::int32_t>(1 + manifest.outputs.size()))
      throw damaged(kTensorRt, "it has other tensors than the manifest");
    make_context(options);
    slots_.reserve(1 + manifest.outputs.size());
    reserve(manifest.inputs.front(), engine.batch[2]);
    for (const auto& output : manifest.outputs) reserve(output, engine.batch[2]);
    stream_.emplace();
    current_.reset();
  }

  ~TensorRtSession() override {
    try {
      current_.emplace(device_);
    } catch (const std::exception&) {  // the driver is gone: what follows does nothing
    }
    forget();
  }

  void run(const float* input, std::int64_t rows, float* const* outputs) override {
    const std::lock_guard<std::mutex> turn(turn_);
    const cuda::Current current(device_);
    shape(rows);
    std::memcpy(slots_[0].host.data(), input, slots_[0].bytes(rows));
    stream_->copy(slots_[0].device.data(), slots_[0].host.data(), slots_[0].bytes(rows), cudaMemcpyHostToDevice);
    execute();
    for (std::size_t i = 1; i < slots_.size(); ++i)
      stream_->copy(slots_[i].host.data(), slots_[i].device.data(), slots_[i].bytes(rows), cudaMemcpyDeviceToHost);
    stream_->wait();
    for (std::size_t i = 1; i < slots_.size(); ++i)
      std::memcpy(outputs[i - 1], slots_[i].host.data(), slots_[i].bytes(rows));
  }

 private:
  void deserialize(const EngineEntry& engine, const Bytes& plan) {
    runtime_.reset(nvinfer1::createInferRuntime(log_));
    if (!runtime_) throw tensorrt_refused("to give a runtime");
    engine_.reset(runtime_->deserializeCudaEngine(plan.data(), plan.size()));
    if (engine_) return;
    const std::string words = log_.take_errors();
    const std::string first = words.empty() ? "no reason given" : words.substr(0, words.find('\n'));
    throw damaged(kTensorRt, first + " (compiled for " + engine.target + ")", words);
  }

  void make_context([[maybe_unused]] const LoadOptions& options) {
#if defined(DLCV_WITH_TENSORRT_RTX) && defined(TRT_MAJOR_RTX)
    capture_ = false;
    config_.reset(engine_->createRuntimeConfig());
    if (!config_) throw tensorrt_refused("to give a runtime configuration");
    const auto strategy = options.cuda_graphs ? nvinfer1::CudaGraphStrategy::kWHOLE_GRAPH_CAPTURE
                                              : nvinfer1::CudaGraphStrategy::kDISABLED;
    if (!config_->setCudaGraphStrategy(strategy)) throw tensorrt_refused("a strategy for CUDA graphs");
    context_.reset(engine_->createExecutionContext(config_.get()));
#else
    context_.reset(engine_->createExecutionContext());
#endif
    if (!context_) throw tensorrt_refused("to give an execution context");
  }

  // Memory for a tensor at the largest batch, which the engine is told of once.
  void reserve(const TensorInfo& tensor, std::int64_t most) {
    const Slot& slot = slots_.emplace_back(tensor, most);
    if (!context_->setTensorAddress(tensor.name.c_str(), slot.device.data()))
      throw tensorrt_refused("the address of '" + tensor.name + "'");
  }

  // Tell the engine the number of rows, where it is new.
  void shape(std::int64_t rows) {
    if (rows == shaped_) return;
    forget();
    const TensorInfo& input = slots_[0].tensor;
    if (!context_->setInputShape(input.name.c_str(), dims_of(input, rows)))
      throw tensorrt_refused("a batch of " + std::to_string(rows));
    for (std::size_t i = 1; i < slots_.size(); ++i) {
      const TensorInfo& output = slots_[i].tensor;
      if (!same(context_->getTensorShape(output.name.c_str()), dims_of(output, rows)))
        throw tensorrt_refused("a batch of " + std::to_string(rows) + " in its output '" + output.name + "'");
    }
    shaped_ = rows;
  }

  // Replay the graph of this batch size; else enqueue the work, captured where it has run before.
  void execute() {
    if (enqueued_ && !graph_ && capture_) {
      try {
        graph_.emplace(*stream_, [this] { enqueue(); });
      } catch (const Error&) {
        capture_ = false;
        log_.take_errors();
      }
    }
    if (graph_) return graph_->launch(*stream_);
    enqueue();
    enqueued_ = true;
  }

  void enqueue() {
    if (!context_->enqueueV3(stream_->get())) throw tensorrt_refused("to run");
  }

  // Let the graph go, before the context gets other shapes.
  void forget() {
    graph_.reset();
    shaped_ = 0;
    enqueued_ = false;
  }

  int device_;
  std::optional<cuda::Current> current_;  // while it is made, and while it goes: it is the last to go
  bool capture_;
  TensorRtLog& log_;
  std::unique_ptr<nvinfer1::IRuntime> runtime_;  // each is used by those below
  std::unique_ptr<nvinfer1::ICudaEngine> engine_;
#if defined(DLCV_WITH_TENSORRT_RTX) && defined(TRT_MAJOR_RTX)
  std::unique_ptr<nvinfer1::IRuntimeConfig> config_;
#endif
  std::vector<Slot> slots_;
  std::unique_ptr<nvinfer1::IExecutionContext> context_;
  std::optional<cuda::Stream> stream_;
  std::optional<cuda::Graph> graph_;
  std::mutex turn_;
  std::int64_t shaped_ = 0;  // the rows that the context is set to, and whether it ran with them
  bool enqueued_ = false;
};

std::unique_ptr<Session> load(const EngineEntry& engine, const Manifest& manifest,
                              const std::map<std::string, Bytes>& files, const LoadOptions& options) {
  check_headers();
  return std::make_unique<TensorRtSession>(engine, manifest, files, options);
}

}  // namespace

Backend tensorrt_backend() { return {kTensorRt, version, load}; }

}  // namespace dlcv

#endif
