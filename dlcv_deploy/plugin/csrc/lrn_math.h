// The arithmetic of local response normalization, the same on host and device.
//
// y = x * (bias + alpha / size * sum of x^2 over the window)^-beta, in float32 whatever the type in memory: the square
// of a float16 above 255 leaves float16. Each sum is taken anew. A running sum would save additions that memory hides,
// and would carry one infinity, as NaN, into every channel after it.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

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
  int half;     // window = 2 * half + 1
  bool rooted;  // beta is 0.75, and bias keeps what is raised to it off the denormals: two square roots do
};

// v^-0.75, of a normal number or infinity; both roots are within two ulp.
__host__ __device__ __forceinline__ float rooted_power(float v) {
#ifdef __CUDA_ARCH__
  float root, of_root;
  asm("rsqrt.approx.ftz.f32 %0, %1;" : "=f"(root) : "f"(v));
  asm("sqrt.approx.ftz.f32 %0, %1;" : "=f"(of_root) : "f"(root));
#else
  const float root = 1.0f / sqrtf(v), of_root = sqrtf(root);
#endif
  return root * of_root;
}

// v^-beta. Zero gives infinity, infinity zero, and a negative number NaN, as the division by v^beta would.
__host__ __device__ __forceinline__ float inverse_power(float v, const Coefficients& c) {
  return c.rooted ? rooted_power(v) : powf(v, -c.beta);
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
  return window[0] * inverse_power(fmaf(c.scale, sum, c.bias), c);
}

// As many values as one load or store moves.
template <class Stored, int kCount>
struct alignas(sizeof(Stored) * kCount) Pack {
  Stored values[kCount];
};

__host__ __device__ __forceinline__ float float_of_bits(std::uint32_t bits) {
  float v;
  memcpy(&v, &bits, 4);
  return v;
}

__host__ __device__ __forceinline__ std::uint32_t bits_of_float(float v) {
  std::uint32_t bits;
  memcpy(&bits, &v, 4);
  return bits;
}

// The greater of two; NaN wins, as in PyTorch's max_pool2d.
__host__ __device__ __forceinline__ float greater(float a, float b) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  float most;
  asm("max.NaN.f32 %0, %1, %2;" : "=f"(most) : "f"(a), "f"(b));
  return most;
#else
  return b > a || b != b ? b : a;
#endif
}

// Types in memory. `lowest` loses against every value, so that padding is never the greatest. `grow` makes each value
// of a pack the greater of two, in words of four bytes where the hardware can.
struct Fp32 {
  using Stored = float;
  static constexpr bool kScaled = false;
  template <int kCount>
  __host__ __device__ static __forceinline__ void read(const Pack<Stored, kCount>& pack, float* values) {
    DLCV_UNROLL
    for (int i = 0; i < kCount; ++i) values[i] = pack.values[i];
  }
  __host__ __device__ static __forceinline__ Stored written(float v) { return v; }
  __host__ __device__ static __forceinline__ Stored lowest() { return -INFINITY; }
  template <int kCount>
  __host__ __device__ static __forceinline__ void grow(Pack<Stored, kCount>& most, const Pack<Stored, kCount>& other) {
    DLCV_UNROLL
    for (int i = 0; i < kCount; ++i) most.values[i] = greater(most.values[i], other.values[i]);
  }
};

struct Fp16 {
  using Stored = std::uint16_t;
  static constexpr bool kScaled = false;
  __host__ __device__ static __forceinline__ float read(Stored v) { return __half2float(__ushort_as_half(v)); }
  template <int kCount>
  __host__ __device__ static __forceinline__ void read(const Pack<Stored, kCount>& pack, float* values) {
    DLCV_UNROLL
    for (int i = 0; i < kCount; ++i) values[i] = read(pack.values[i]);
  }
  __host__ __device__ static __forceinline__ Stored written(float v) { return __half_as_ushort(__float2half_rn(v)); }
  __host__ __device__ static __forceinline__ Stored lowest() { return 0xfc00; }
  template <int kCount>
  __host__ __device__ static __forceinline__ void grow(Pack<Stored, kCount>& most, const Pack<Stored, kCount>& other) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    if constexpr (kCount == 1) {
      asm("max.NaN.f16 %0, %0, %1;" : "+h"(most.values[0]) : "h"(other.values[0]));
    } else {
      DLCV_UNROLL
      for (int i = 0; i < kCount; i += 2) {
        std::uint32_t a, b;
        memcpy(&a, &most.values[i], 4);
        memcpy(&b, &other.values[i], 4);
        asm("max.NaN.f16x2 %0, %0, %1;" : "+r"(a) : "r"(b));
        memcpy(&most.values[i], &a, 4);
      }
    }
#else
    DLCV_UNROLL
    for (int i = 0; i < kCount; ++i) {
      const float a = read(most.values[i]), b = read(other.values[i]);
      most.values[i] = b > a || b != b ? other.values[i] : most.values[i];
    }
#endif
  }
};

// Conversions go by way of float32's own digits: the units that convert are as slow as those that take roots.
struct Int8 {
  using Stored = std::int8_t;
  static constexpr bool kScaled = true;
  template <int kCount>
  __host__ __device__ static __forceinline__ void read(const Pack<Stored, kCount>& pack, float* values) {
    DLCV_UNROLL
    for (int i = 0; i < kCount; i += 4) {
      std::uint32_t word;
      memcpy(&word, &pack.values[i], 4);
      word ^= 0x80808080;  // 0 to 255 for -128 to 127; then the last digits of 2^23 and some
      DLCV_UNROLL
      for (int k = 0; k < 4; ++k) values[i + k] = float_of_bits(digits(word, k)) - 8388736.0f;
    }
  }
  // To the nearest step, halves to the even one, held to what int8 has; NaN becomes the lowest.
  __host__ __device__ static __forceinline__ Stored written(float v) {
    const float held = fminf(fmaxf(v, -128.0f), 127.0f);
    return static_cast<Stored>(bits_of_float(held + 12582912.0f) & 0xff);  // 1.5 * 2^23: what is behind the point goes
  }
  __host__ __device__ static __forceinline__ Stored lowest() { return -128; }
  template <int kCount>
  __host__ __device__ static __forceinline__ void grow(Pack<Stored, kCount>& most, const Pack<Stored, kCount>& other) {
    DLCV_UNROLL
    for (int i = 0; i < kCount; i += 4) {
      std::uint32_t a, b;
      memcpy(&a, &most.values[i], 4);
      memcpy(&b, &other.values[i], 4);
      a = greater_of_four(a, b);
      memcpy(&most.values[i], &a, 4);
    }
  }

 private:
  __host__ __device__ static __forceinline__ std::uint32_t greater_of_four(std::uint32_t a, std::uint32_t b) {
#ifdef __CUDA_ARCH__
    return __vmaxs4(a, b);
#else
    Stored left[4], right[4];
    memcpy(left, &a, 4);
    memcpy(right, &b, 4);
    for (int i = 0; i < 4; ++i) left[i] = right[i] > left[i] ? right[i] : left[i];
    memcpy(&a, left, 4);
    return a;
#endif
  }

  __host__ __device__ static __forceinline__ std::uint32_t digits(std::uint32_t word, int byte) {
#ifdef __CUDA_ARCH__
    return __byte_perm(word, 0x4b000000, 0x7650 + byte);
#else
    return 0x4b000000 | (word >> 8 * byte & 0xff);
#endif
  }
};

}  // namespace dlcv
