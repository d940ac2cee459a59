// A bundle as its manifest describes it; the fields of bundle.py that running takes.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "dlcv/engine.hpp"
#include "dlcv/preflight.hpp"

namespace dlcv {

struct FileEntry {
  std::uint64_t bytes = 0;
  std::string sha256;
};

struct PluginEntry {
  std::string file, sha256, tensorrt;
  std::vector<int> architectures;
  std::vector<std::string> ops;
};

struct EngineEntry {
  std::string backend, target, version;
  std::vector<int> sm;
  bool later = false;
  std::array<std::int64_t, 3> batch{};       // lo, opt, hi
  std::map<std::string, std::string> files;  // the vendor's name -> path in the bundle
  std::optional<PluginEntry> plugin;
};

struct Preprocess {
  int size = 0, canvas = 0;
  bool pad = false;  // else resize
  std::array<double, 3> mean{}, std{};
};

struct Manifest {
  std::string model, precision;
  Preprocess preprocess;
  std::vector<TensorInfo> inputs, outputs;
  int classes = 0;
  std::map<std::string, EngineEntry> engines;
  std::map<std::string, FileEntry> files;
};

using Bytes = std::vector<std::uint8_t>;

// What a check of a bundle leaves to load: the manifest, and the content of the files that loading takes, read once and
// digested, so that what was checked is what is loaded.
struct Checked {
  std::vector<Finding> findings;
  Manifest manifest;
  std::string backend;                 // the engine that runs here; empty where none does
  std::map<std::string, Bytes> files;  // of that engine by the vendor's name, and labels.txt
};

// As `preflight`, keeping what was read of the engine that will be loaded: the one asked for, else the first that runs.
Checked check_bundle(const std::filesystem::path& bundle, const Host& host, const std::string& backend);

// `preflight` reads a host from JSON in tests and tools.
Host host_from_json(const std::string& text);
std::string to_json(const std::vector<Finding>& findings);

}  // namespace dlcv
