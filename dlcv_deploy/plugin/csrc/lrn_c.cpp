// The kernels behind a C interface, for programs that have no TensorRT, and for the proofs.
#include "lrn_launch.h"

#ifdef DLCV_ON_HOST
#define DLCV_VISIBLE extern "C"
#else
#define DLCV_VISIBLE extern "C" __attribute__((visibility("default")))
#endif

namespace {

dlcv::LrnAttributes lrn_of(int size, const float* numbers) {
  return {size, numbers[0], numbers[1], numbers[2], numbers[3], numbers[4]};
}

dlcv::PoolAttributes pool_of(const int* pool) {
  return {{pool[0], pool[1]}, {pool[2], pool[3]}, {pool[4], pool[5], pool[6], pool[7]}};
}

}  // namespace

// Put an operator on a stream; returns the cudaError_t.
//
// x, y: device memory. format: that of the enumeration in lrn_launch.h. shape: batch, channels, height, width.
// numbers: alpha, beta, bias, input_scale, output_scale. pool: kernel 2, strides 2, pads 4, or null for DlcvLRN.
DLCV_VISIBLE int dlcv_lrn(const void* x, void* y, int format, const int* shape, int size, const float* numbers,
                          const int* pool, int multiprocessors, void* stream) noexcept {
  const dlcv::Shape s{shape[0], shape[1], shape[2], shape[3]};
  const auto kind = static_cast<dlcv::Format>(format);
  const auto on = static_cast<cudaStream_t>(stream);
  if (pool == nullptr) return dlcv::lrn(x, y, kind, s, lrn_of(size, numbers), multiprocessors, on);
  return dlcv::lrn_max_pool(x, y, kind, s, lrn_of(size, numbers), pool_of(pool), multiprocessors, on);
}

// What is wrong with attributes, in words; null where nothing is.
DLCV_VISIBLE const char* dlcv_problem(int size, const float* numbers, const int* pool, int int8) noexcept {
  if (const char* problem = dlcv::problem_with(lrn_of(size, numbers), int8 != 0)) return problem;
  return pool == nullptr ? nullptr : dlcv::problem_with(pool_of(pool));
}
