// What TensorRT and OpenVINO have in common: a version, and a loader that gives sessions.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "bundle.hpp"
#include "dlcv/engine.hpp"

namespace dlcv {

// A loaded engine. `run` may be called from several threads; `rows` is within the engine's batch sizes; `outputs` has a
// pointer for each of the manifest's outputs, in their order. Throws Error (tool).
class Session {
 public:
  virtual ~Session() = default;
  virtual void run(const float* input, std::int64_t rows, float* const* outputs) = 0;
};

struct Backend {
  const char* name;          // as manifests have it
  std::string (*version)();  // of the runtime that is linked
  std::unique_ptr<Session> (*load)(const EngineEntry& engine, const Manifest& manifest,
                                   const std::map<std::string, Bytes>& files, const LoadOptions& options);
};

// Those that this library was built with.
const std::vector<Backend>& backends();

}  // namespace dlcv
