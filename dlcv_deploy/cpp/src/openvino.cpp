// OpenVINO on CPUs, as backends/openvino.py runs it.
#ifdef DLCV_WITH_OPENVINO

#include <algorithm>
#include <mutex>
#include <openvino/openvino.hpp>
#include <utility>

#include "backend.hpp"
#include "native_error.hpp"

namespace dlcv {
namespace {

constexpr const char* kTool = "OpenVINO";
constexpr const char* kName = "openvino";

// The one core of this process, which stays until it ends. Each core brings a stack for signal handlers (2026.4), and
// puts back the one before when it goes, which may have gone already: the next signal then kills the process.
ov::Core& core() {
  static ov::Core& kept = *new ov::Core;
  return kept;
}

// As the package is numbered: "2026.4.1" of "2026.4.1-22310-0a1b2c3d".
std::string version() {
  const std::string build = ov::get_openvino_version().buildNumber;
  return build.substr(0, build.find('-'));
}

bool carries_fp16(const ov::Model& model) {
  for (const auto& node : model.get_ops())
    for (const auto& port : node->outputs())
      if (port.get_element_type() == ov::element::f16) return true;
  return false;
}

ov::element::Type precision(const ov::Model& model) {
  const auto can = core().get_property("CPU", ov::device::capabilities);
  const bool native = std::find(can.begin(), can.end(), ov::device::capability::FP16) != can.end();
  return native && carries_fp16(model) ? ov::element::f16 : ov::element::f32;
}

// Compile for latency, in the precision the graph is written in and no other. OpenVINO's default on CPUs with bf16 is
// bf16 whatever the graph says, and a hint that the CPU cannot follow falls back to that default in silence: so ask for
// what it has, and check.
ov::CompiledModel compiled(const std::shared_ptr<ov::Model>& model, const LoadOptions& options) {
  const ov::element::Type wanted = precision(*model);
  ov::AnyMap how{ov::hint::performance_mode(ov::hint::PerformanceMode::LATENCY), ov::hint::inference_precision(wanted)};
  if (options.streams > 1) how.insert(ov::num_streams(options.streams));
  if (options.threads > 0) how.insert(ov::inference_num_threads(options.threads));
  ov::CompiledModel made = core().compile_model(model, "CPU", how);
  const ov::element::Type got = made.get_property(ov::hint::inference_precision);
  if (got != wanted)
    throw Error(ErrorKind::tool, "",
                "OpenVINO would compute in " + got.to_string() + ", though " + wanted.to_string() + " was asked for",
                "use another target");
  return made;
}

std::shared_ptr<ov::Model> read(const std::map<std::string, Bytes>& files) {
  const Bytes& xml = file_of(files, kName, "model.xml");
  const Bytes& bin = file_of(files, kName, "model.bin", true);
  ov::Tensor weights;
  if (!bin.empty()) {  // constants of the model keep the tensor's memory, which is why it is its own
    weights = ov::Tensor(ov::element::u8, {bin.size()});
    std::copy(bin.begin(), bin.end(), weights.data<std::uint8_t>());
  }
  return core().read_model(std::string(xml.begin(), xml.end()), weights);
}

// Which of the model's ports each tensor of the manifest is. Ports are those of the model as it was read: casts melt
// when it is compiled, and names with them.
std::vector<std::size_t> ports_of(const std::vector<ov::Output<ov::Node>>& ports,
                                  const std::vector<TensorInfo>& tensors) {
  std::vector<std::size_t> found;
  for (const auto& tensor : tensors) {
    const auto port =
        std::find_if(ports.begin(), ports.end(), [&](const auto& p) { return p.get_names().count(tensor.name) != 0; });
    if (port == ports.end()) throw damaged(kName, "it has no tensor named '" + tensor.name + "'");
    const ov::PartialShape shape = port->get_partial_shape();
    bool same = port->get_element_type() == ov::element::f32 && shape.rank().is_static() &&
                shape.size() == tensor.shape.size() + 1;
    for (std::size_t i = 0; same && i < tensor.shape.size(); ++i)
      same = shape[i + 1].is_static() && shape[i + 1].get_length() == tensor.shape[i];
    if (!same) throw damaged(kName, "its tensor '" + tensor.name + "' is not the manifest's");
    found.push_back(static_cast<std::size_t>(port - ports.begin()));
  }
  return found;
}

ov::Shape shape_of(const TensorInfo& tensor, std::int64_t rows) {
  ov::Shape shape{static_cast<std::size_t>(rows)};
  for (const auto size : tensor.shape) shape.push_back(static_cast<std::size_t>(size));
  return shape;
}

// Requests, each of which serves one call at a time: as many as calls ever ran at once.
class Requests {
 public:
  explicit Requests(ov::CompiledModel model) : model_(std::move(model)) {}

  ov::InferRequest take() {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      if (!idle_.empty()) {
        ov::InferRequest request = std::move(idle_.back());
        idle_.pop_back();
        return request;
      }
    }
    return model_.create_infer_request();
  }

  void give_back(ov::InferRequest request) {
    const std::lock_guard<std::mutex> lock(mutex_);
    idle_.push_back(std::move(request));
  }

 private:
  ov::CompiledModel model_;
  std::mutex mutex_;
  std::vector<ov::InferRequest> idle_;
};

class OpenVinoSession : public Session {
 public:
  OpenVinoSession(ov::CompiledModel model, std::size_t input, std::vector<std::size_t> outputs,
                  const Manifest& manifest)
      : requests_(std::move(model)),
        input_(input),
        outputs_(std::move(outputs)),
        input_info_(manifest.inputs.front()),
        output_info_(manifest.outputs) {}

  // Input and outputs stay where the caller has them. A request that failed is not used again.
  void run(const float* input, std::int64_t rows, float* const* outputs) override {
    try {
      ov::InferRequest request = requests_.take();
      auto* data = const_cast<float*>(input);  // which OpenVINO reads alone
      request.set_input_tensor(input_, ov::Tensor(ov::element::f32, shape_of(input_info_, rows), data));
      for (std::size_t i = 0; i < outputs_.size(); ++i)
        request.set_output_tensor(outputs_[i],
                                  ov::Tensor(ov::element::f32, shape_of(output_info_[i], rows), outputs[i]));
      request.infer();
      requests_.give_back(std::move(request));
    } catch (const std::bad_alloc&) {
      throw;
    } catch (const std::exception& e) {
      throw refused(kTool, kName, "to run", e.what());
    }
  }

 private:
  Requests requests_;
  std::size_t input_;
  std::vector<std::size_t> outputs_;
  TensorInfo input_info_;
  std::vector<TensorInfo> output_info_;
};

std::unique_ptr<Session> load(const EngineEntry&, const Manifest& manifest, const std::map<std::string, Bytes>& files,
                              const LoadOptions& options) {
  try {
    const auto model = read(files);
    const auto inputs = ports_of(model->inputs(), manifest.inputs);
    auto outputs = ports_of(model->outputs(), manifest.outputs);
    return std::make_unique<OpenVinoSession>(compiled(model, options), inputs.front(), std::move(outputs), manifest);
  } catch (const Error&) {
    throw;
  } catch (const std::bad_alloc&) {
    throw;
  } catch (const std::exception& e) {
    throw damaged(kName, e.what(), e.what());
  }
}

}  // namespace

Backend openvino_backend() { return {kName, version, load}; }

}  // namespace dlcv

#endif
