// The arithmetic of local response normalization, the same on host and device.
//
// y = x * (bias + alpha / size * sum of x^2 over the window)^-beta, in float32 whatever the type in memory: the square
// of a float16 above 255 leaves float16. Each sum is taken anew. A running sum would save additions that memory hides,
// and would carry one infinity, as NaN, into every channel after it.
#pragma once

#include <cmath>
#include <cstdint>

#ifdef __CUDACC__
#include <cuda_fp16.h>
#else
#include "host/cuda_shim.h"
#endif

// Host compilers know neither pragma.
#ifdef __CUDA_ARCH__
#define DLCV_UNROLL _Pragma("unroll")
#define DLCV_KEEP_ROLLED _Pragma("unroll 1")
#else
#define DLCV_UNROLL
#define DLCV_KEEP_ROLLED
#endif

namespace dlcv {

constexpr int kWidestWindow = 15;

// What the kernels take of the attributes. In int8 the values in registers are steps: `scale` then holds the square of
// the input's scale, and `gain` is the input's scale over the output's.
struct Coefficients {
  float scale;  // alpha / size
  float beta;
  float bias;
  float gain;
  int half;  // window = 2 * half + 1
};

__host__ __device__ __forceinline__ float reciprocal_sqrt(float v) { return rsqrtf(v); }

__host__ __device__ __forceinline__ float approximate_sqrt(float v) {
#ifdef __CUDA_ARCH__
  float root;  // two ulp; sqrtf, exact, would be a third of the kernel's instructions
  asm("sqrt.approx.f32 %0, %1;" : "=f"(root) : "f"(v));
  return root;
#else
  return sqrtf(v);
#endif
}

// To the nearest integer, halves to the even one; NaN becomes 0, and what int does not hold its end.
__host__ __device__ __forceinline__ int nearest(float v) {
#ifdef __CUDA_ARCH__
  return __float2int_rn(v);
#else
  if (v != v) return 0;
  return static_cast<int>(nearbyintf(fminf(fmaxf(v, -2147483648.0f), 2147483520.0f)));
#endif
}

// v^-beta. Zero gives infinity, infinity zero, and a negative number NaN, as the division by v^beta would.
__host__ __device__ __forceinline__ float inverse_power(float v, float beta) {
  if (beta == 0.75f) {
    const float root = reciprocal_sqrt(v);
    return root * approximate_sqrt(root);
  }
  return powf(v, -beta);
}

// One answer from the window's values; those further than `half` from the centre do not count.
template <int kHalf, bool kGeneral>
__host__ __device__ __forceinline__ float normalize(const float* window, int stride, const Coefficients& c) {
  float sum = 0.0f;
  DLCV_UNROLL
  for (int d = -kHalf; d <= kHalf; ++d) {
    const float v = window[d * stride];
    if (!kGeneral || (d <= c.half && -d <= c.half)) sum = fmaf(v, v, sum);
  }
  return window[0] * inverse_power(fmaf(c.scale, sum, c.bias), c.beta);
}

// Types in memory. `lowest` loses against every value, so that padding is never the greatest.
struct Fp32 {
  using Stored = float;
  static constexpr bool kScaled = false;
  __host__ __device__ static __forceinline__ float read(Stored v) { return v; }
  __host__ __device__ static __forceinline__ Stored written(float v) { return v; }
  __host__ __device__ static __forceinline__ Stored lowest() { return -INFINITY; }
};

struct Fp16 {
  using Stored = std::uint16_t;
  static constexpr bool kScaled = false;
  __host__ __device__ static __forceinline__ float read(Stored v) { return __half2float(__ushort_as_half(v)); }
  __host__ __device__ static __forceinline__ Stored written(float v) { return __half_as_ushort(__float2half_rn(v)); }
  __host__ __device__ static __forceinline__ Stored lowest() { return 0xfc00; }
};

struct Int8 {
  using Stored = std::int8_t;
  static constexpr bool kScaled = true;
  __host__ __device__ static __forceinline__ float read(Stored v) { return static_cast<float>(v); }
  __host__ __device__ static __forceinline__ Stored written(float v) {
    const int steps = nearest(v);
    return static_cast<Stored>(steps < -128 ? -128 : steps > 127 ? 127 : steps);
  }
  __host__ __device__ static __forceinline__ Stored lowest() { return -128; }
};

// The greater of two; NaN wins, as in PyTorch's max_pool2d.
template <class Type>
__host__ __device__ __forceinline__ typename Type::Stored greater(typename Type::Stored a, typename Type::Stored b) {
  const float left = Type::read(a), right = Type::read(b);
  return right > left || right != right ? b : a;
}

}  // namespace dlcv
