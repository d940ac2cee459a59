// The kernels, to be called with raw pointers: nothing of TensorRT is needed here.
#pragma once

#ifdef DLCV_ON_HOST
#include "host/cuda_shim.h"
#else
#include <cuda_runtime_api.h>
#endif

namespace dlcv {

enum class Format : int { kFp32Linear, kFp16Linear, kFp16Hwc8, kInt8Chw4, kInt8Chw32 };

struct Shape {
  int batch, channels, height, width;
};

// ONNX's convention: alpha is divided by the window. The scales are those of int8 tensors, and not read for others.
struct LrnAttributes {
  int size;
  float alpha, beta, bias;
  float input_scale, output_scale;
};

// Top, left, bottom, right; padding never is the greatest.
struct PoolAttributes {
  int kernel[2], strides[2], pads[4];
};

// What is wrong with attributes, in words; nullptr where nothing is.
const char* problem_with(const LrnAttributes& lrn, bool int8) noexcept;
const char* problem_with(const PoolAttributes& pool) noexcept;

// Height and width of the pooled map; 0 where the window fits nowhere.
Shape pooled(const Shape& shape, const PoolAttributes& pool) noexcept;

// Put y = LRN(x) on the stream.
//
// x, y: device memory in the format, aligned as TensorRT aligns tensors (256 bytes; 16 are enough).
// multiprocessors: of the device, so that a batch of one fills it; 0 where it is not known.
// Returns cudaErrorInvalidValue for attributes or shapes out of range, else what the launch returned.
cudaError_t lrn(const void* x, void* y, Format format, const Shape& shape, const LrnAttributes& attributes,
                int multiprocessors, cudaStream_t stream) noexcept;

// Put y = MaxPool(LRN(x)) on the stream, the normalized map never leaving the chip; as above.
cudaError_t lrn_max_pool(const void* x, void* y, Format format, const Shape& shape, const LrnAttributes& attributes,
                         const PoolAttributes& pool, int multiprocessors, cudaStream_t stream) noexcept;

}  // namespace dlcv
