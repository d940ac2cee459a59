#include "preprocess.hpp"

#include <algorithm>
#include <array>
#include <iterator>
#include <utility>

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

// A square of the canvas as three planes of numbers, 3 x side x side.
std::vector<float> normalized(const Image& canvas, const Preprocess& pre, int from, int side) {
  const auto table = levels(pre);
  std::vector<float> planes(std::size_t{3} * side * side);
  float* out = planes.data();
  for (std::size_t c = 0; c < 3; ++c)
    for (int y = from; y < from + side; ++y, out += side) {
      const std::uint8_t* const row = &canvas.rgb[(std::size_t{3} * canvas.width) * y + std::size_t{3} * from + c];
      for (int x = 0; x < side; ++x) out[x] = table[c][row[3 * x]];
    }
  return planes;
}

// In the order of torchvision's TenCrop: the corners and the centre, then those of the mirrored canvas.
std::vector<float> ten_crops(const std::vector<float>& planes, const Preprocess& pre) {
  const auto whole = static_cast<std::ptrdiff_t>(pre.canvas), size = static_cast<std::ptrdiff_t>(pre.size);
  const std::ptrdiff_t end = whole - size, middle = centre(whole, size);
  const std::pair<std::ptrdiff_t, std::ptrdiff_t> corners[] = {
      {0, 0}, {0, end}, {end, 0}, {end, end}, {middle, middle}};
  std::vector<float> crops;
  crops.reserve(static_cast<std::size_t>(10 * 3 * size * size));
  for (const bool mirrored : {false, true})
    for (const auto& [top, left] : corners)
      for (std::ptrdiff_t c = 0; c < 3; ++c)
        for (std::ptrdiff_t y = top; y < top + size; ++y) {
          const auto row = planes.begin() + (c * whole + y) * whole;
          if (mirrored) {
            const auto last = std::make_reverse_iterator(row + whole) + left;
            crops.insert(crops.end(), last, last + size);
          } else {
            crops.insert(crops.end(), row + left, row + left + size);
          }
        }
  return crops;
}

}  // namespace

std::vector<float> to_input(const Image& image, const Preprocess& pre, int crops) {
  if (crops != 1 && crops != 10)
    throw Error(ErrorKind::request, "", "cannot cut " + std::to_string(crops) + " crops of an image",
                "give 1 for the centre, or 10");
  check(image);
  const Image canvas = pre.pad ? padded(image, pre) : centre_square(image, pre.canvas);
  if (crops == 1) return normalized(canvas, pre, static_cast<int>(centre(pre.canvas, pre.size)), pre.size);
  return ten_crops(normalized(canvas, pre, 0, pre.canvas), pre);
}

}  // namespace dlcv
