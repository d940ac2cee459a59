// overhead BUNDLE SECONDS: OpenVINO's own call and dlcv::Engine::run in turns; seconds of every call as JSON, block by
// block, for benchmarks/runtime.py.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <dlcv/engine.hpp>
#include <functional>
#include <openvino/openvino.hpp>
#include <string>
#include <utility>
#include <vector>

namespace {

using Clock = std::chrono::steady_clock;
using Blocks = std::vector<std::vector<double>>;
constexpr double kBlockSeconds = 0.1;

double since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

// Calls for a tenth of a second; the first meets the caches of the other and is not counted.
std::vector<double> block(const std::function<void()>& call) {
  call();
  std::vector<double> seconds;
  const auto start = Clock::now();
  do {
    const auto before = Clock::now();
    call();
    seconds.push_back(since(before));
  } while (since(start) < kBlockSeconds);
  return seconds;
}

void print(const char* name, const Blocks& blocks) {
  std::printf("\"%s\": [", name);
  for (std::size_t i = 0; i < blocks.size(); ++i) {
    std::printf(i == 0 ? "[" : ", [");
    for (std::size_t j = 0; j < blocks[i].size(); ++j) std::printf(j == 0 ? "%.9f" : ", %.9f", blocks[i][j]);
    std::printf("]");
  }
  std::printf("]");
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) return std::fprintf(stderr, "usage: overhead BUNDLE SECONDS\n"), 2;
  const std::string bundle = argv[1];
  const double limit = std::atof(argv[2]);

  dlcv::LoadOptions options;
  options.backend = "openvino";
  const auto engine = dlcv::Engine::load(bundle, options);
  std::vector<float> input(engine.input().size());
  for (std::size_t i = 0; i < input.size(); ++i) input[i] = static_cast<float>(i % 255) / 127.0F - 1.0F;
  std::vector<float> logits(engine.outputs()[0].size());
  if (engine.outputs().size() != 1) return std::fprintf(stderr, "name a bundle with the logits alone\n"), 2;

  static auto* core = new ov::Core;  // stays until the process ends
  auto model = core->read_model(bundle + "/openvino/model.xml");
  auto compiled = core->compile_model(model, "CPU", ov::hint::performance_mode(ov::hint::PerformanceMode::LATENCY),
                                      ov::hint::inference_precision(ov::element::f32));
  auto request = compiled.create_infer_request();
  ov::Shape shape = {1};
  for (auto size : engine.input().shape) shape.push_back(static_cast<std::size_t>(size));
  request.set_input_tensor(ov::Tensor(ov::element::f32, shape, input.data()));

  float* outputs[] = {logits.data()};
  Blocks bare, runtime;
  std::vector<std::pair<std::function<void()>, Blocks*>> calls = {
      {[&] { request.infer(); }, &bare},
      {[&] { engine.run(input.data(), 1, outputs); }, &runtime},
  };
  for (const auto warm = Clock::now(); since(warm) < limit / 5;) {
    for (auto& [call, blocks] : calls) block(call);
  }
  for (const auto start = Clock::now(); since(start) < limit; std::reverse(calls.begin(), calls.end())) {
    for (auto& [call, blocks] : calls) blocks->push_back(block(call));
  }
  std::printf("{");
  print("bare", bare);
  std::printf(", ");
  print("runtime", runtime);
  std::printf("}\n");
  return 0;
}
