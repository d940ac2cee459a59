// What this machine has, as host.py finds it. No context is made on the GPU, and no driver is linked.
#include <dlfcn.h>
#include <sys/utsname.h>

#include <algorithm>
#include <fstream>
#include <iterator>
#include <sstream>
#include <vector>

#include "backend.hpp"
#include "dlcv/preflight.hpp"
#include "messages.hpp"

namespace dlcv {
namespace {

constexpr const char* kDriver = "libcuda.so.1";
constexpr const char* kNvml = "libnvidia-ml.so.1";
constexpr int kSuccess = 0, kNoDevice = 100;                 // CUresult
constexpr int kCapabilityMajor = 75, kCapabilityMinor = 76;  // CUdevice_attribute

// --- memory

std::string read(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

std::vector<std::string> split(const std::string& text, char at) {
  std::vector<std::string> parts;
  std::istringstream stream(text);
  for (std::string part; std::getline(stream, part, at);) parts.push_back(part);
  return parts;
}

// A number and nothing else but white space around it; -1 where there is none.
std::int64_t number(const std::string& text) {
  const std::size_t begin = std::min(text.find_first_not_of(" \t\n"), text.size());
  const std::size_t end = std::min(text.find_first_not_of("0123456789", begin), text.size());
  const bool ends = text.find_first_not_of(" \t\n", end) == std::string::npos;
  return ends && end > begin && end - begin <= 18 ? std::stoll(text.substr(begin, end - begin)) : -1;
}

// What follows a key at the beginning of a line; -1 where no line has it.
std::int64_t of_key(const std::string& text, const std::string& key, const std::string& unit = "") {
  for (const std::string& line : split(text, '\n')) {
    if (line.rfind(key, 0) != 0 || line.size() < key.size() + unit.size()) continue;
    return number(line.substr(key.size(), line.size() - key.size() - unit.size()));
  }
  return -1;
}

// What a control group leaves, its files beginning with `place`; -1 where it sets no limit.
std::int64_t left_in(const std::string& place, bool second) {
  const std::int64_t most = number(read(place + (second ? "max" : "limit_in_bytes")));
  const std::int64_t now = number(read(place + (second ? "current" : "usage_in_bytes")));
  if (most < 0 || now < 0) return -1;
  const std::int64_t old = std::max<std::int64_t>(0, of_key(read(place + "stat"), "inactive_file "));
  return std::max<std::int64_t>(0, most - now + old);
}

std::uint64_t available_memory() {
  std::vector<std::int64_t> free;
  const std::int64_t kib = of_key(read("/proc/meminfo"), "MemAvailable:", "kB");
  if (kib >= 0) free.push_back(1024 * kib);
  for (const std::string& line : split(read("/proc/self/cgroup"), '\n')) {
    const std::size_t first = line.find(':'), second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const auto controllers = split(line.substr(first + 1, second - first - 1), ',');
    const bool newer = controllers.empty();
    if (!newer && std::find(controllers.begin(), controllers.end(), "memory") == controllers.end()) continue;
    auto parts = split(line.substr(second + 1), '/');
    parts.erase(std::remove_if(parts.begin(), parts.end(), [](const auto& p) { return p.empty() || p == ".."; }),
                parts.end());
    std::string place = newer ? "/sys/fs/cgroup" : "/sys/fs/cgroup/memory";
    for (std::size_t i = 0; i <= parts.size(); ++i) {
      const std::int64_t left = left_in(place + "/memory.", newer);
      if (left >= 0) free.push_back(left);
      if (i < parts.size()) place += "/" + parts[i];
    }
  }
  return free.empty() ? 0 : static_cast<std::uint64_t>(*std::min_element(free.begin(), free.end()));
}

// --- GPU

// Libraries of the driver stay loaded: they do not bear to go.
template <typename Function>
Function* symbol(void* library, const char* name) {
  return reinterpret_cast<Function*>(::dlsym(library, name));
}

// Memory that is free on the GPU in a slot; 0 where NVML does not say.
std::uint64_t free_memory(const char* bus) {
  struct Memory {
    unsigned long long total, free, used;
  };
  void* nvml = ::dlopen(kNvml, RTLD_NOW | RTLD_LOCAL);
  if (nvml == nullptr) return 0;
  const auto init = symbol<int()>(nvml, "nvmlInit_v2"), shutdown = symbol<int()>(nvml, "nvmlShutdown");
  const auto by_bus = symbol<int(const char*, void**)>(nvml, "nvmlDeviceGetHandleByPciBusId_v2");
  const auto info = symbol<int(void*, Memory*)>(nvml, "nvmlDeviceGetMemoryInfo");
  if (init == nullptr || shutdown == nullptr || by_bus == nullptr || info == nullptr || init() != 0) return 0;
  void* handle = nullptr;
  Memory memory{};
  const bool told = by_bus(bus, &handle) == 0 && info(handle, &memory) == 0;
  shutdown();
  return told ? memory.free : 0;
}

// The GPU, or why there is none.
void look_for_gpu(int device, Host& host) {
  void* driver = ::dlopen(kDriver, RTLD_NOW | RTLD_LOCAL);
  const auto missing = message("driver_missing", {{"library", kDriver}});
  if (driver == nullptr) return void(host.no_gpu = missing.what);
  const auto init = symbol<int(unsigned)>(driver, "cuInit");
  const auto get = symbol<int(int*, int)>(driver, "cuDeviceGet");
  const auto name_of = symbol<int(char*, int, int)>(driver, "cuDeviceGetName");
  const auto bus_of = symbol<int(char*, int, int)>(driver, "cuDeviceGetPCIBusId");
  const auto version = symbol<int(int*)>(driver, "cuDriverGetVersion");
  const auto attribute = symbol<int(int*, int, int)>(driver, "cuDeviceGetAttribute");
  if (!init || !get || !name_of || !bus_of || !version || !attribute) return void(host.no_gpu = missing.what);
  const int started = init(0);
  if (started == kNoDevice) return void(host.no_gpu = message("driver_no_gpu").what);
  if (started != kSuccess) return void(host.no_gpu = message("driver_fails", {{"code", std::to_string(started)}}).what);
  int handle = 0, cuda = 0, major = 0, minor = 0;
  char name[256] = "", bus[32] = "";
  for (const int code :
       {get(&handle, device), name_of(name, sizeof name, handle), bus_of(bus, sizeof bus, handle), version(&cuda),
        attribute(&major, kCapabilityMajor, handle), attribute(&minor, kCapabilityMinor, handle)})
    if (code != kSuccess)
      return void(
          host.no_gpu =
              message("driver_no_device", {{"device", std::to_string(device)}, {"code", std::to_string(code)}}).what);
  host.gpu = HostGpu{name, 10 * major + minor, free_memory(bus), cuda};
}

}  // namespace

Host Host::here(int device) {
  Host host;
  struct utsname system{};
  if (::uname(&system) == 0) host.machine = system.machine;
  host.memory_bytes = available_memory();
  for (const Backend& backend : backends()) host.runtimes[backend.name] = backend.version();
  look_for_gpu(device, host);
  return host;
}

}  // namespace dlcv
