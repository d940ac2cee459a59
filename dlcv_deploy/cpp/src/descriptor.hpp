// An open file.
#pragma once

#include <cstddef>
#include <string>

#include "bundle.hpp"

namespace dlcv {

// Opened for reading, and never waiting, should a pipe have taken a file's place.
class Descriptor {
 public:
  explicit Descriptor(const std::string& path);
  ~Descriptor();
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;

  // -1 where it could not be opened.
  int number() const { return number_; }

  // Read up to so many bytes: how many came, -1 where it cannot be read.
  std::ptrdiff_t read(void* into, std::size_t most) const;

  // Append up to so many bytes; false where it cannot be read.
  bool append(Bytes& into, std::size_t most) const;

 private:
  int number_;
};

}  // namespace dlcv
