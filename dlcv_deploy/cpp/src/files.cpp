#include "files.hpp"

#include <sys/stat.h>

#include <cstdlib>
#include <memory>

#include "descriptor.hpp"
#include "manifest.hpp"
#include "sha256.hpp"

namespace dlcv {
namespace {

// Whether a name stays in its folder, as far as it tells.
bool is_inside(const std::string& name) {
  if (name.find_first_of("\\:") != std::string::npos) return false;
  for (std::size_t at = 0; at <= name.size();) {
    const std::size_t end = std::min(name.find('/', at), name.size());
    const std::string part = name.substr(at, end - at);
    if (part.empty() || part == "." || part == "..") return false;
    at = end + 1;
  }
  return true;
}

// Where a path really leads, links followed; empty where that is not to be found.
std::string real(const std::string& path) {
  const std::unique_ptr<char, void (*)(void*)> found(::realpath(path.c_str(), nullptr), std::free);
  return found ? found.get() : "";
}

}  // namespace

Files::Files(const std::string& bundle, const Manifest& manifest)
    : bundle_(bundle), inside_(real(bundle)), manifest_(manifest) {
  if (inside_ != "/") inside_ += "/";
}

const Bytes* Files::read(const std::string& name, bool keep) {
  if (found_.count(name) == 0) {
    auto found = look(name, keep);
    found_.emplace(name, std::move(found));
  }
  const auto kept = kept_.find(name);
  return kept == kept_.end() ? nullptr : &kept->second;
}

std::vector<Message> Files::check(const std::set<std::string>& keep) {
  for (const auto& listed : manifest_.files) read(listed.first, keep.count(listed.first) != 0);
  for (const auto& engine : manifest_.engines)
    for (const auto& file : engine.second.files) read(file.second, keep.count(file.second) != 0);
  std::vector<Message> wrong;
  for (const auto& each : found_)
    if (each.second) wrong.push_back(*each.second);
  return wrong;
}

std::optional<Message> Files::look(const std::string& name, bool keep) {
  if (!is_inside(name)) return message("file_unsafe", {{"name", name}});
  const std::string path = bundle_ + "/" + name;
  if (manifest_.files.count(name) == 0 || !is_regular(path)) return message("file_missing", {{"name", name}});
  if (real(path).rfind(inside_, 0) != 0) return message("file_unsafe", {{"name", name}});
  return content(name, path, keep);
}

// What the file is once it is open counts, whatever its name meant before.
std::optional<Message> Files::content(const std::string& name, const std::string& path, bool keep) {
  const FileEntry& wanted = manifest_.files.at(name);
  const Descriptor file(path);
  struct stat status{};
  if (::fstat(file.number(), &status) != 0) return message("file_unreadable", {{"name", name}});
  if (!S_ISREG(status.st_mode)) return message("file_missing", {{"name", name}});
  if (static_cast<std::uint64_t>(status.st_size) != wanted.bytes)
    return message(
        "file_size",
        {{"name", name}, {"found", std::to_string(status.st_size)}, {"bytes", std::to_string(wanted.bytes)}});
  constexpr std::size_t kPiece = 1 << 20;
  Bytes data;
  if (keep) data.reserve(wanted.bytes + 1);
  Sha256 digest;
  std::size_t came = 0;
  do {  // a byte more than there should be, so that a file that grows meanwhile is altered
    if (!keep) data.clear();
    const std::size_t held = data.size();
    if (!file.append(data, std::min<std::uint64_t>(kPiece, wanted.bytes + 1 - came)))
      return message("file_unreadable", {{"name", name}});
    digest.add(data.data() + held, data.size() - held);
    came += data.size() - held;
    if (data.size() == held) break;
  } while (came <= wanted.bytes);
  if (digest.hex() != wanted.sha256) return message("file_altered", {{"name", name}});
  if (keep) kept_[name] = std::move(data);
  return std::nullopt;
}

}  // namespace dlcv
