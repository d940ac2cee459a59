// PNG by libpng. The chunks are walked here, as leniently and as strictly as Pillow does: checksums count before the
// pixels and not after, and a file may end where the pixels are complete. libpng is given the pixels alone.
#include <png.h>
#include <zlib.h>

#include <array>
#include <csetjmp>
#include <cstring>
#include <string_view>

#include "decode.hpp"

namespace dlcv {
namespace {

constexpr std::uint8_t kSignature[] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1A, '\n'};
constexpr std::uint64_t kDeflate = 1032;  // no stream unpacks to more bytes than this for each of its own

std::uint32_t big_endian(const std::uint8_t* at) {
  return std::uint32_t{at[0]} << 24 | std::uint32_t{at[1]} << 16 | std::uint32_t{at[2]} << 8 | at[3];
}

struct Chunk {
  std::string_view name;
  const std::uint8_t* data;
  std::size_t length;  // as the file has it
  std::size_t here;    // less where the file is cut off
};

class Chunks {
 public:
  Chunks(const std::uint8_t* data, std::size_t size) : at_(data), left_(size) {}

  // The next chunk's header is there.
  bool more() const { return left_ >= 8; }

  // The next chunk, to be followed by `checksum`. Throws Unreadable: nothing there, or no chunk.
  Chunk next() {
    if (!more()) throw Unreadable(kTruncated);
    const std::string_view name(reinterpret_cast<const char*>(at_) + 4, 4);
    for (char c : name)
      if (!(c >= 'a' && c <= 'z') && !(c >= 'A' && c <= 'Z') && !(c >= '0' && c <= '9') && c != '_')
        throw Unreadable("broken PNG file (no chunk where one must be)");
    const std::size_t length = big_endian(at_), here = std::min(length, left_ - 8);
    const Chunk chunk{name, at_ + 8, length, here};
    at_ += 8 + here;
    left_ -= 8 + here;
    return chunk;
  }

  // Step over the checksum of a chunk; whether it is there and right.
  bool checksum(const Chunk& chunk) {
    const std::size_t here = std::min<std::size_t>(4, left_);
    bool right = here == 4;
    if (right) {
      const auto* name = reinterpret_cast<const Bytef*>(chunk.name.data());
      right = crc32_z(crc32_z(0, name, 4), chunk.data, chunk.here) == big_endian(at_);
    }
    skip(here);
    return right;
  }

  void skip_checksum() { skip(std::min<std::size_t>(4, left_)); }

 private:
  void skip(std::size_t count) {
    at_ += count;
    left_ -= count;
  }

  const std::uint8_t* at_;
  std::size_t left_;
};

struct Header {
  std::uint32_t width = 0, height = 0;
  int depth = 0, colour = 0;
  bool interlaced = false, animated = false;
  std::array<std::uint8_t, 768> palette{};  // black where the file has none

