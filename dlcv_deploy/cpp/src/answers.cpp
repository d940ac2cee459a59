#include <algorithm>
#include <cmath>
#include <numeric>

#include "dlcv/error.hpp"
#include "preprocess.hpp"

namespace dlcv {

std::vector<Prediction> top_of(const float* logits, int crops, const std::vector<std::string>& labels, int top) {
  if (top < 1)
    throw Error(ErrorKind::request, "", "the best " + std::to_string(top) + " classes are none", "give 1 or more");
  const std::size_t classes = labels.size(), rows = static_cast<std::size_t>(crops);
  if (!std::all_of(logits, logits + rows * classes, [](float v) { return std::isfinite(v); }))
    throw Error(ErrorKind::tool, "", "the engine's answer is not finite", "dlcv-deploy validate BUNDLE");
  std::vector<double> mean(classes), weights(classes);
  for (std::size_t row = 0; row < rows; ++row) {
    const float* own = logits + row * classes;
    const double most = *std::max_element(own, own + classes);
    for (std::size_t i = 0; i < classes; ++i) weights[i] = std::exp(own[i] - most);
    const double sum = std::accumulate(weights.begin(), weights.end(), 0.0);
    for (std::size_t i = 0; i < classes; ++i) mean[i] += weights[i] / sum / static_cast<double>(crops);
  }
  std::vector<std::size_t> order(classes);
  std::iota(order.begin(), order.end(), std::size_t{0});
  // one crop by its logits, which rank alike and do not underflow to ties
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    return crops == 1 ? logits[a] > logits[b] : mean[a] > mean[b];
  });
  order.resize(std::min(classes, static_cast<std::size_t>(top)));
  std::vector<Prediction> best;
  for (std::size_t i : order) best.push_back({static_cast<int>(i), labels[i], mean[i]});
  return best;
}

}  // namespace dlcv
