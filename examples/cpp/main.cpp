// classify BUNDLE IMAGE...: the five most probable classes of each image, and how long a call takes.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <dlcv/engine.hpp>
#include <vector>

namespace {

constexpr int kCalls = 20;

double median_ms(const dlcv::Engine& engine, const dlcv::Image& image) {
  engine.classify(image);  // the first call is slower
  std::vector<double> took_ms;
  for (int i = 0; i < kCalls; ++i) {
    const auto start = std::chrono::steady_clock::now();
    engine.classify(image);
    took_ms.push_back(std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count());
  }
  std::nth_element(took_ms.begin(), took_ms.begin() + kCalls / 2, took_ms.end());
  return took_ms[kCalls / 2];
}

void classify(int count, char** words) {
  const dlcv::Engine engine = dlcv::Engine::load(words[0]);
  std::printf("%s, %s, %s\n", engine.model().c_str(), engine.precision().c_str(), engine.backend().c_str());
  for (int i = 1; i < count; ++i) {
    const dlcv::Image image = dlcv::Image::open(words[i]);
    std::printf("\n%s (%d x %d)\n", words[i], image.width, image.height);
    for (const dlcv::Prediction& found : engine.classify(image))
      std::printf("  %6.2f %%  %s\n", 100 * found.probability, found.label.c_str());
    std::printf("  %.3f ms from pixels to classes, median of %d calls\n", median_ms(engine, image), kCalls);
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) {
    std::fprintf(stderr, "usage: classify BUNDLE IMAGE...\n");
    return 2;
  }
  try {
    classify(argc - 1, argv + 1);
  } catch (const dlcv::Error& e) {
    std::fprintf(stderr, "error: %s\n", e.what());
    return static_cast<int>(e.kind());
  } catch (const std::exception& e) {
    std::fprintf(stderr, "bug: %s\n", e.what());
    return 1;
  }
  return 0;
}
