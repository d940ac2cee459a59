// The few CUDA calls that running an engine takes; each that fails throws Error.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <functional>

namespace dlcv::cuda {

// Throws Error for a call that failed: missing where there is no driver or GPU, else tool.
void check(cudaError_t status, const char* call);

// Makes a GPU the current one of this thread, and puts back the one before.
class Current {
 public:
  explicit Current(int device);
  ~Current();
  Current(const Current&) = delete;
  Current& operator=(const Current&) = delete;

 private:
  int before_ = 0;
  bool changed_ = false;
};

// Memory of the GPU, or of the host where `pinned`.
class Memory {
 public:
  Memory(std::size_t size_bytes, bool pinned);
  ~Memory();
  Memory(Memory&& other) noexcept;
  Memory& operator=(Memory&&) = delete;

  void* data() const { return data_; }

 private:
  void* data_ = nullptr;
  bool pinned_;
};

// A stream that does not wait for others.
class Stream {
 public:
  Stream();
  ~Stream();
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  cudaStream_t get() const { return stream_; }
  void copy(void* to, const void* from, std::size_t size_bytes, cudaMemcpyKind kind) const;
  void wait() const;

 private:
  cudaStream_t stream_ = nullptr;
};

// Work that was recorded once and is replayed.
class Graph {
 public:
  // What `work` enqueues, which does not run then. Throws Error where it cannot be captured; the stream is as before.
  Graph(const Stream& stream, const std::function<void()>& work);
  ~Graph();
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;

  void launch(const Stream& stream) const;

 private:
  cudaGraphExec_t graph_ = nullptr;
};

}  // namespace dlcv::cuda
