// Scaling an image as Pillow's bilinear filter does.
#pragma once

#include "dlcv/image.hpp"

namespace dlcv {

// Where a centred part of this length starts; halves go to the even neighbour.
std::int64_t centre(std::int64_t whole, std::int64_t part);

// The shorter side scaled to `side`, then the centre square, side x side: pixel for pixel what Pillow's resize gives
// after torchvision's rounding of the longer side, though what lies outside the square is never computed.
Image centre_square(const Image& image, int side);

}  // namespace dlcv
