// Pre-flight: what stands between a bundle and this machine, before a native loader sees a byte of it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace dlcv {

// The GPU that engines would run on: `sm` is 89 for SM 8.9, `cuda` what its driver serves, 13000 for 13.0.
struct HostGpu {
  std::string name;
  int sm = 0;
  std::uint64_t memory_bytes = 0;
  int cuda = 0;
};

// One machine, as a pre-flight check sees it. `runtimes` are the versions of the backends that this library was built
// with; `memory_bytes` is 0 where it is not known; without a GPU, `no_gpu` says why.
struct Host {
  std::string machine;
  std::uint64_t memory_bytes = 0;
  std::map<std::string, std::string> runtimes;
  std::optional<HostGpu> gpu;
  std::string no_gpu;

  static Host here(int device = 0);
};

// Something that keeps a bundle, or with `backend` one of its engines, from running here.
struct Finding {
  std::string code, what, fix, backend;
};

// All that keeps a bundle from running on a machine, in the order and words of the Python package; empty where every
// engine runs. `backend`: look at one engine alone. Throws nothing but std::bad_alloc.
std::vector<Finding> preflight(const std::filesystem::path& bundle, const Host& host, const std::string& backend = "");

}  // namespace dlcv
