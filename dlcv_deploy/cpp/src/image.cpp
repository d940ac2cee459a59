#include "dlcv/image.hpp"

#include <cerrno>
#include <cstdio>
#include <memory>
#include <system_error>

#include "decode.hpp"
#include "dlcv/error.hpp"

namespace dlcv {
namespace {

constexpr std::uint64_t kPixels = 2 * 89'478'485;  // Pillow's limit, of its DecompressionBombError
constexpr std::uintmax_t kBytes = std::uintmax_t{1} << 31;

Error unreadable(const std::string& name, const std::string& why) {
  return Error(ErrorKind::artifact, "", "image " + name + " cannot be read: " + why,
               "give another image, or leave it out");
}

std::string reason(int error) { return std::generic_category().message(error); }

std::vector<std::uint8_t> content(const std::filesystem::path& path) {
  std::error_code failed;
  const auto kind = std::filesystem::status(path, failed).type();
  if (failed) throw Unreadable(reason(failed.value()));
  if (kind == std::filesystem::file_type::not_found) throw Unreadable(reason(ENOENT));
  if (kind == std::filesystem::file_type::directory) throw Unreadable(reason(EISDIR));
  if (kind != std::filesystem::file_type::regular) throw Unreadable("it is no file");
  const std::uintmax_t size = std::filesystem::file_size(path, failed);
  if (failed) throw Unreadable(reason(failed.value()));
  if (size > kBytes) throw Unreadable("it has " + std::to_string(size) + " bytes, more than a photograph");
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::fopen(path.c_str(), "rb"), std::fclose);
  if (!file) throw Unreadable(reason(errno));
  std::vector<std::uint8_t> bytes(size);
  bytes.resize(std::fread(bytes.data(), 1, bytes.size(), file.get()));
  if (std::ferror(file.get())) throw Unreadable(reason(errno));
  return bytes;
}

Image decode_content(const std::uint8_t* data, std::size_t size) {
  if (is_png(data, size)) return decode_png(data, size);
  if (is_jpeg(data, size)) return decode_jpeg(data, size);
  throw Unreadable(size == 0 ? "it is empty" : "it is no JPEG or PNG image");
}

}  // namespace

Image Image::open(const std::filesystem::path& path) try {
  const auto bytes = content(path);
  return decode_content(bytes.data(), bytes.size());
} catch (const Unreadable& e) {
  throw unreadable(path.string(), e.what());
}

Image Image::decode(const void* data, std::size_t size_bytes, const std::string& name) try {
  return decode_content(static_cast<const std::uint8_t*>(data), size_bytes);
} catch (const Unreadable& e) {
  throw unreadable(name, e.what());
}

Image blank(std::uint64_t width, std::uint64_t height) {
  if (width == 0 || height == 0) throw Unreadable("it has no pixels");
  if (width > kPixels || height > kPixels || width * height > kPixels)
    throw Unreadable("Image size (" + std::to_string(width) + " x " + std::to_string(height) +
                     " pixels) exceeds limit of " + std::to_string(kPixels) +
                     " pixels, could be decompression bomb DOS attack.");
  Image image;
  image.width = static_cast<int>(width);
  image.height = static_cast<int>(height);
  image.rgb.reserve(static_cast<std::size_t>(width * height * 3));
  return image;
}

}  // namespace dlcv
