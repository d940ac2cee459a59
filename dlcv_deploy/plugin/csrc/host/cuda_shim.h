// As much of CUDA as the kernels use, for a C++ compiler: every block and every thread runs, one after the other.
//
// Threads of a block that meet at barriers are fibers, and run from barrier to barrier in an order that can be turned
// round, so that a missing barrier shows. Shared memory is of the heap, filled anew for each block, so that
// AddressSanitizer sees its bounds and a value that nobody wrote is no number.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>

#define __host__
#define __device__
#define __global__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define DLCV_SHARED(type, name, count) type* name = static_cast<type*>(shim::shared(sizeof(type) * (count)))
#define DLCV_LAUNCH(kernel, grid, threads, stream, ...) shim::launch(grid, threads, false, [=] { kernel(__VA_ARGS__); })
#define DLCV_LAUNCH_TOGETHER(kernel, grid, threads, stream, ...) \
  shim::launch(grid, threads, true, [=] { kernel(__VA_ARGS__); })

struct dim3 {
  unsigned x, y, z;
  explicit dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

using cudaStream_t = void*;
enum cudaError_t { cudaSuccess = 0, cudaErrorInvalidValue = 1 };
inline cudaError_t cudaGetLastError() { return cudaSuccess; }

namespace shim {

struct Place {
  unsigned x, y, z;
};
extern Place thread, block, size;

// Order of the threads between barriers: 0 as they are numbered, 1 backwards, 2 the odd before the even.
extern int order;

void launch(dim3 grid, unsigned threads, bool together, const std::function<void()>& kernel);
void barrier();
void* shared(std::size_t bytes);

inline std::uint16_t half_of(float v) {
  std::uint32_t bits;
  std::memcpy(&bits, &v, 4);
  const std::uint32_t sign = bits >> 16 & 0x8000, rest = bits & 0x7fffffff;
  if (rest > 0x7f800000) return static_cast<std::uint16_t>(sign | 0x7e00);   // NaN
  if (rest >= 0x477ff000) return static_cast<std::uint16_t>(sign | 0x7c00);  // 65520 and above round to infinity
  if (rest < 0x38800000) {                                                   // below 2^-14: steps of 2^-24
    return static_cast<std::uint16_t>(sign | static_cast<std::uint32_t>(std::nearbyintf(std::fabs(v) * 16777216.0f)));
  }
  const std::uint32_t even = rest >> 13 & 1;
  return static_cast<std::uint16_t>(sign | ((rest - 0x38000000 + 0xfff + even) >> 13));
}

inline float float_of(std::uint16_t v) {
  const std::uint32_t sign = static_cast<std::uint32_t>(v & 0x8000) << 16, rest = v & 0x7fff;
  std::uint32_t bits;
  if (rest < 0x400) {
    const float small = static_cast<float>(rest) / 16777216.0f;
    return sign ? -small : small;
  }
  bits = sign | (rest >= 0x7c00 ? 0x7f800000 | (rest & 0x3ff) << 13 : (rest << 13) + 0x38000000);
  float found;
  std::memcpy(&found, &bits, 4);
  return found;
}

}  // namespace shim

#define threadIdx shim::thread
#define blockIdx shim::block
#define blockDim shim::size
inline void __syncthreads() { shim::barrier(); }

struct __half {
  std::uint16_t bits;
};
inline __half __ushort_as_half(std::uint16_t v) { return {v}; }
inline std::uint16_t __half_as_ushort(__half v) { return v.bits; }
inline float __half2float(__half v) { return shim::float_of(v.bits); }
inline __half __float2half_rn(float v) { return {shim::half_of(v)}; }
inline int min(int a, int b) { return a < b ? a : b; }
