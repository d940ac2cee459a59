// refused PLAN: what TensorRT for RTX itself says to an engine where there is no GPU, through this library's log.
#include <NvInfer.h>

#include <cstdio>
#include <fstream>
#include <iterator>

#include "messages.hpp"
#include "tensorrt_log.hpp"

namespace dlcv {
Message cause_of(const std::string&, const std::string&) { return {}; }
}  // namespace dlcv

namespace {

// TensorRT for RTX 1.7 calls loggers as versioned interfaces, which those of TensorRT 10's headers are not.
class Versioned : public nvinfer1::IVersionedInterface {
 public:
  nvinfer1::InterfaceInfo getInterfaceInfo() const noexcept override { return {"ILogger", 1, 0}; }
  virtual void log(nvinfer1::ILogger::Severity severity, const char* text) noexcept {
    dlcv::TensorRtLog::of_process().log(severity, text);
  }
};

}  // namespace

int main(int, char** argv) {
  static Versioned log;
  auto* runtime = static_cast<nvinfer1::IRuntime*>(createInferRuntime_INTERNAL(&log, NV_TENSORRT_VERSION));
  std::ifstream file(argv[1], std::ios::binary);
  const std::vector<char> plan((std::istreambuf_iterator<char>(file)), {});
  const bool refused = runtime->deserializeCudaEngine(plan.data(), plan.size()) == nullptr;
  std::printf("%s\n%s", refused ? "refused" : "taken", dlcv::TensorRtLog::of_process().take_errors().c_str());
  delete runtime;
  return 0;
}
