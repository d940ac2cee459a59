// From an image to a network's input, step by step as parity/crops.py.
#pragma once

#include <vector>

#include "bundle.hpp"
#include "dlcv/image.hpp"

namespace dlcv {

// crops x 3 x S x S, the same numbers as Python's to the last bit. Throws Error (request): other crops than 1 or 10; an
// image that is not S x S where the network takes it unscaled.
std::vector<float> to_input(const Image& image, const Preprocess& preprocess, int crops);

// The most probable classes of an image from the logits of its crops: the mean of their softmax, computed in double.
// The first of equals comes first.
std::vector<Prediction> top_of(const float* logits, int crops, const std::vector<std::string>& labels, int top);

}  // namespace dlcv
