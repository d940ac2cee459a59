#include "resize.hpp"

#include <algorithm>
#include <cmath>

namespace dlcv {
namespace {

constexpr int kBits = 22;  // of a weight's fraction
constexpr std::int32_t kHalf = 1 << (kBits - 1);

std::uint8_t rounded(std::int32_t sum) { return static_cast<std::uint8_t>(std::min(sum >> kBits, 255)); }

// For each of some neighbouring pixels of a scaled axis: which pixels of the image make it, and with what weights.
struct Axis {
  std::vector<int> first, count;
  std::vector<std::int32_t> weights;  // `most` for each pixel
  std::size_t most = 0;

  int begin() const { return first.front(); }
  int end() const { return first.back() + count.back(); }
};

// Weights of a triangle as wide as the reduction, in double, normalized, then rounded: any other order of these steps
// gives other pixels. The length of the axis goes through float, as in Pillow.
Axis axis_of(int length, std::int64_t scaled, std::int64_t from, int wanted) {
  const double scale = static_cast<double>(static_cast<float>(length)) / static_cast<double>(scaled);
  const double support = std::max(scale, 1.0), slope = 1.0 / support;
  Axis axis;
  axis.most = static_cast<std::size_t>(std::ceil(support)) * 2 + 1;
  axis.weights.resize(axis.most * static_cast<std::size_t>(wanted));
  std::vector<double> exact(axis.most);
  for (int i = 0; i < wanted; ++i) {
    const double middle = (static_cast<double>(from + i) + 0.5) * scale;
    const int first = std::max(0, static_cast<int>(middle - support + 0.5));
    const int count = std::min(length, static_cast<int>(middle + support + 0.5)) - first;
    double sum = 0;
    for (int x = 0; x < count; ++x) {
      exact[x] = std::max(0.0, 1.0 - std::abs((x + first - middle + 0.5) * slope));
      sum += exact[x];
    }
    for (int x = 0; x < count; ++x)
      axis.weights[i * axis.most + x] =
          static_cast<std::int32_t>(0.5 + (sum != 0 ? exact[x] / sum : exact[x]) * (1 << kBits));
    axis.first.push_back(first);
    axis.count.push_back(count);
  }
  return axis;
}

void across(const std::uint8_t* row, const Axis& axis, std::uint8_t* out) {
  for (std::size_t i = 0; i < axis.first.size(); ++i, out += 3) {
    const std::uint8_t* pixel = row + std::size_t{3} * axis.first[i];
    const std::int32_t* weight = &axis.weights[i * axis.most];
    std::int32_t red = kHalf, green = kHalf, blue = kHalf;
    for (int x = 0; x < axis.count[i]; ++x, pixel += 3) {
      red += pixel[0] * weight[x];
      green += pixel[1] * weight[x];
      blue += pixel[2] * weight[x];
    }
    out[0] = rounded(red);
    out[1] = rounded(green);
    out[2] = rounded(blue);
  }
}

void down(const std::uint8_t* rows, std::size_t values, const std::int32_t* weights, int count,
          std::vector<std::int32_t>& sums, std::uint8_t* out) {
  std::fill(sums.begin(), sums.end(), kHalf);
  std::int32_t* const sum = sums.data();
  for (int y = 0; y < count; ++y, rows += values)
    for (std::size_t i = 0; i < values; ++i) sum[i] += rows[i] * weights[y];
  for (std::size_t i = 0; i < values; ++i) out[i] = rounded(sum[i]);
}

// Rows `from` to `to` of an image with its columns scaled.
Image narrowed(const Image& image, const Axis& columns, int from, int to) {
  const int width = static_cast<int>(columns.first.size()), height = to - from;
  Image out{width, height, std::vector<std::uint8_t>(std::size_t{3} * width * height)};
  for (int y = 0; y < height; ++y)
    across(&image.rgb[std::size_t{3} * image.width * (from + y)], columns, &out.rgb[std::size_t{3} * width * y]);
  return out;
}

// An image with its rows scaled; it may lack those before `from`, which no row of the result is made of.
Image lowered(const Image& image, const Axis& lines, int from) {
  const int height = static_cast<int>(lines.first.size());
  const std::size_t values = std::size_t{3} * image.width;
  Image out{image.width, height, std::vector<std::uint8_t>(values * height)};
  std::vector<std::int32_t> sums(values);
  for (int y = 0; y < height; ++y)
    down(&image.rgb[values * (lines.first[y] - from)], values, &lines.weights[y * lines.most], lines.count[y], sums,
         &out.rgb[values * y]);
  return out;
}

Image cut(const Image& image, int side) {
  const std::int64_t y = centre(image.height, side), x = centre(image.width, side);
  Image square{side, side, {}};
  square.rgb.reserve(std::size_t{3} * side * side);
  for (int i = 0; i < side; ++i) {
    const auto row = image.rgb.begin() + ((y + i) * image.width + x) * 3;
    square.rgb.insert(square.rgb.end(), row, row + 3 * side);
  }
  return square;
}

}  // namespace

std::int64_t centre(std::int64_t whole, std::int64_t part) {
  const std::int64_t left = whole - part, half = left / 2;
  return half + (left % 2 != 0 && half % 2 != 0);
}

Image centre_square(const Image& image, int side) {
  const int shorter = std::min(image.width, image.height);
  if (shorter == side) return cut(image, side);
  const std::int64_t longer = std::int64_t{side} * std::max(image.width, image.height) / shorter;
  const std::int64_t to_width = image.width <= image.height ? side : longer;
  const std::int64_t to_height = image.width <= image.height ? longer : side;
  const Axis columns = axis_of(image.width, to_width, centre(to_width, side), side);
  const Axis lines = axis_of(image.height, to_height, centre(to_height, side), side);

  // Pillow 13 begins with the axis that loses more; each pass rounds to 8 bits, so the order is seen in the result
  if (image.height > to_height && image.height - to_height > 2 * (image.width - to_width))
    return narrowed(lowered(image, lines, 0), columns, 0, side);
  return lowered(narrowed(image, columns, lines.begin(), lines.end()), lines, lines.begin());
}

}  // namespace dlcv
