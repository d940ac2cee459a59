// What the C++ library makes of images, for test_cpp_images.py to compare with Python.
//   pixels decode IN OUT                               contents of files -> images, or why there is none
//   pixels open IN OUT                                 paths, a line each -> the same
//   pixels input IN OUT CROPS SIZE CANVAS PAD MEAN3 STD3   images -> network inputs
//   pixels top IN OUT CROPS TOP CLASSES                logits -> indices and probabilities
//   pixels fuzz IN SEED COUNT                          decode each content damaged in COUNT ways; nothing comes of it
//   pixels time IN COUNT CROPS                          images -> seconds of one network input of ImageNet's kind
// IN and OUT are blocks, each of two integers and bytes: (length, 0) a content; (width, height) an image; (0, length)
// words.
#include <chrono>
#include <cstring>
#include <fstream>
#include <iostream>
#include <iterator>
#include <random>

#include "dlcv/error.hpp"
#include "preprocess.hpp"

namespace {

using dlcv::Bytes;
using dlcv::Image;

class Blocks {
 public:
  explicit Blocks(const char* path) : file_(path, std::ios::binary) {}
  bool next(std::int32_t& a, std::int32_t& b) { return get(&a, sizeof a) && get(&b, sizeof b); }
  bool get(void* into, std::size_t size) {
    return !!file_.read(static_cast<char*>(into), static_cast<std::streamsize>(size));
  }
  bool next(Bytes& content) {
    std::int32_t size, none;
    if (!next(size, none)) return false;
    content.resize(static_cast<std::size_t>(size));
    return get(content.data(), content.size());
  }
  bool next(Image& image) {
    if (!next(image.width, image.height)) return false;
    image.rgb.resize(std::size_t{3} * image.width * image.height);
    return get(image.rgb.data(), image.rgb.size());
  }

