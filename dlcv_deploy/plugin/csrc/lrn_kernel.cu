// The kernels. A thread owns a pixel (or four that stand together) and goes down a chunk of its channels with the
// window in registers, so that each value is loaded once, but for the halo at both ends of the chunk.
#ifdef __CUDACC__
#include <cuda_runtime.h>
#define DLCV_SHARED(type, name, count) __shared__ type name[count]
#define DLCV_LAUNCH(kernel, grid, threads, stream, ...) kernel<<<grid, threads, 0, stream>>>(__VA_ARGS__)
#define DLCV_LAUNCH_TOGETHER DLCV_LAUNCH
#endif

#include <cfloat>

#include "lrn_launch.h"
#include "lrn_layout.h"
#include "lrn_plan.h"

namespace dlcv {
namespace {

// The window of one thread: kStep pieces to answer for, and a halo of kHalo pieces on either side.
template <class L, int kHalf, int kPixels>
struct Window {
  using Stored = typename L::Stored;
  using Piece = Pack<Stored, L::kChannels * kPixels>;
  static constexpr int kHalo = (kHalf + L::kChannels - 1) / L::kChannels;
  static constexpr int kStart = kHalo * L::kChannels;

  float values[(2 * kHalo + L::kStep) * L::kChannels][kPixels];

  // Put a piece at a place, counted from the first of the halo; what is no channel of the tensor counts as 0.
  __device__ __forceinline__ void load(int place, const Stored* image, const Map& map, int piece, int pixel,
                                       bool inside) {
    Piece read = {};
    if (inside && piece >= 0 && piece < map.pieces) {
      read = *reinterpret_cast<const Piece*>(image + L::offset(map, piece, pixel));
    }
    float read_values[L::kChannels * kPixels];
    L::Type::read(read, read_values);
    DLCV_UNROLL
    for (int i = 0; i < L::kChannels; ++i) {  // what pads the last vector may be anything
      const bool channel = L::kVector == 1 || piece * L::kChannels + i < map.channels;
      DLCV_UNROLL
      for (int p = 0; p < kPixels; ++p) {
        values[place * L::kChannels + i][p] = channel ? read_values[i * kPixels + p] : 0.0f;
      }
    }
  }

  // The answers of one piece of the step; 0 in the channels that pad the last vector.
  template <bool kGeneral>
  __device__ __forceinline__ Piece answers(int at, const Map& map, int piece, const Coefficients& c) const {
    Piece made;
    DLCV_UNROLL
    for (int i = 0; i < L::kChannels; ++i) {
      const bool channel = L::kVector == 1 || piece * L::kChannels + i < map.channels;
      DLCV_UNROLL
      for (int p = 0; p < kPixels; ++p) {
        float y = normalize<kHalf, kGeneral>(&values[kStart + at * L::kChannels + i][p], kPixels, c);
        if (L::Type::kScaled) y *= c.gain;
        made.values[i * kPixels + p] = L::Type::written(channel ? y : 0.0f);
      }
    }
    return made;
  }