  int channels() const {
    return colour == PNG_COLOR_TYPE_RGB          ? 3
           : colour == PNG_COLOR_TYPE_GRAY_ALPHA ? 2
           : colour == PNG_COLOR_TYPE_RGB_ALPHA  ? 4
                                                 : 1;
  }
};

void read_ihdr(const Chunk& chunk, Header& header) {
  if (chunk.length < 13) throw Unreadable("Truncated IHDR chunk");
  const std::uint8_t* d = chunk.data;
  header.width = big_endian(d);
  header.height = big_endian(d + 4);
  header.depth = d[8];
  header.colour = d[9];
  const bool known = header.colour == PNG_COLOR_TYPE_GRAY      ? std::strchr("\1\2\4\10\20", header.depth) != nullptr
                     : header.colour == PNG_COLOR_TYPE_PALETTE ? std::strchr("\1\2\4\10", header.depth) != nullptr
                     : header.colour == PNG_COLOR_TYPE_RGB || header.colour == PNG_COLOR_TYPE_GRAY_ALPHA ||
                             header.colour == PNG_COLOR_TYPE_RGB_ALPHA
                         ? header.depth == 8 || header.depth == 16
                         : false;
  if (header.depth == 0 || !known)
    throw Unreadable("PNG has no colour type " + std::to_string(header.colour) + " with " +
                     std::to_string(header.depth) + " bits");
  if (d[11] != 0) throw Unreadable("unknown filter category");
  header.interlaced = d[12] != 0;
}

// All up to the first chunk with pixels, which is given back.
Chunk read_header(Chunks& chunks, Header& header) {
  for (;;) {
    const Chunk chunk = chunks.next();
    if (chunk.name == "IDAT") return chunk;
    if (chunk.name == "IEND") throw Unreadable("it has no pixels");
    if (chunk.here < chunk.length) throw Unreadable(kTruncated);
    if (!chunks.checksum(chunk))
      throw Unreadable("broken PNG file (bad header checksum in " + std::string(chunk.name) + ")");
    if (chunk.name == "IHDR") read_ihdr(chunk, header);
    if (chunk.name == "acTL") header.animated = true;
    if (chunk.name == "PLTE" && header.colour == PNG_COLOR_TYPE_PALETTE) {
      if (chunk.length > header.palette.size()) throw Unreadable("invalid palette size");
      header.palette.fill(0);
      std::memcpy(header.palette.data(), chunk.data, chunk.length / 3 * 3);
    }
  }
}

// libpng in its mode that is pushed data. Its errors arrive by longjmp: `push` is the one way in, and nothing that has
// a destructor lives between the two.
class Rows {
 public:
  Rows(const Header& header, Image& image) : header_(header), image_(image) {
    for (int v = 0; v < 256; ++v) {
      const int most = header.depth < 8 ? (1 << header.depth) - 1 : 255;
      const auto grey = static_cast<std::uint8_t>(v <= most ? v * 255 / most : 255);
      for (int c = 0; c < 3; ++c)
        table_[v * 3 + c] = header.colour == PNG_COLOR_TYPE_PALETTE ? header.palette[v * 3 + c] : grey;
    }
    for (int pass = 0; header.interlaced && pass < PNG_INTERLACE_ADAM7_PASSES; ++pass)
      if (PNG_PASS_COLS(header.width, pass) > 0) missing_ += PNG_PASS_ROWS(header.height, pass);
    if (!header.interlaced) missing_ = header.height;
    png_ = png_create_read_struct(
        PNG_LIBPNG_VER_STRING, this, [](png_structp p, png_const_charp) { std::longjmp(of(p).escape_, 1); },
        [](png_structp p, png_const_charp) { of(p).warned_ = true; });
    info_ = png_ ? png_create_info_struct(png_) : nullptr;
    if (!info_) {
      png_destroy_read_struct(&png_, &info_, nullptr);
      throw std::bad_alloc();
    }
    start();
  }

  Rows(const Rows&) = delete;
  Rows& operator=(const Rows&) = delete;
  ~Rows() { png_destroy_read_struct(&png_, &info_, nullptr); }

  bool complete() const { return missing_ == 0; }
  bool warned() const { return warned_; }

  void push_chunk(const char* name, const std::uint8_t* data, std::size_t size) {
    const auto length = static_cast<std::uint32_t>(size);
    std::uint8_t head[8], none[4]{};  // checksums are not looked at any more
    png_save_uint_32(head, length);
    std::memcpy(head + 4, name, 4);
    push(head, sizeof head);
    push(data, size);
    push(none, sizeof none);
  }

 private:
  static Rows& of(png_structp png) { return *static_cast<Rows*>(png_get_error_ptr(png)); }

  void start() {
    png_set_user_limits(png_, PNG_UINT_31_MAX, PNG_UINT_31_MAX);
    png_set_crc_action(png_, PNG_CRC_QUIET_USE, PNG_CRC_QUIET_USE);
    png_set_option(png_, PNG_MAXIMUM_INFLATE_WINDOW, PNG_OPTION_ON);
    png_set_progressive_read_fn(
        png_, this,
        [](png_structp png, png_infop info) {
          png_set_packing(png);   // a byte a value, unscaled
          png_set_strip_16(png);  // the upper half
          png_read_update_info(png, info);
        },
        [](png_structp png, png_bytep row, png_uint_32 y, int pass) { of(png).take(row, y, pass); }, nullptr);
    std::uint8_t head[13]{};
    png_save_uint_32(head, header_.width);
    png_save_uint_32(head + 4, header_.height);
    head[8] = static_cast<std::uint8_t>(header_.depth);
    // indices are packed as grey levels are; which colours they are is told here, not by libpng
    head[9] =
        static_cast<std::uint8_t>(header_.colour == PNG_COLOR_TYPE_PALETTE ? PNG_COLOR_TYPE_GRAY : header_.colour);
    head[12] = header_.interlaced;
    push(kSignature, sizeof kSignature);
    push_chunk("IHDR", head, sizeof head);
  }