 private:
  std::ifstream file_;
};

void put(std::ofstream& out, const void* data, std::size_t size) {
  out.write(static_cast<const char*>(data), static_cast<std::streamsize>(size));
}

void put(std::ofstream& out, std::int32_t a, std::int32_t b, const void* data, std::size_t size) {
  const std::int32_t head[] = {a, b};
  put(out, head, sizeof head);
  put(out, data, size);
}

void put(std::ofstream& out, const dlcv::Error& error) {
  const std::string words = error.what();
  put(out, 0, static_cast<std::int32_t>(words.size()), words.data(), words.size());
}

void put(std::ofstream& out, const Image& image) {
  put(out, image.width, image.height, image.rgb.data(), image.rgb.size());
}

int decode(char** a) {
  Blocks in(a[0]);
  std::ofstream out(a[1], std::ios::binary);
  for (Bytes content; in.next(content);) try {
      put(out, Image::decode(content.data(), content.size(), "x"));
    } catch (const dlcv::Error& e) {
      put(out, e);
    }
  return 0;
}

int open(char** a) {
  std::ifstream in(a[0]);
  std::ofstream out(a[1], std::ios::binary);
  for (std::string path; std::getline(in, path);) try {
      put(out, Image::open(path));
    } catch (const dlcv::Error& e) {
      put(out, e);
    }
  return 0;
}

dlcv::Preprocess preprocess_of(char** a) {
  dlcv::Preprocess pre;
  pre.size = std::stoi(a[0]);
  pre.canvas = std::stoi(a[1]);
  pre.pad = std::strcmp(a[2], "pad") == 0;
  for (int c = 0; c < 3; ++c) pre.mean[c] = std::stod(a[3 + c]);
  for (int c = 0; c < 3; ++c) pre.std[c] = std::stod(a[6 + c]);
  return pre;
}

int input(char** a) {
  Blocks in(a[0]);
  std::ofstream out(a[1], std::ios::binary);
  const auto pre = preprocess_of(a + 3);
  for (Image image; in.next(image);) try {
      const auto values = dlcv::to_input(image, pre, std::stoi(a[2]));
      put(out, static_cast<std::int32_t>(values.size()), 0, values.data(), values.size() * sizeof(float));
    } catch (const dlcv::Error& e) {
      put(out, e);
    }
  return 0;
}

int top(char** a) {
  std::ifstream in(a[0], std::ios::binary);
  const std::vector<char> bytes((std::istreambuf_iterator<char>(in)), {});
  std::ofstream out(a[1], std::ios::binary);
  const int crops = std::stoi(a[2]);
  const std::vector<std::string> labels(std::stoul(a[4]), "label");
  std::vector<float> logits(bytes.size() / sizeof(float));
  std::memcpy(logits.data(), bytes.data(), bytes.size());
  const std::size_t step = labels.size() * static_cast<std::size_t>(crops);
  for (std::size_t at = 0; at + step <= logits.size(); at += step) try {
      for (const auto& found : dlcv::top_of(&logits[at], crops, labels, std::stoi(a[3]))) {
        put(out, &found.index, sizeof found.index);
        put(out, &found.probability, sizeof found.probability);
      }
    } catch (const dlcv::Error& e) {
      put(out, e.what(), std::strlen(e.what()));
    }
  return 0;
}

// Some bytes altered; or cut off, or a stretch of it repeated or lost.
Bytes damaged(Bytes content, std::mt19937_64& random) {
  const auto below = [&](std::size_t n) { return static_cast<std::size_t>(random() % std::max<std::size_t>(n, 1)); };
  for (std::size_t n = 1 + below(4); n > 0 && !content.empty(); --n) {
    const std::size_t at = below(below(2) ? content.size() : std::min<std::size_t>(content.size(), 700));
    const auto from = content.begin() + static_cast<std::ptrdiff_t>(at);
    const auto to = from + static_cast<std::ptrdiff_t>(below(std::min<std::size_t>(64, content.size() - at)));
    switch (below(8)) {
      case 0:
        content.resize(at);
        break;
      case 1:
        content.erase(from, to);
        break;
      case 2: {
        const Bytes again(from, to);
        content.insert(content.begin() + static_cast<std::ptrdiff_t>(below(content.size())), again.begin(),
                       again.end());
        break;
      }
      case 3:
        content[at] = below(2) ? 0xFF : 0;
        break;
      default:
        content[at] = static_cast<std::uint8_t>(random());
    }
  }
  return content;
}

int fuzz(char** a) {
  Blocks in(a[0]);
  std::mt19937_64 random(std::stoull(a[1]));
  std::size_t read = 0, refused = 0;
  for (Bytes content; in.next(content);)
    for (int i = std::stoi(a[2]); i > 0; --i) try {
        const Bytes bad = damaged(content, random);
        Image::decode(bad.data(), bad.size());
        ++read;
      } catch (const dlcv::Error& e) {
        if (e.kind() != dlcv::ErrorKind::artifact) throw;
        ++refused;
      }
  std::cout << read << " " << refused << "\n";
  return 0;
}

int time(char** a) {
  Blocks in(a[0]);
  const dlcv::Preprocess pre{224, 256, false, {0.485, 0.456, 0.406}, {0.229, 0.224, 0.225}};
  for (Image image; in.next(image);) {
    const auto start = std::chrono::steady_clock::now();
    for (int i = std::stoi(a[1]); i > 0; --i) dlcv::to_input(image, pre, std::stoi(a[2]));
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
    std::cout << took.count() / std::stoi(a[1]) << "\n";
  }
  return 0;
}

}  // namespace

int main(int count, char** words) {
  const std::string what = count > 1 ? words[1] : "";
  if (what == "decode" && count == 4) return decode(words + 2);
  if (what == "open" && count == 4) return open(words + 2);
  if (what == "input" && count == 14) return input(words + 2);
  if (what == "top" && count == 7) return top(words + 2);
  if (what == "fuzz" && count == 5) return fuzz(words + 2);
  if (what == "time" && count == 5) return time(words + 2);
  return 64;
}
