#if defined(DLCV_WITH_TENSORRT) || defined(DLCV_WITH_TENSORRT_RTX)

#include "cuda.hpp"

#include <string>
#include <utility>

#include "dlcv/error.hpp"
#include "messages.hpp"

namespace dlcv::cuda {

void check(cudaError_t status, const char* call) {
  if (status == cudaSuccess) return;
  const std::string words = std::string(call) + ": " + cudaGetErrorName(status) + ": " + cudaGetErrorString(status);
  const bool absent =
      status == cudaErrorInsufficientDriver || status == cudaErrorNoDevice || status == cudaErrorInitializationError;
  const ErrorKind kind = absent ? ErrorKind::missing : ErrorKind::tool;
  const Message cause = cause_of("cuda", words);
  if (!cause.code.empty()) throw Error(kind, cause.code, cause.what + " (" + words + ")", cause.fix);
  const bool full = status == cudaErrorMemoryAllocation;
  throw Error(kind, "", words,
              absent ? "update the NVIDIA driver, or run on a machine with a GPU"
              : full ? "free GPU memory, or use a smaller batch"
                     : "");
}

Current::Current(int device) {
  check(cudaGetDevice(&before_), "cudaGetDevice");
  if (device == before_) return;
  check(cudaSetDevice(device), "cudaSetDevice");
  changed_ = true;
}

Current::~Current() {
  if (changed_) cudaSetDevice(before_);
}

Memory::Memory(std::size_t size_bytes, bool pinned) : pinned_(pinned) {
  if (pinned) {
    check(cudaMallocHost(&data_, size_bytes), "cudaMallocHost");
  } else {
    check(cudaMalloc(&data_, size_bytes), "cudaMalloc");
  }
}

Memory::Memory(Memory&& other) noexcept : data_(std::exchange(other.data_, nullptr)), pinned_(other.pinned_) {}

Memory::~Memory() {  // what fails here was told by the call before
  if (data_ == nullptr) return;
  if (pinned_) {
    cudaFreeHost(data_);
  } else {
    cudaFree(data_);
  }
}

Stream::Stream() { check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "cudaStreamCreateWithFlags"); }

Stream::~Stream() {
  cudaStreamSynchronize(stream_);
  cudaStreamDestroy(stream_);
}

void Stream::copy(void* to, const void* from, std::size_t size_bytes, cudaMemcpyKind kind) const {
  check(cudaMemcpyAsync(to, from, size_bytes, kind, stream_), "cudaMemcpyAsync");
}

void Stream::wait() const { check(cudaStreamSynchronize(stream_), "cudaStreamSynchronize"); }

Graph::Graph(const Stream& stream, const std::function<void()>& work) {
  // thread-local: other threads may go on calling CUDA
  check(cudaStreamBeginCapture(stream.get(), cudaStreamCaptureModeThreadLocal), "cudaStreamBeginCapture");
  cudaGraph_t recorded = nullptr;
  try {
    work();
  } catch (...) {
    if (cudaStreamEndCapture(stream.get(), &recorded) == cudaSuccess && recorded != nullptr) cudaGraphDestroy(recorded);
    cudaGetLastError();  // what ended the capture is no error of later calls
    throw;
  }
  const cudaError_t ended = cudaStreamEndCapture(stream.get(), &recorded);
  if (ended != cudaSuccess) cudaGetLastError();
  check(ended, "cudaStreamEndCapture");
  const cudaError_t made = cudaGraphInstantiateWithFlags(&graph_, recorded, 0);
  if (made != cudaSuccess) cudaGetLastError();
  cudaGraphDestroy(recorded);
  check(made, "cudaGraphInstantiateWithFlags");
}

Graph::~Graph() { cudaGraphExecDestroy(graph_); }

void Graph::launch(const Stream& stream) const { check(cudaGraphLaunch(graph_, stream.get()), "cudaGraphLaunch"); }

}  // namespace dlcv::cuda

#endif
