// The checks of preflight.py, in the same order and words.
#include "dlcv/preflight.hpp"

#include <algorithm>
#include <iterator>
#include <tuple>

#include "bundle.hpp"
#include "files.hpp"
#include "manifest.hpp"
#include "messages.hpp"

namespace dlcv {
namespace {

constexpr const char* kOrder[] = {"tensorrt", "tensorrt_rtx", "openvino", "onnxruntime"};
constexpr const char* kLabels = "labels.txt";

struct Tool {
  const char *backend, *name, *package;
};
constexpr Tool kTools[] = {{"tensorrt", "TensorRT", "dlcv-deploy[gpu]"},
                           {"tensorrt_rtx", "TensorRT-RTX", "dlcv-deploy[rtx]"},
                           {"openvino", "OpenVINO", "dlcv-deploy[openvino]"},
                           {"onnxruntime", "ONNX Runtime", "dlcv-deploy[onnxruntime]"}};

// The oldest CUDA of a driver, by the major version of what runs on it; sources in preflight.py.
struct Driver {
  const char* backend;
  int major, cuda;
};
constexpr Driver kDrivers[] = {{"tensorrt", 11, 12020}, {"tensorrt_rtx", 1, 12000}};

constexpr int kTegra[] = {72, 87, 88, 101, 110};  // run machine code of their own architecture only

using Found = std::vector<Message>;

bool holds(const std::vector<int>& numbers, int number) {
  return std::find(numbers.begin(), numbers.end(), number) != numbers.end();
}

int greatest(const std::vector<int>& numbers) { return *std::max_element(numbers.begin(), numbers.end()); }

// As plugin/library.py.
bool serves(const std::vector<int>& held, int sm) {
  const auto tegra = [](int one) { return std::find(std::begin(kTegra), std::end(kTegra), one) != std::end(kTegra); };
  if (holds(held, sm) || sm > greatest(held)) return true;
  return !tegra(sm) &&
         std::any_of(held.begin(), held.end(), [&](int one) { return one / 10 == sm / 10 && one < sm && !tegra(one); });
}

std::string machine_of(const Bytes& elf) {
  const int number = (elf.size() > 18 ? elf[18] : 0) + (elf.size() > 19 ? elf[19] * 256 : 0);
  if (number == 62) return "x86_64";
  return number == 183 ? "aarch64" : "processor " + std::to_string(number);
}

std::string dotted(int sm) { return std::to_string(sm / 10) + "." + std::to_string(sm % 10); }

// 13.0 of 13000.
std::string cuda(int number) { return std::to_string(number / 1000) + "." + std::to_string(number % 1000 / 10); }

std::string mib_up(std::uint64_t bytes) { return std::to_string((bytes + (1 << 20) - 1) >> 20); }
std::string mib_down(std::uint64_t bytes) { return std::to_string(bytes >> 20); }

// 2026.4.1-1 is (2026, 4): parts between dots as long as they are one to nine digits each.
std::vector<int> numbers(const std::string& version) {
  std::vector<int> found;
  for (std::size_t at = 0; at <= version.size();) {
    const std::size_t end = std::min(version.find('.', at), version.size());
    const std::string part = version.substr(at, end - at);
    if (part.empty() || part.size() > 9 || part.find_first_not_of("0123456789") != std::string::npos) break;
    found.push_back(std::stoi(part));
    at = end + 1;
  }
  return found;
}

std::string of(const std::map<std::string, std::string>& versions, const std::string& name) {
  const auto found = versions.find(name);
  return found == versions.end() ? "" : found->second;
}

bool is_tensorrt(const std::string& name) { return name == "tensorrt" || name == "tensorrt_rtx"; }

const Tool& tool_of(const std::string& name) {
  return *std::find_if(std::begin(kTools), std::end(kTools), [&](const Tool& tool) { return name == tool.backend; });
}

// An engine, and all that keeps it from running on a machine but for its files.
class EngineCheck {
 public:
  EngineCheck(const std::string& name, const Manifest& manifest, Files& files, const Host& host)
      : name_(name), entry_(manifest.engines.at(name)), manifest_(manifest), files_(files), host_(host) {}

  Found run() {
    runtime();
    const std::uint64_t need = bytes();
    const bool on_gpu = is_tensorrt(name_) || entry_.target == "CUDA";
    if (!on_gpu) {
      if (host_.memory_bytes != 0 && need > host_.memory_bytes)
        tell("memory", {{"need", mib_up(need)}, {"free", mib_down(host_.memory_bytes)}});
    } else if (!host_.gpu) {
      tell("gpu_none", {{"reason", host_.no_gpu}});
    } else {
      gpu(*host_.gpu, need);
    }
    if (entry_.plugin) plugin(*entry_.plugin, on_gpu && host_.gpu ? &*host_.gpu : nullptr);
    return std::move(found_);
  }

 private:
  void tell(const char* code, std::map<std::string, std::string> values) {
    values["backend"] = name_;
    found_.push_back(message(code, values));
  }

  // What its files hold, each once.
  std::uint64_t bytes() const {
    std::set<std::string> paths;
    for (const auto& file : entry_.files) paths.insert(file.second);
    std::uint64_t sum = 0;
    for (const auto& path : paths) {
      const auto listed = manifest_.files.find(path);
      if (listed != manifest_.files.end()) sum += listed->second.bytes;
    }
    return sum;
  }

