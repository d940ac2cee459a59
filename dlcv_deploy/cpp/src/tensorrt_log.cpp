#if defined(DLCV_WITH_TENSORRT) || defined(DLCV_WITH_TENSORRT_RTX)

#include "tensorrt_log.hpp"

#include <algorithm>
#include <utility>

namespace dlcv {
namespace {

constexpr std::size_t kKept = 16;

}  // namespace

TensorRtLog& TensorRtLog::of_process() {
  static TensorRtLog& kept = *new TensorRtLog;
  return kept;
}

void TensorRtLog::log(Severity severity, const char* text) noexcept {
  if (severity > Severity::kERROR) return;
  try {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (std::find(errors_.begin(), errors_.end(), text) != errors_.end()) return;
    if (errors_.size() == kKept) errors_.pop_front();
    errors_.emplace_back(text);
  } catch (const std::exception&) {  // no memory for a message: go on without it
  }
}

std::string TensorRtLog::take_errors() {
  const std::lock_guard<std::mutex> lock(mutex_);
  std::string text;
  for (const auto& error : errors_) text += (text.empty() ? "" : "\n") + error;
  errors_.clear();
  return text;
}

Error tensorrt_refused(const std::string& what) {
  const std::string words = TensorRtLog::of_process().take_errors();
  return refused(kTensorRtTool, kTensorRt, what, words.empty() ? "it gives no reason" : words);
}

}  // namespace dlcv

#endif