  // Make room for the next step.
  __device__ __forceinline__ void advance() {
    DLCV_UNROLL
    for (int i = 0; i < 2 * kStart; ++i) {
      DLCV_UNROLL
      for (int p = 0; p < kPixels; ++p) values[i][p] = values[i + L::kStep * L::kChannels][p];
    }
  }
};

template <class L, int kHalf, bool kGeneral, int kPixels>
__global__ void __launch_bounds__(kThreads, 2)
    lrn_kernel(const typename L::Stored* __restrict__ x, typename L::Stored* __restrict__ y, Map map, int groups,
               int chunk, int chunks, Coefficients c) {
  using W = Window<L, kHalf, kPixels>;
  const int thread = blockIdx.x * kThreads + threadIdx.x;
  const int group = L::kPixelMajor ? thread / chunks : thread;  // of kPixels pixels, over the whole batch
  const int first = (L::kPixelMajor ? thread % chunks : blockIdx.y) * chunk;
  if (group >= groups) return;
  const int per_image = map.pixels / kPixels;
  const int pixel = group % per_image * kPixels;
  const std::int64_t image = group / per_image * L::image(map);
  const int last = min(first + chunk, map.pieces);

  W window;
  DLCV_UNROLL
  for (int i = 0; i < 2 * W::kHalo; ++i) window.load(i, x + image, map, first - W::kHalo + i, pixel, true);
  DLCV_KEEP_ROLLED
  for (int piece = first; piece < last; piece += L::kStep) {
    DLCV_UNROLL
    for (int i = 0; i < L::kStep; ++i) {
      window.load(2 * W::kHalo + i, x + image, map, piece + W::kHalo + i, pixel, true);
    }
    DLCV_UNROLL
    for (int i = 0; i < L::kStep; ++i) {
      if (piece + i < last) {
        *reinterpret_cast<typename W::Piece*>(y + image + L::offset(map, piece + i, pixel)) =
            window.template answers<kGeneral>(i, map, piece + i, c);
      }
    }
    window.advance();
  }
}

struct Pooling {
  PoolAttributes about;
  Tile tile;
  int tiles_across, tiles;
};

// A block normalizes the pixels that a tile of answers needs, a step of channels at a time, into shared memory, and
// takes the greatest there. Two buffers: while one is read, the next step is written, so that one barrier is enough.
template <class L, int kHalf, bool kGeneral, int kKernel>
__global__ void __launch_bounds__(kThreads, 2)
    lrn_max_pool_kernel(const typename L::Stored* __restrict__ x, typename L::Stored* __restrict__ y, Map in, Map out,
                        Pooling pool, int chunk, Coefficients c) {
  using W = Window<L, kHalf, 1>;
  using Piece = typename W::Piece;
  DLCV_SHARED(Piece, shared, 2 * L::kStep * kThreads);
  const int me = threadIdx.x;
  const Tile tile = pool.tile;
  const int image = blockIdx.x / pool.tiles, at = blockIdx.x % pool.tiles;
  const int top = at / pool.tiles_across * tile.out_height, left = at % pool.tiles_across * tile.out_width;
  const int row = top * pool.about.strides[0] - pool.about.pads[0] + me / tile.in_width;
  const int column = left * pool.about.strides[1] - pool.about.pads[1] + me % tile.in_width;
  const bool inside =
      me < tile.in_height * tile.in_width && row >= 0 && row < in.pixels / in.width && column >= 0 && column < in.width;
  const int pixel = inside ? row * in.width + column : 0;
  x += image * L::image(in);
  y += image * L::image(out);
  const int first = blockIdx.y * chunk, last = min(first + chunk, in.pieces);
  const int kernel_height = kKernel ? kKernel : pool.about.kernel[0];
  const int kernel_width = kKernel ? kKernel : pool.about.kernel[1];

  // The answer that this thread gives, the same in every step, for one piece of the step and each `slots`-th after it.
  const int answers = tile.out_height * tile.out_width, slots = blockDim.x / answers;
  const int slot = me / answers, down = me % answers / tile.out_width, across = me % answers % tile.out_width;
  const int out_row = top + down, out_column = left + across, out_pixel = out_row * out.width + out_column;
  const bool answering = slot < slots && out_row < out.pixels / out.width && out_column < out.width;
  const int corner = down * pool.about.strides[0] * tile.in_width + across * pool.about.strides[1];

  W window;
  DLCV_UNROLL
  for (int i = 0; i < 2 * W::kHalo; ++i) window.load(i, x, in, first - W::kHalo + i, pixel, inside);
  int buffer = 0;
  DLCV_KEEP_ROLLED
  for (int piece = first; piece < last; piece += L::kStep) {
    DLCV_UNROLL
    for (int i = 0; i < L::kStep; ++i) {
      window.load(2 * W::kHalo + i, x, in, piece + W::kHalo + i, pixel, inside);
    }
    DLCV_UNROLL
    for (int i = 0; i < L::kStep; ++i) {
      Piece made = window.template answers<kGeneral>(i, in, piece + i, c);
      DLCV_UNROLL
      for (int k = 0; k < L::kChannels; ++k) made.values[k] = inside ? made.values[k] : L::Type::lowest();
      shared[buffer + i * kThreads + me] = made;
    }
    window.advance();
    __syncthreads();
    DLCV_KEEP_ROLLED
    for (int i = slot; answering && i < min(L::kStep, last - piece); i += slots) {
      const Piece* under = shared + buffer + i * kThreads + corner;
      Piece most = under[0];
      DLCV_UNROLL
      for (int h = 0; h < kernel_height; ++h) {
        DLCV_UNROLL
        for (int w = 0; w < kernel_width; ++w) L::Type::grow(most, under[h * tile.in_width + w]);
      }
      *reinterpret_cast<Piece*>(y + L::offset(out, piece + i, out_pixel)) = most;
    }
    buffer = L::kStep * kThreads - buffer;
  }
}

// One call: what both launches share.
struct Call {
  const void* x;
  void* y;
  Shape shape, out;
  Coefficients coefficients;
  PoolAttributes pool;
  int multiprocessors;
  cudaStream_t stream;
};

bool fits_grid(std::int64_t blocks, int chunks) { return blocks <= 0x7fffffff / kThreads && chunks <= 0xffff; }

template <class L, int kHalf, bool kGeneral, int kPixels>
cudaError_t launch_lrn(const Call& call) {
  using Stored = typename L::Stored;
  const Shape& s = call.shape;
  const Map map = L::map(s.channels, s.height, s.width);
  const std::int64_t groups = static_cast<std::int64_t>(s.batch) * (map.pixels / kPixels);
  const std::int64_t blocks = (groups + kThreads - 1) / kThreads;
  const int halo = Window<L, kHalf, kPixels>::kHalo;
  const int chunk = chunk_of(map.pieces, L::kStep, halo, blocks, call.multiprocessors);
  const int chunks = divided_up(map.pieces, chunk);
  if (!fits_grid(L::kPixelMajor ? blocks * chunks : blocks, chunks)) return cudaErrorInvalidValue;
  const auto across = (groups * (L::kPixelMajor ? chunks : 1) + kThreads - 1) / kThreads;
  const dim3 grid(static_cast<unsigned>(across), L::kPixelMajor ? 1 : chunks);
  DLCV_LAUNCH((lrn_kernel<L, kHalf, kGeneral, kPixels>), grid, kThreads, call.stream,
              static_cast<const Stored*>(call.x), static_cast<Stored*>(call.y), map, static_cast<int>(groups), chunk,
              chunks, call.coefficients);
  return cudaGetLastError();
}

template <class L, int kHalf, bool kGeneral, int kKernel>
cudaError_t launch_lrn_max_pool(const Call& call) {
  using Stored = typename L::Stored;
  const Shape &s = call.shape, &o = call.out;
  const Map in = L::map(s.channels, s.height, s.width), out = L::map(o.channels, o.height, o.width);
  Pooling pool{call.pool, tile_of(o, call.pool, static_cast<int>(sizeof(Stored)) * L::kChannels), 0, 0};
  pool.tiles_across = divided_up(o.width, pool.tile.out_width);
  pool.tiles = pool.tiles_across * divided_up(o.height, pool.tile.out_height);
  const std::int64_t blocks = static_cast<std::int64_t>(s.batch) * pool.tiles;
  const int halo = Window<L, kHalf, 1>::kHalo;
  const int chunk = chunk_of(in.pieces, L::kStep, halo, blocks, call.multiprocessors);
  const int chunks = divided_up(in.pieces, chunk);
  if (!fits_grid(blocks, chunks)) return cudaErrorInvalidValue;
  const dim3 grid(static_cast<unsigned>(blocks), chunks);
  const int threads = threads_of(pool.tile.in_height, pool.tile.in_width);
  DLCV_LAUNCH_TOGETHER((lrn_max_pool_kernel<L, kHalf, kGeneral, kKernel>), grid, threads, call.stream,
                       static_cast<const Stored*>(call.x), static_cast<Stored*>(call.y), in, out, pool, chunk,
                       call.coefficients);
  return cudaGetLastError();
}

// Four pixels a thread where rows of every channel are aligned for it.
template <class L, int kHalf, bool kGeneral>
struct LrnLauncher {
  static cudaError_t launch(const Call& call) {
    if constexpr (L::kChannels == 1) {
      constexpr std::uintptr_t kAlign = sizeof(typename L::Stored) * 4;
      const auto bits = reinterpret_cast<std::uintptr_t>(call.x) | reinterpret_cast<std::uintptr_t>(call.y);
      if (call.shape.height * call.shape.width % 4 == 0 && bits % kAlign == 0) {
        return launch_lrn<L, kHalf, kGeneral, 4>(call);
      }
    }
    return launch_lrn<L, kHalf, kGeneral, 1>(call);
  }
};

// Pools of 3x3 are compiled; one kernel does all others, with any window.
template <class L, int kHalf, bool kGeneral>
struct LrnMaxPoolLauncher {
  static cudaError_t launch(const Call& call) {
    if (call.pool.kernel[0] == 3 && call.pool.kernel[1] == 3) return launch_lrn_max_pool<L, kHalf, kGeneral, 3>(call);
    return launch_lrn_max_pool<L, kWidestWindow / 2, true, 0>(call);
  }
};

template <template <class, int, bool> class Launcher, class L>
cudaError_t with_window(const Call& call) {
  switch (call.coefficients.half) {
    case 1:
      return Launcher<L, 1, false>::launch(call);
    case 2:
      return Launcher<L, 2, false>::launch(call);
    case 3:
      return Launcher<L, 3, false>::launch(call);
    case 4:
      return Launcher<L, 4, false>::launch(call);
    default:
      return Launcher<L, kWidestWindow / 2, true>::launch(call);
  }
}

template <template <class, int, bool> class Launcher>
cudaError_t with_format(Format format, const Call& call) {
  switch (format) {
    case Format::kFp32Linear:
      return with_window<Launcher, Fp32Linear>(call);
    case Format::kFp16Linear:
      return with_window<Launcher, Fp16Linear>(call);
    case Format::kFp16Hwc8:
      return with_window<Launcher, Fp16Hwc8>(call);
    case Format::kInt8Chw4:
      return with_window<Launcher, Int8Chw4>(call);
    case Format::kInt8Chw32:
      return with_window<Launcher, Int8Chw32>(call);
  }
  return cudaErrorInvalidValue;
}

bool is_int8(Format format) { return format == Format::kInt8Chw4 || format == Format::kInt8Chw32; }

// Whether 32-bit offsets reach everything within one image, padding channels included.
bool fits(const Shape& s) {
  if (s.batch < 0 || s.channels < 1 || s.height < 1 || s.width < 1) return false;
  const std::int64_t pixels = static_cast<std::int64_t>(s.height) * s.width;
  return pixels < 0x7fffffff && (static_cast<std::int64_t>(s.channels) + 31) < 0x7fffffff / pixels;
}

Coefficients coefficients_of(const LrnAttributes& a, bool int8) {
  const double in = int8 ? a.input_scale : 1.0, out = int8 ? a.output_scale : 1.0;
  const float scale = static_cast<float>(static_cast<double>(a.alpha) / a.size * in * in);
  const bool rooted = a.beta == 0.75f && a.bias >= FLT_MIN && scale >= 0;
  return {scale, a.beta, a.bias, static_cast<float>(in / out), a.size / 2, rooted};
}

}  // namespace

const char* problem_with(const LrnAttributes& a, bool int8) noexcept {
  if (a.size < 1 || a.size > kWidestWindow) return "size must be 1 to 15";
  if (a.size % 2 == 0) return "size must be odd: an even window has no centre";
  if (!(a.bias >= 0)) return "bias must not be negative";
  if (!std::isfinite(a.alpha) || !std::isfinite(a.beta) || !std::isfinite(a.bias)) {
    return "alpha, beta and bias must be finite";
  }
  for (const float scale : {a.input_scale, a.output_scale}) {
    if (int8 && !(std::isfinite(scale) && scale > 0)) return "int8 needs input_scale and output_scale above 0";
  }
  return nullptr;
}

const char* problem_with(const PoolAttributes& p) noexcept {
  for (int axis = 0; axis < 2; ++axis) {
    if (p.kernel[axis] < 1 || p.kernel[axis] > 15) return "kernel_shape must be 1 to 15";
    if (p.strides[axis] < 1) return "strides must be 1 or more";
    for (const int pad : {p.pads[axis], p.pads[axis + 2]}) {
      if (pad < 0 || pad >= p.kernel[axis]) return "pads must be smaller than kernel_shape";
    }
  }
  return nullptr;
}

Shape pooled(const Shape& s, const PoolAttributes& p) noexcept {
  const int tall = s.height + p.pads[0] + p.pads[2] - p.kernel[0], wide = s.width + p.pads[1] + p.pads[3] - p.kernel[1];
  return {s.batch, s.channels, tall < 0 ? 0 : tall / p.strides[0] + 1, wide < 0 ? 0 : wide / p.strides[1] + 1};
}

cudaError_t lrn(const void* x, void* y, Format format, const Shape& shape, const LrnAttributes& attributes,
                int multiprocessors, cudaStream_t stream) noexcept {
  const bool int8 = is_int8(format);
  if (!fits(shape) || problem_with(attributes, int8) != nullptr) return cudaErrorInvalidValue;
  if (shape.batch == 0) return cudaSuccess;
  const Call call{x, y, shape, shape, coefficients_of(attributes, int8), {}, multiprocessors, stream};
  return with_format<LrnLauncher>(format, call);
}

cudaError_t lrn_max_pool(const void* x, void* y, Format format, const Shape& shape, const LrnAttributes& attributes,
                         const PoolAttributes& pool, int multiprocessors, cudaStream_t stream) noexcept {
  const bool int8 = is_int8(format);
  if (!fits(shape) || problem_with(attributes, int8) != nullptr || problem_with(pool) != nullptr) {
    return cudaErrorInvalidValue;
  }
  const Shape out = pooled(shape, pool);
  if (!fits(out)) return cudaErrorInvalidValue;
  if (shape.batch == 0) return cudaSuccess;
  const Call call{x, y, shape, out, coefficients_of(attributes, int8), pool, multiprocessors, stream};
  return with_format<LrnMaxPoolLauncher>(format, call);
}

}  // namespace dlcv
