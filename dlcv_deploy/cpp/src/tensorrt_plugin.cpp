// A plugin's library in TensorRT's hands, as backends/_plugin.py.
#if defined(DLCV_WITH_TENSORRT) || defined(DLCV_WITH_TENSORRT_RTX)

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "tensorrt_log.hpp"

namespace dlcv {
namespace {

constexpr const char* kVersion = "1";
constexpr const char* kNamespace = "";

// An open file in memory. `keep` leaves it open for good: the loader knows libraries by name, and would take another
// one of the same number for it.
class MemoryFile {
 public:
  explicit MemoryFile(const std::string& name) : descriptor_(memfd_create(name.c_str(), MFD_CLOEXEC)) {
    if (descriptor_ < 0) throw failed("memfd_create");
  }
  ~MemoryFile() {
    if (descriptor_ >= 0) close(descriptor_);
  }
  MemoryFile(const MemoryFile&) = delete;
  MemoryFile& operator=(const MemoryFile&) = delete;

  void write_all(const Bytes& data) {
    for (std::size_t done = 0; done < data.size();) {
      const ssize_t written = write(descriptor_, data.data() + done, data.size() - done);
      if (written < 0 && errno == EINTR) continue;
      if (written <= 0) throw failed("write");
      done += static_cast<std::size_t>(written);
    }
  }

  std::string path() const { return "/proc/self/fd/" + std::to_string(descriptor_); }
  void keep() { descriptor_ = -1; }

 private:
  static Error failed(const char* call) {
    return Error(ErrorKind::tool, "",
                 std::string("the plugin's library cannot be held in memory: ") + call + ": " + std::strerror(errno),
                 "free memory, or raise the limit of open files");
  }

  int descriptor_;
};

bool there(const std::string& op) {
  return getPluginRegistry()->getCreator(op.c_str(), kVersion, kNamespace) != nullptr;
}

// As `register_plugin`, where no library is there.
void load_plugin(const PluginEntry& plugin, const Bytes& library) {
  for (const auto& op : plugin.ops)
    if (there(op))
      throw Error(ErrorKind::tool, "",
                  std::string(kTensorRtTool) + " has a plugin named " + op + " already, which is not of this library",
                  "do not load other libraries with a plugin of that name into this process");
  MemoryFile file(plugin.file.substr(plugin.file.rfind('/') + 1));
  file.write_all(library);
  const auto handle = getPluginRegistry()->loadLibrary(file.path().c_str());
  if (handle == nullptr) throw tensorrt_refused("the plugin's library");
  for (const auto& op : plugin.ops)
    if (!there(op)) {
      getPluginRegistry()->deregisterLibrary(handle);
      throw Error(ErrorKind::artifact, "", "the plugin's library brought no " + op + " (version " + kVersion + ")",
                  "build it again: dlcv-deploy plugin build");
    }
  file.keep();
}

}  // namespace

void register_plugin(const PluginEntry& plugin, const Bytes& library) {
  static std::mutex one_at_a_time;
  static std::string& registered = *new std::string;
  const std::lock_guard<std::mutex> lock(one_at_a_time);
  if (registered == plugin.sha256) return;
  if (!registered.empty())
    throw Error(ErrorKind::artifact, "",
                "another build of the plugin is loaded in this process already (SHA-256 " + registered.substr(0, 12) +
                    ", and this one is " + plugin.sha256.substr(0, 12) + "), and " + kTensorRtTool +
                    " holds one plugin of a name",
                "load engines with different plugin libraries in processes of their own, or build them with one");
  load_plugin(plugin, library);
  registered = plugin.sha256;
}

}  // namespace dlcv

#endif
