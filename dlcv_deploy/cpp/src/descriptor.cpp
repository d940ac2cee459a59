#include "descriptor.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

namespace dlcv {

Descriptor::Descriptor(const std::string& path) : number_(::open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC)) {}

Descriptor::~Descriptor() {
  if (number_ >= 0) ::close(number_);
}

std::ptrdiff_t Descriptor::read(void* into, std::size_t most) const {
  ssize_t came = -1;
  do {
    came = ::read(number_, into, most);
  } while (came < 0 && errno == EINTR);
  return came;
}

bool Descriptor::append(Bytes& into, std::size_t most) const {
  constexpr std::size_t kPiece = 1 << 20;
  while (most > 0) {
    const std::size_t held = into.size(), piece = std::min(most, kPiece);
    into.resize(held + piece);
    const std::ptrdiff_t came = read(into.data() + held, piece);
    into.resize(held + static_cast<std::size_t>(std::max<std::ptrdiff_t>(came, 0)));
    if (came <= 0) return came == 0;
    most -= static_cast<std::size_t>(came);
  }
  return true;
}

}  // namespace dlcv
