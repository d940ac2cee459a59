#include "native_error.hpp"

#include <algorithm>

#include "messages.hpp"

namespace dlcv {
namespace {

constexpr std::size_t kWords = 300;
constexpr const char* kAgain = "build it again";

// As blame.cause: without the lines of TensorRT that follow each error where there is no driver, whatever it was.
Message behind(const std::string& backend, const std::string& words) {
  std::string telling;
  for (std::size_t at = 0; at < words.size();) {
    const std::size_t end = std::min(words.find('\n', at), words.size());
    const std::string line = words.substr(at, end - at);
    if (line.find("catchCudaError") == std::string::npos ||
        line.find("CUDA driver version is insufficient") == std::string::npos)
      telling += (telling.empty() ? "" : "\n") + line;
    at = end + 1;
  }
  return cause_of(backend, telling.empty() ? words : telling);
}

}  // namespace

std::string one_line(const std::string& words) {
  std::string line;
  bool space = false;
  for (const char c : words) {
    if (c == ' ' || (c >= '\t' && c <= '\r')) {
      space = !line.empty();
      continue;
    }
    if (space) line += ' ';
    space = false;
    line += c;
  }
  if (line.size() <= kWords) return line;
  std::size_t end = kWords;
  while (end > 0 && (static_cast<unsigned char>(line[end]) & 0xC0) == 0x80) --end;  // not inside a UTF-8 character
  return line.substr(0, end);
}

const Bytes& file_of(const std::map<std::string, Bytes>& files, const std::string& backend, const std::string& name,
                     bool may_be_empty) {
  const auto found = files.find(name);
  if (found == files.end() || (found->second.empty() && !may_be_empty)) {
    const std::string state = found == files.end() ? "is missing" : "is empty";
    throw Error(ErrorKind::artifact, "", "the " + backend + " engine's file " + name + " " + state, kAgain);
  }
  return found->second;
}

Error damaged(const std::string& backend, const std::string& why, const std::string& words) {
  const std::string what = "the " + backend + " engine cannot be read: ";
  const Message cause = behind(backend, words);
  if (cause.code.empty()) return Error(ErrorKind::artifact, "", what + one_line(why), kAgain);
  return Error(ErrorKind::artifact, cause.code, what + cause.what + " (" + one_line(why) + ")", cause.fix);
}

Error refused(const std::string& tool, const std::string& backend, const std::string& what, const std::string& words) {
  const std::string head = tool + " refused " + what + ": ";
  const Message cause = behind(backend, words);
  if (cause.code.empty()) return Error(ErrorKind::tool, "", head + one_line(words), "");
  return Error(ErrorKind::tool, cause.code, head + cause.what + " (" + one_line(words) + ")", cause.fix);
}

}  // namespace dlcv
