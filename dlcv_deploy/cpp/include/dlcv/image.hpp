// Images as the networks see them: RGB, 8 bits a channel, as stored (an EXIF orientation is ignored).
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace dlcv {

struct Image {
  int width = 0;
  int height = 0;
  std::vector<std::uint8_t> rgb;  // height * width * 3

  // Read a JPEG or PNG file. Throws Error (artifact): it is damaged, cut off, too large, or no such image.
  static Image open(const std::filesystem::path& path);

  // The same for its content; `name` is what errors call it.
  static Image decode(const void* data, std::size_t size_bytes, const std::string& name = "the image");
};

}  // namespace dlcv
