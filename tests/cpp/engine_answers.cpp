// engine_answers BUNDLE TOP CROPS IMAGES OUT: classify images from the file IMAGES (n, height, width as int32, then
// their bytes), all in one call and the first again by itself; OUT gets an int32 and a double for each prediction.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>

#include "dlcv/engine.hpp"

namespace {

std::vector<dlcv::Image> images_of(const char* path) {
  std::ifstream file(path, std::ios::binary);
  std::int32_t sizes[3];
  file.read(reinterpret_cast<char*>(sizes), sizeof sizes);
  std::vector<dlcv::Image> images(static_cast<std::size_t>(sizes[0]));
  for (auto& image : images) {
    image.height = sizes[1];
    image.width = sizes[2];
    image.rgb.resize(static_cast<std::size_t>(3) * sizes[1] * sizes[2]);
    file.read(reinterpret_cast<char*>(image.rgb.data()), static_cast<std::streamsize>(image.rgb.size()));
  }
  if (!file) throw std::runtime_error("the images cannot be read");
  return images;
}

void write(std::ofstream& out, const std::vector<dlcv::Prediction>& answer) {
  for (const auto& found : answer) {
    const auto index = static_cast<std::int32_t>(found.index);
    out.write(reinterpret_cast<const char*>(&index), sizeof index);
    out.write(reinterpret_cast<const char*>(&found.probability), sizeof found.probability);
  }
}

}  // namespace

int main(int, char** argv) {
  try {
    const dlcv::Engine engine = dlcv::Engine::load(argv[1]);
    const int top = std::atoi(argv[2]), crops = std::atoi(argv[3]);
    const auto images = images_of(argv[4]);
    std::ofstream out(argv[5], std::ios::binary);
    for (const auto& answer : engine.classify(images, top, crops)) write(out, answer);
    write(out, engine.classify(images.front(), top, crops));
    std::printf("%s %s %s\n", engine.model().c_str(), engine.backend().c_str(), engine.labels().back().c_str());
  } catch (const dlcv::Error& e) {
    std::fprintf(stderr, "%s|%s\n", e.code().c_str(), e.what());
    return static_cast<int>(e.kind());
  }
  return 0;
}
