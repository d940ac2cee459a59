// Where TensorRT's tensor formats keep a channel of a pixel, in pieces of as many channels as one load takes.
#pragma once

#include "lrn_math.h"

namespace dlcv {

// One tensor of (batch, channels, height, width).
struct Map {
  int channels;
  int width;
  int pixels;  // height * width
  int pieces;  // loads that all channels take, those that pad the last vector included
};

// A format: its type, the channels of one load, the channels of one vector in memory, and the loads of one step, which
// are in flight together. kPixelMajor: all channels of a pixel stand together.
template <class Type_, int kChannels_, int kVector_, int kStep_, bool kPixelMajor_>
struct Layout {
  using Type = Type_;
  using Stored = typename Type::Stored;
  static constexpr int kChannels = kChannels_, kVector = kVector_, kStep = kStep_;
  static constexpr bool kPixelMajor = kPixelMajor_;

  // Elements before the first of a piece, within one image.
  __host__ __device__ static __forceinline__ int offset(const Map& map, int piece, int pixel) {
    constexpr int kPerVector = kVector / kChannels;
    if (kPixelMajor) return (pixel * map.pieces + piece) * kChannels;
    return ((piece / kPerVector) * map.pixels + pixel) * kVector + (piece % kPerVector) * kChannels;
  }

  __host__ __device__ static Map map(int channels, int height, int width) {
    const int vectors = (channels + kVector - 1) / kVector;
    return {channels, width, height * width, vectors * (kVector / kChannels)};
  }

  // Elements of one image.
  __host__ __device__ static __forceinline__ std::int64_t image(const Map& map) {
    return static_cast<std::int64_t>(map.pieces) * kChannels * map.pixels;
  }
};

using Fp32Linear = Layout<Fp32, 1, 1, 4, false>;
using Fp16Linear = Layout<Fp16, 1, 1, 4, false>;
using Fp16Hwc8 = Layout<Fp16, 8, 8, 2, true>;
using Int8Chw4 = Layout<Int8, 4, 4, 4, false>;
using Int8Chw32 = Layout<Int8, 8, 32, 4, false>;

}  // namespace dlcv
