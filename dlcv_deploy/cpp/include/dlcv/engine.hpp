// An engine of a bundle, ready to answer.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "dlcv/error.hpp"
#include "dlcv/image.hpp"

namespace dlcv {

struct Prediction {
  int index = 0;
  std::string label;
  double probability = 0;
};

// An input or output; `shape` leaves the batch axis, which comes first, out. All are float32.
struct TensorInfo {
  std::string name;
  std::vector<std::int64_t> shape;

  std::size_t size() const {  // values in one row
    std::size_t n = 1;
    for (auto d : shape) n *= static_cast<std::size_t>(d);
    return n;
  }
};

struct LoadOptions {
  std::string backend;      // empty: the first that the bundle holds and this machine runs
  int device = 0;           // of a GPU
  int threads = 0;          // of a CPU; 0: the runtime's own choice
  int streams = 1;          // how many threads will call at once, on a CPU
  bool cuda_graphs = true;  // on a GPU: record the work once, then replay it
};

// Calls may come from several threads. Moving or destroying it while a call runs is the caller's error.
class Engine {
 public:
  // Check the bundle (preflight.hpp), then load one of its engines. Throws Error.
  static Engine load(const std::filesystem::path& bundle, const LoadOptions& options = {});

  Engine(Engine&&) noexcept;
  Engine& operator=(Engine&&) noexcept;
  ~Engine();

  const std::string& model() const;
  const std::string& precision() const;
  const std::string& backend() const;
  const std::vector<std::string>& labels() const;
  const TensorInfo& input() const;
  const std::vector<TensorInfo>& outputs() const;  // the logits first
  std::int64_t max_batch() const;

  // The most probable classes, the best first. `crops` is 1 or 10, whose probabilities are averaged. Throws Error.
  std::vector<Prediction> classify(const Image& image, int top = 5, int crops = 1) const;
  std::vector<std::vector<Prediction>> classify(const std::vector<Image>& images, int top = 5, int crops = 1) const;

  // Network inputs of an image: crops x 3 x S x S.
  std::vector<float> preprocess(const Image& image, int crops = 1) const;

  // Run `rows` inputs, any number of them: values of each output, rows x its size. Throws Error.
  std::vector<std::vector<float>> run(const float* input, std::size_t rows) const;

  // The same into memory of the caller, one pointer for each output.
  void run(const float* input, std::size_t rows, float* const* outputs) const;

 private:
  struct State;
  explicit Engine(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace dlcv