  void runtime() {
    const Tool& tool = tool_of(name_);
    const std::string installed = of(host_.runtimes, name_);
    if (installed.empty()) return tell("runtime_missing", {{"tool", tool.name}, {"package", tool.package}});
    auto here = numbers(installed), there = numbers(entry_.version);
    const bool rtx = is_tensorrt(name_), known = !here.empty() && !there.empty();
    const std::size_t both = rtx ? std::min(here.size(), there.size()) : 2;
    here.resize(both);
    there.resize(both);
    const std::map<std::string, std::string> words{
        {"tool", tool.name}, {"compiled", entry_.version}, {"installed", installed}};
    if (known && rtx && here != there) tell("runtime_other", words);
    if (known && !rtx && here < there) tell("runtime_older", words);
  }

  void gpu(const HostGpu& gpu, std::uint64_t need) {
    const std::string installed = of(host_.runtimes, name_);
    const auto version = numbers(installed);
    for (const Driver& driver : kDrivers)
      if (name_ == driver.backend && !version.empty() && version[0] == driver.major && gpu.cuda < driver.cuda)
        tell("driver_old", {{"tool", tool_of(name_).name},
                            {"version", installed},
                            {"served", cuda(gpu.cuda)},
                            {"needed", cuda(driver.cuda)}});
    const auto& sm = entry_.sm;
    if (!sm.empty() && !holds(sm, gpu.sm) && !(entry_.later && gpu.sm > greatest(sm)))
      tell("gpu_other",
           {{"target", entry_.target}, {"gpu", gpu.name}, {"sm", dotted(gpu.sm)}, {"number", std::to_string(gpu.sm)}});
    if (gpu.memory_bytes != 0 && need > gpu.memory_bytes)
      tell("gpu_memory", {{"need", mib_up(need)}, {"free", mib_down(gpu.memory_bytes)}});
  }

  void plugin(const PluginEntry& plugin, const HostGpu* gpu) {
    const auto file = entry_.files.find(plugin.file);
    if (file == entry_.files.end()) return tell("plugin_missing", {{"name", plugin.file}});
    const auto listed = manifest_.files.find(file->second);
    if (listed != manifest_.files.end() && listed->second.sha256 != plugin.sha256)
      tell("plugin_other", {{"name", plugin.file}});
    const Bytes* data = files_.read(file->second, true);
    if (data != nullptr && machine_of(*data) != host_.machine)
      tell("plugin_machine", {{"name", plugin.file}, {"built", machine_of(*data)}, {"machine", host_.machine}});
    if (gpu == nullptr || serves(plugin.architectures, gpu->sm)) return;
    std::string held;
    for (const int one : plugin.architectures) held += (held.empty() ? "" : ", ") + dotted(one);
    tell("plugin_sm", {{"name", plugin.file},
                       {"held", held},
                       {"gpu", gpu->name},
                       {"sm", dotted(gpu->sm)},
                       {"number", std::to_string(gpu->sm)}});
  }

  const std::string& name_;
  const EngineEntry& entry_;
  const Manifest& manifest_;
  Files& files_;
  const Host& host_;
  Found found_;
};

void add(std::vector<Finding>& findings, const Found& messages, const std::string& backend) {
  for (const Message& each : messages) findings.push_back({each.code, each.what, each.fix, backend});
}

Checked check(const std::filesystem::path& path, const Host& host, const std::string& backend, bool keep) {
  Checked checked;
  const std::string bundle = shown(path);
  const Manifest& manifest = checked.manifest;
  if (const auto refused = read_manifest(bundle, checked.manifest)) {
    add(checked.findings, {*refused}, "");
    return checked;
  }
  Files files(bundle, manifest);
  std::string held, fit;
  std::vector<Finding> of_engines;
  bool asked_is_held = backend.empty();
  for (const std::string name : kOrder) {
    if (manifest.engines.count(name) == 0) continue;
    held += (held.empty() ? "" : ", ") + name;
    if (!backend.empty() && backend != name) continue;
    asked_is_held = true;
    const Found found = EngineCheck(name, manifest, files, host).run();
    add(of_engines, found, name);
    if (found.empty() && fit.empty()) fit = name;
  }
  if (!asked_is_held)
    add(of_engines, {message("engine_none", {{"backend", backend}, {"held", held.empty() ? "none" : held}})}, backend);
  std::set<std::string> wanted;
  const bool keeping = keep && !fit.empty();
  if (keeping) {
    wanted.insert(kLabels);
    for (const auto& file : manifest.engines.at(fit).files) wanted.insert(file.second);
  }
  add(checked.findings, files.check(wanted), "");
  const bool whole = checked.findings.empty();
  checked.findings.insert(checked.findings.end(), of_engines.begin(), of_engines.end());
  if (!whole || fit.empty()) return checked;
  checked.backend = fit;
  if (!keeping) return checked;
  for (const auto& [vendors, inside] : manifest.engines.at(fit).files)
    checked.files[vendors] = *files.read(inside, true);
  if (const Bytes* labels = files.read(kLabels, true)) checked.files.try_emplace(kLabels, *labels);
  return checked;
}

}  // namespace

Checked check_bundle(const std::filesystem::path& bundle, const Host& host, const std::string& backend) {
  return check(bundle, host, backend, true);
}

std::vector<Finding> preflight(const std::filesystem::path& bundle, const Host& host, const std::string& backend) {
  return check(bundle, host, backend, false).findings;
}

}  // namespace dlcv
