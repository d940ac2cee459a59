// How the work is cut: channels into chunks, a pooled map into tiles. Pure arithmetic on the host.
#pragma once

#include <algorithm>
#include <cstdint>

#include "lrn_launch.h"

namespace dlcv {

constexpr int kThreads = 256;  // of a block, at most

constexpr int divided_up(int a, int b) { return (a + b - 1) / b; }

// Pieces of channels that one thread goes through.
//
// All of them if that fills the device; else fewer, down to where the halo, read twice, is half of what is read once.
inline int chunk_of(int pieces, int step, int halo, std::int64_t blocks, int multiprocessors) {
  const int least = divided_up(std::max(4 * halo, step), step) * step;
  int chunk = divided_up(pieces, step) * step;
  while (blocks * divided_up(pieces, chunk) < 4LL * multiprocessors && chunk > least) {
    chunk = std::max(divided_up(chunk / 2, step) * step, least);
  }
  return chunk;
}

// The answers that one block gives, and the pixels it reads for them, a thread each.
struct Tile {
  int out_height, out_width, in_height, in_width;
};

// Threads of the block of a tile: one a pixel, and those that fill its last warp.
constexpr int threads_of(int in_height, int in_width) { return divided_up(in_height * in_width, 32) * 32; }

// The tile that costs the least: what it reads, in sectors of 32 bytes of which each row touches one in vain, and the
// threads that go through its channels. Memory bounds the one kind of GPU, and arithmetic the other.
inline Tile tile_of(const Shape& out, const PoolAttributes& pool, int pixel_bytes) {
  Tile best{};
  double least = 0;
  for (int w = 1; w <= out.width; ++w) {
    const int in_width = (w - 1) * pool.strides[1] + pool.kernel[1];
    for (int h = 1; h <= out.height; ++h) {
      const int in_height = (h - 1) * pool.strides[0] + pool.kernel[0];
      if (in_width * in_height > kThreads) break;
      const double tiles = static_cast<double>(divided_up(out.width, w)) * divided_up(out.height, h);
      const double cost = tiles * (in_height * (in_width + 32.0 / pixel_bytes) + threads_of(in_height, in_width));
      if (best.in_width == 0 || cost < least) {
        best = {h, w, in_height, in_width};
        least = cost;
      }
    }
  }
  return best;
}

}  // namespace dlcv
