// engine_threads BUNDLE: threads that come and go call one engine, while others load and drop engines of their own;
// every answer must be that of a call with nobody else about. Prints how many calls were made.
#include <atomic>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <thread>

#include "dlcv/engine.hpp"

namespace {

constexpr int kWaves = 3, kThreads = 4, kCalls = 5;
constexpr double kClose = 1e-4;  // of logits: kernels for other numbers of rows add in another order

std::vector<float> noise(std::size_t count) {
  std::mt19937 random(7);
  std::vector<float> values(count);
  for (auto& value : values) value = static_cast<float>(random() % 2001) / 1000.0F - 1.0F;
  return values;
}

dlcv::Image picture(int size) {
  dlcv::Image image{size, size, {}};
  std::mt19937 random(8);
  image.rgb.resize(static_cast<std::size_t>(3) * size * size);
  for (auto& value : image.rgb) value = static_cast<std::uint8_t>(random() % 256);
  return image;
}

bool close(const std::vector<float>& some, const std::vector<float>& all) {
  for (std::size_t i = 0; i < some.size(); ++i)
    if (!(std::abs(some[i] - all[i]) <= kClose * (1 + std::abs(all[i])))) return false;
  return !some.empty();
}

}  // namespace

int main(int, char** argv) {
  dlcv::LoadOptions options;
  options.streams = 2;
  const dlcv::Engine engine = dlcv::Engine::load(argv[1], options);
  const std::size_t most = static_cast<std::size_t>(engine.max_batch()) + 3;  // cut in two
  const std::vector<float> input = noise(most * engine.input().size());
  const std::vector<float> logits = engine.run(input.data(), most).front();
  const dlcv::Image image = picture(static_cast<int>(engine.input().shape.back()));
  const auto best = engine.classify(image, 1).front();
  std::atomic<int> calls{0}, wrong{0};
  const auto work = [&](int thread) {
    for (int i = 0; i < kCalls; ++i, ++calls) {
      if (thread == 0 && i == 0 && dlcv::Engine::load(argv[1]).labels() != engine.labels()) ++wrong;
      const std::size_t rows = i == 0 ? most : static_cast<std::size_t>(1 + (thread * kCalls + i) % 7);
      if (!close(engine.run(input.data(), rows).front(), logits)) ++wrong;
      const auto found = engine.classify(image, 1).front();
      if (found.index != best.index || std::abs(found.probability - best.probability) > 1e-6) ++wrong;
    }
  };
  for (int wave = 0; wave < kWaves; ++wave) {
    std::vector<std::thread> threads;
    for (int i = 0; i < kThreads; ++i) threads.emplace_back(work, i);
    for (auto& thread : threads) thread.join();
  }
  std::printf("%d calls, %d wrong\n", calls.load(), wrong.load());
  return wrong == 0 ? 0 : 1;
}
