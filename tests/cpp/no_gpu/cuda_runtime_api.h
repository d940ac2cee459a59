// CUDA without a GPU: memory is the host's, and work on a stream is done when somebody waits for it, not before.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <cstring>

#include "fake.hpp"

enum cudaError_t {
  cudaSuccess = 0,
  cudaErrorMemoryAllocation = 2,
  cudaErrorInitializationError = 3,
  cudaErrorInsufficientDriver = 35,
  cudaErrorNoDevice = 100,
  cudaErrorUnknown = 999
};
enum cudaMemcpyKind { cudaMemcpyHostToDevice = 1, cudaMemcpyDeviceToHost = 2 };
enum cudaStreamCaptureMode { cudaStreamCaptureModeThreadLocal = 1 };
constexpr unsigned cudaStreamNonBlocking = 1;

struct FakeStream : fake::Alive {
  fake::Work queue, captured;
  bool capturing = false;
  void put(std::function<void()> work) { (capturing ? captured : queue).push_back(std::move(work)); }
};
struct FakeGraph : fake::Alive {
  fake::Work work;
};
using cudaStream_t = FakeStream*;
using cudaEvent_t = void*;
using cudaGraph_t = FakeGraph*;
using cudaGraphExec_t = FakeGraph*;

inline cudaError_t answer(const char* call) { return fake::fails(call) ? cudaErrorUnknown : cudaSuccess; }
inline const char* cudaGetErrorName(cudaError_t) { return "cudaErrorUnknown"; }
inline const char* cudaGetErrorString(cudaError_t) { return "told to fail"; }
inline cudaError_t cudaGetLastError() { return cudaSuccess; }

inline cudaError_t cudaGetDevice(int* device) {
  *device = fake::device;
  return answer("cudaGetDevice");
}
inline cudaError_t cudaSetDevice(int device) {
  if (fake::fails("cudaSetDevice")) return cudaErrorUnknown;
  fake::device = device;
  return cudaSuccess;
}
inline cudaError_t cudaMalloc(void** data, std::size_t size) {
  if (fake::fails("cudaMalloc")) return cudaErrorMemoryAllocation;
  *data = std::memset(std::malloc(size), 0x5A, size);
  fake::count(1);
  return cudaSuccess;
}
inline cudaError_t cudaMallocHost(void** data, std::size_t size) {
  return fake::fails("cudaMallocHost") ? cudaErrorMemoryAllocation : cudaMalloc(data, size);
}
inline cudaError_t cudaFree(void* data) {
  std::free(data);
  fake::count(-1);
  return cudaSuccess;
}
inline cudaError_t cudaFreeHost(void* data) { return cudaFree(data); }
inline cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  if (fake::fails("cudaStreamCreateWithFlags")) return cudaErrorUnknown;
  *stream = new FakeStream;
  return cudaSuccess;
}
inline cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  for (const auto& work : stream->queue) work();
  stream->queue.clear();
  return answer("cudaStreamSynchronize");
}
inline cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  delete stream;
  return cudaSuccess;
}
inline cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t size, cudaMemcpyKind, cudaStream_t stream) {
  if (fake::fails("cudaMemcpyAsync")) return cudaErrorUnknown;
  stream->put([=] { std::memcpy(to, from, size); });
  return cudaSuccess;
}
inline cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
  if (fake::fails("cudaStreamBeginCapture")) return cudaErrorUnknown;
  stream->capturing = true;
  return cudaSuccess;
}
inline cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  stream->capturing = false;
  fake::Work work;
  work.swap(stream->captured);
  if (fake::fails("cudaStreamEndCapture")) return cudaErrorUnknown;
  *graph = new FakeGraph;
  (*graph)->work = std::move(work);
  return cudaSuccess;
}
inline cudaError_t cudaGraphInstantiateWithFlags(cudaGraphExec_t* made, cudaGraph_t graph, unsigned long long) {
  if (fake::fails("cudaGraphInstantiateWithFlags")) return cudaErrorUnknown;
  *made = new FakeGraph(*graph);
  fake::count(1);  // a copy does not count itself
  return cudaSuccess;
}
inline cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete graph;
  return cudaSuccess;
}
inline cudaError_t cudaGraphExecDestroy(cudaGraphExec_t graph) { return cudaGraphDestroy(graph); }
inline cudaError_t cudaGraphLaunch(cudaGraphExec_t graph, cudaStream_t stream) {
  if (fake::fails("cudaGraphLaunch")) return cudaErrorUnknown;
  ++fake::launches;
  for (const auto& work : graph->work) stream->put(work);
  return cudaSuccess;
}
