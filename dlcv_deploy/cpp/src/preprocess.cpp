#include "preprocess.hpp"

#include <algorithm>
#include <array>

#include "dlcv/error.hpp"
#include "resize.hpp"

namespace dlcv {
namespace {

std::string size_of(const Image& image) {
  return std::to_string(image.width) + " x " + std::to_string(image.height) + " pixels";
}

void check(const Image& image) {
  const bool sized = image.width > 0 && image.height > 0;
  if (sized && image.rgb.size() == std::size_t{3} * image.width * image.height) return;
  throw Error(ErrorKind::request, "",
              "an image is " + size_of(image) + " with " + std::to_string(image.rgb.size()) + " bytes",
              "give RGB images of 3 x width x height bytes");
}

// Black around the image, which stands where the centre crop is cut.
Image padded(const Image& image, const Preprocess& pre) {
  if (image.width != pre.size || image.height != pre.size) {
    const std::string size = std::to_string(pre.size) + " x " + std::to_string(pre.size);
    throw Error(ErrorKind::request, "",
                "an image is " + size_of(image) + ", and this network takes " + size + " unscaled",
                "scale the images to " + size + " as those the network was trained on");
  }
  const std::size_t start = static_cast<std::size_t>(centre(pre.canvas, pre.size)), row = std::size_t{3} * pre.size;
  Image canvas{pre.canvas, pre.canvas, std::vector<std::uint8_t>(std::size_t{3} * pre.canvas * pre.canvas)};
  for (std::size_t y = 0; y < static_cast<std::size_t>(pre.size); ++y)
    std::copy_n(&image.rgb[y * row], row, &canvas.rgb[((start + y) * pre.canvas + start) * 3]);
  return canvas;
}

// x * scale + bias for each of a channel's 256 levels, product and sum each rounded to float, whatever the processor.
std::array<std::array<float, 256>, 3> levels(const Preprocess& pre) {
  std::array<std::array<float, 256>, 3> table{};
  for (std::size_t c = 0; c < 3; ++c) {
    const auto scale = static_cast<float>(1 / (255 * pre.std[c]));
    const auto bias = static_cast<float>(-pre.mean[c] / pre.std[c]);
    for (std::size_t v = 0; v < 256; ++v) {
      volatile float product = static_cast<float>(v) * scale;  // or a compiler may add without rounding it first
      table[c][v] = product + bias;
    }
  }
  return table;
}

struct Corner {
  int y, x;
  bool mirrored;
};

// In the order of torchvision's TenCrop; one crop is the centre.
std::vector<Corner> corners(const Preprocess& pre, int crops) {
  const int end = pre.canvas - pre.size, middle = static_cast<int>(centre(pre.canvas, pre.size));
  if (crops == 1) return {{middle, middle, false}};
  std::vector<Corner> all;
  for (bool mirrored : {false, true})
    for (auto [y, x] : {std::pair{0, 0}, {0, end}, {end, 0}, {end, end}, {middle, middle}})
      all.push_back({y, x, mirrored});
  return all;
}

}  // namespace

std::vector<float> to_input(const Image& image, const Preprocess& pre, int crops) {
  if (crops != 1 && crops != 10)
    throw Error(ErrorKind::request, "", "cannot cut " + std::to_string(crops) + " crops of an image",
                "give 1 for the centre, or 10");
  check(image);
  const Image canvas = pre.pad ? padded(image, pre) : centre_square(image, pre.canvas);
  const auto table = levels(pre);
  const auto size = static_cast<std::size_t>(pre.size), plane = size * size;
  std::vector<float> input(plane * 3 * static_cast<std::size_t>(crops));
  float* out = input.data();
  for (const Corner& at : corners(pre, crops)) {
    for (std::size_t y = 0; y < size; ++y) {
      const int left = at.mirrored ? pre.canvas - 1 - at.x : at.x;
      const std::uint8_t* const first = &canvas.rgb[((at.y + y) * pre.canvas + left) * 3];
      float* const row = out + y * size;
      for (int x = 0; x < pre.size; ++x) {
        const std::uint8_t* const pixel = first + (at.mirrored ? -3 : 3) * x;
        for (std::size_t c = 0; c < 3; ++c) row[c * plane + x] = table[c][pixel[c]];
      }
    }
    out += plane * 3;
  }
  return input;
}

}  // namespace dlcv
