// What TensorRT said, kept for errors.
#pragma once

#include <NvInfer.h>

#include <deque>
#include <mutex>
#include <string>

#include "native_error.hpp"

namespace dlcv {

#ifdef DLCV_WITH_TENSORRT_RTX
constexpr const char* kTensorRt = "tensorrt_rtx";
constexpr const char* kTensorRtTool = "TensorRT for RTX";
#else
constexpr const char* kTensorRt = "tensorrt";
constexpr const char* kTensorRtTool = "TensorRT";
#endif

// The last errors, each once; nothing is printed. TensorRT keeps the first logger that it is given for what belongs to
// no runtime, so there is one in a process, which stays until it ends.
class TensorRtLog final : public nvinfer1::ILogger {
 public:
  static TensorRtLog& of_process();

  void log(Severity severity, const char* text) noexcept override;

  // The errors so far, one a line, which are then forgotten.
  std::string take_errors();

 private:
  std::mutex mutex_;
  std::deque<std::string> errors_;
};

// The error for something that TensorRT would not do, with what it said.
Error tensorrt_refused(const std::string& what);

// Load a plugin's library into TensorRT's registry, once in a process. It stays there: TensorRT keeps creators by their
// names, and engines that use them may come and go. Throws Error: artifact where another build of it is there, tool
// where TensorRT does not take it.
void register_plugin(const PluginEntry& plugin, const Bytes& library);

}  // namespace dlcv
