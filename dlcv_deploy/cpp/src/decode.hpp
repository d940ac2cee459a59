// The decoders behind Image: JPEG by libjpeg-turbo, PNG by libpng, each giving what Pillow gives.
#pragma once

#include <cstddef>
#include <cstdint>
#include <stdexcept>

#include "dlcv/image.hpp"

namespace dlcv {

// Why some bytes are no image; the words follow "image NAME cannot be read: ".
struct Unreadable : std::runtime_error {
  using std::runtime_error::runtime_error;
};

inline constexpr char kTruncated[] = "image file is truncated";
inline constexpr char kBroken[] = "broken data stream when reading image file";

bool is_jpeg(const std::uint8_t* data, std::size_t size);
bool is_png(const std::uint8_t* data, std::size_t size);
Image decode_jpeg(const std::uint8_t* data, std::size_t size);
Image decode_png(const std::uint8_t* data, std::size_t size);

// An image of this size without pixels yet, the memory for them reserved and untouched. Throws Unreadable: it is empty,
// or larger than Pillow takes.
Image blank(std::uint64_t width, std::uint64_t height);

}  // namespace dlcv
