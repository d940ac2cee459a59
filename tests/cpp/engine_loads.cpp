// engine_loads BUNDLE TIMES: load an engine, ask it once, drop it; prints the resident KiB after a tenth of the times
// and at the end.
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <string>

#include "dlcv/engine.hpp"

namespace {

long resident_kib() {
  std::ifstream status("/proc/self/status");
  for (std::string word; status >> word;)
    if (word == "VmRSS:") {
      long kib = 0;
      status >> kib;
      return kib;
    }
  return 0;
}

}  // namespace

int main(int, char** argv) {
  const int times = std::atoi(argv[2]);
  long early = 0;
  for (int i = 0; i < times; ++i) {
    const dlcv::Engine engine = dlcv::Engine::load(argv[1]);
    const std::vector<float> input(engine.input().size());
    engine.run(input.data(), 1);
    if (i == times / 10) early = resident_kib();
  }
  std::printf("%ld %ld\n", early, resident_kib());
  return 0;
}