  void push(const std::uint8_t* data, std::size_t size) {
    if (setjmp(escape_) != 0) throw Unreadable(kBroken);
    png_process_data(png_, info_, const_cast<png_bytep>(data), size);
  }

  void take(const std::uint8_t* row, std::uint32_t y, int pass) {
    if (missing_ == 0) return;
    --missing_;
    const std::size_t width = header_.width;
    if (!header_.interlaced) {
      image_.rgb.resize((y + std::size_t{1}) * width * 3);  // within what is reserved
      colour(row, &image_.rgb[y * width * 3], width, 1);
    } else {
      const std::size_t at = PNG_ROW_FROM_PASS_ROW(y, pass) * width + PNG_PASS_START_COL(pass);
      colour(row, &image_.rgb[at * 3], PNG_PASS_COLS(header_.width, pass), PNG_PASS_COL_OFFSET(pass));
    }
  }

  void colour(const std::uint8_t* row, std::uint8_t* rgb, std::size_t count, std::size_t step) const {
    const int channels = header_.channels();
    for (std::size_t i = 0; i < count; ++i, row += channels, rgb += step * 3)
      std::memcpy(rgb, channels < 3 ? &table_[std::size_t{row[0]} * 3] : row, 3);
  }

  const Header& header_;
  Image& image_;
  std::array<std::uint8_t, 768> table_{};
  std::uint64_t missing_ = 0;  // rows, of all passes
  bool warned_ = false;
  png_structp png_ = nullptr;
  png_infop info_ = nullptr;
  std::jmp_buf escape_;
};

// What follows the pixels is not looked at, but a chunk that has begun must be there; other frames are left alone.
void read_rest(Chunks& chunks, bool animated) {
  while (chunks.more()) {
    Chunk chunk{};
    try {
      chunk = chunks.next();
    } catch (const Unreadable&) {
      return;
    }
    if (chunk.name == "IEND" || (animated && chunk.name == "fcTL")) return;
    if (chunk.here < chunk.length) throw Unreadable(kTruncated);
    chunks.skip_checksum();
  }
}

}  // namespace

bool is_png(const std::uint8_t* data, std::size_t size) {
  return size >= sizeof kSignature && std::memcmp(data, kSignature, sizeof kSignature) == 0;
}

Image decode_png(const std::uint8_t* data, std::size_t size) {
  Chunks chunks(data + sizeof kSignature, size - sizeof kSignature);
  Header header;
  Chunk chunk = read_header(chunks, header);
  if (header.depth == 0) throw Unreadable("broken PNG file (pixels before its header)");
  Image image = blank(header.width, header.height);
  const std::uint64_t values = std::uint64_t{header.width} * header.height * header.channels();
  if (values * header.depth / 8 / kDeflate > size) throw Unreadable(kTruncated);
  if (header.interlaced) image.rgb.resize(std::size_t{header.width} * header.height * 3);
  Rows rows(header, image);
  for (;;) {
    if (chunk.here > 0) rows.push_chunk("IDAT", chunk.data, chunk.here);
    if (rows.complete()) break;
    if (rows.warned()) throw Unreadable(kBroken);
    if (chunk.here < chunk.length) throw Unreadable(kTruncated);
    chunks.skip_checksum();
    chunk = chunks.next();
    if (chunk.name != "IDAT") throw Unreadable(kTruncated);
  }
  chunks.skip_checksum();
  read_rest(chunks, header.animated);
  return image;
}

}  // namespace dlcv
