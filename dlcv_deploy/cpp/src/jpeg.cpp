// JPEG by libjpeg-turbo with the settings of Pillow: the accurate integer DCT, smooth upsampling, warnings ignored.
#include <algorithm>
#include <csetjmp>
#include <cstdio>  // jpeglib.h takes it for granted
#include <utility>

// after those two
#include <jpeglib.h>

#include "decode.hpp"

namespace dlcv {
namespace {

constexpr std::size_t kBlock = 65536;  // Pillow looks no further into a file than it must, by blocks of this

// libjpeg's state over bytes in memory. Its errors arrive by longjmp: every call of libjpeg goes through `call`, and
// nothing that has a destructor lives between the two.
class Reader {
 public:
  Reader(const std::uint8_t* data, std::size_t size) : left_(size) {
    info.err = jpeg_std_error(&errors_);
    info.client_data = this;
    errors_.error_exit = [](j_common_ptr c) { std::longjmp(static_cast<Reader*>(c->client_data)->escape_, 1); };
    errors_.output_message = [](j_common_ptr) {};
    source_.next_input_byte = data;
    source_.init_source = source_.term_source = [](j_decompress_ptr) {};
    source_.fill_input_buffer = [](j_decompress_ptr) -> boolean { return FALSE; };  // wait for `feed`
    source_.skip_input_data = [](j_decompress_ptr c, long count) { static_cast<Reader*>(c->client_data)->skip(count); };
    source_.resync_to_restart = jpeg_resync_to_restart;
    call([this] {
      jpeg_create_decompress(&info);
      info.src = &source_;
    });
  }

  Reader(const Reader&) = delete;
  Reader& operator=(const Reader&) = delete;
  ~Reader() { jpeg_destroy_decompress(&info); }

  // Repeat a step of libjpeg with more and more of the file, until it says that it is done. Throws Unreadable.
  template <class Step>
  void finish(Step step) {
    bool done = false;
    for (;;) {
      call([&] { done = step(); });
      if (done) return;
      if (left_ == 0) throw Unreadable(kTruncated);
      feed();
    }
  }

  template <class Call>
  void call(Call made) {
    if (setjmp(escape_) != 0) throw Unreadable(kBroken);
    made();
  }

  jpeg_decompress_struct info{};

 private:
  void feed() {
    const std::size_t more = std::min(kBlock, left_);
    source_.bytes_in_buffer += more;
    left_ -= more;
    skip(std::exchange(skipped_, 0));
  }

  void skip(long count) {
    if (count <= 0) return;
    const std::size_t now = std::min(static_cast<std::size_t>(count), source_.bytes_in_buffer);
    source_.next_input_byte += now;
    source_.bytes_in_buffer -= now;
    skipped_ = count - static_cast<long>(now);
  }

  jpeg_error_mgr errors_{};
  jpeg_source_mgr source_{};
  std::size_t left_;  // bytes of the file that libjpeg has not been shown
  long skipped_ = 0;  // of which it does not want these
  std::jmp_buf escape_;
};

// x * y / 255, rounded, as Pillow has it.
int times(int x, int y) {
  const int product = x * y + 128;
  return (product + (product >> 8)) >> 8;
}

// Pillow takes every CMYK file for one of Adobe's, whose values are inverted.
void from_inverted_cmyk(const std::uint8_t* row, std::uint8_t* rgb, int width) {
  for (int x = 0; x < width; ++x, row += 4, rgb += 3)
    for (int c = 0; c < 3; ++c) rgb[c] = static_cast<std::uint8_t>(row[3] - times(255 - row[c], row[3]));
}

void from_grey(const std::uint8_t* row, std::uint8_t* rgb, int width) {
  for (int x = 0; x < width; ++x, rgb += 3) rgb[0] = rgb[1] = rgb[2] = row[x];
}

void read_header(Reader& reader) {
  auto& info = reader.info;
  reader.finish([&] {
    int found;
    do found = jpeg_read_header(&info, FALSE);
    while (found == JPEG_HEADER_TABLES_ONLY);
    return found != JPEG_SUSPENDED;
  });
  if (info.data_precision != 8)
    throw Unreadable("cannot handle " + std::to_string(info.data_precision) + "-bit layers");
  switch (info.num_components) {
    case 1:
      info.out_color_space = JCS_GRAYSCALE;
      break;
    case 3:
      info.out_color_space = JCS_RGB;
      break;
    case 4:
      info.out_color_space = JCS_CMYK;
      break;
    default:
      throw Unreadable("cannot handle " + std::to_string(info.num_components) + "-layer images");
  }
}

}  // namespace

bool is_jpeg(const std::uint8_t* data, std::size_t size) {
  return size >= 3 && data[0] == 0xFF && data[1] == 0xD8 && data[2] == 0xFF;
}

Image decode_jpeg(const std::uint8_t* data, std::size_t size) {
  Reader reader(data, size);
  auto& info = reader.info;
  read_header(reader);
  Image image = blank(info.image_width, info.image_height);
  const std::size_t width = info.image_width;
  std::vector<std::uint8_t> row(info.num_components == 3 ? 0 : width * static_cast<std::size_t>(info.num_components));
  reader.finish([&] { return jpeg_start_decompress(&info) == TRUE; });
  for (int y = 0; y < image.height; ++y) {
    const std::size_t at = image.rgb.size();
    image.rgb.resize(at + width * 3);
    std::uint8_t* const rgb = &image.rgb[at];
    JSAMPROW into = row.empty() ? rgb : row.data();
    reader.finish([&] { return jpeg_read_scanlines(&info, &into, 1) == 1; });
    if (info.num_components == 4)
      from_inverted_cmyk(row.data(), rgb, image.width);
    else if (info.num_components == 1)
      from_grey(row.data(), rgb, image.width);
  }
  reader.call([&] { jpeg_finish_decompress(&info); });  // that the end is missing is no matter; that it is wrong, is
  return image;
}

}  // namespace dlcv
