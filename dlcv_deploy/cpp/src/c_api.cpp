// The C interface: what is thrown below ends here, in one function.
#include <algorithm>
#include <exception>
#include <memory>
#include <new>
#include <string>
#include <vector>

#include "dlcv/dlcv.h"
#include "dlcv/engine.hpp"
#include "dlcv/version.h"

struct dlcv_engine {
  dlcv::Engine engine;
};

namespace {

thread_local std::string words;
thread_local const char* last_error = "";

dlcv_status failed(dlcv_status status, const char* what) noexcept {
  try {
    words = what;
    last_error = words.c_str();
  } catch (...) {
    last_error = "out of memory";
  }
  return status;
}

template <typename Work>
dlcv_status guarded(Work work) noexcept {
  try {
    work();
    return DLCV_OK;
  } catch (const dlcv::Error& e) {
    return failed(static_cast<dlcv_status>(e.kind()), e.what());
  } catch (const std::bad_alloc&) {
    return failed(DLCV_TOOL, "out of memory");
  } catch (const std::exception& e) {
    return failed(DLCV_BUG, e.what());
  } catch (...) {
    return failed(DLCV_BUG, "an exception of no known kind");
  }
}

dlcv::Error request(const std::string& what, const std::string& fix) {
  return dlcv::Error(dlcv::ErrorKind::request, "", what, fix);
}

template <typename T>
T& given(T* pointer, const char* name) {
  if (pointer == nullptr) throw request(std::string(name) + " is NULL", "give the address of one");
  return *pointer;
}

dlcv_status classify(const dlcv_engine* engine, int crops, int top, dlcv_prediction* found, std::size_t* count,
                     dlcv::Image (*open)(const void*), const void* what) noexcept {
  return guarded([&] {
    std::size_t& told = given(count, "count");
    told = 0;
    given(found, "found");
    const dlcv::Engine& its = given(engine, "engine").engine;
    const auto best = its.classify(open(what), top, crops);
    for (std::size_t i = 0; i < best.size(); ++i) {
      const auto& label = its.labels().at(static_cast<std::size_t>(best[i].index));
      found[i] = {best[i].index, label.c_str(), best[i].probability};
    }
    told = best.size();
  });
}

struct Pixels {
  const std::uint8_t* rgb;
  int width, height;
};

dlcv::Image image_of(const void* what) {
  const auto& pixels = *static_cast<const Pixels*>(what);
  if (pixels.width <= 0 || pixels.height <= 0)
    throw request("an image of " + std::to_string(pixels.width) + " x " + std::to_string(pixels.height) + " pixels",
                  "width and height are 1 at the least");
  const std::uint8_t& first = given(pixels.rgb, "rgb");
  const std::size_t bytes = static_cast<std::size_t>(pixels.width) * static_cast<std::size_t>(pixels.height) * 3;
  return {pixels.width, pixels.height, std::vector<std::uint8_t>(&first, &first + bytes)};
}

dlcv::Image file_of(const void* path) { return dlcv::Image::open(&given(static_cast<const char*>(path), "path")); }

}  // namespace

extern "C" {

const char* dlcv_version(void) { return DLCV_VERSION; }

const char* dlcv_last_error(void) { return last_error; }

dlcv_status dlcv_load(const char* bundle, const char* backend, dlcv_engine** engine) {
  return guarded([&] {
    dlcv_engine*& loaded = given(engine, "engine");
    loaded = nullptr;
    dlcv::LoadOptions options;
    if (backend != nullptr) options.backend = backend;
    auto made = dlcv::Engine::load(&given(bundle, "bundle"), options);
    loaded = std::make_unique<dlcv_engine>(dlcv_engine{std::move(made)}).release();
  });
}

void dlcv_free(dlcv_engine* engine) { const std::unique_ptr<dlcv_engine> owned(engine); }

const char* dlcv_backend(const dlcv_engine* engine) {
  return engine == nullptr ? nullptr : engine->engine.backend().c_str();
}

size_t dlcv_classes(const dlcv_engine* engine) {
  return engine == nullptr ? 0 : engine->engine.outputs().front().size();
}

const char* dlcv_label(const dlcv_engine* engine, size_t index) {
  if (engine == nullptr || index >= engine->engine.labels().size()) return nullptr;
  return engine->engine.labels()[index].c_str();
}

size_t dlcv_input_size(const dlcv_engine* engine) { return engine == nullptr ? 0 : engine->engine.input().size(); }

dlcv_status dlcv_classify_file(const dlcv_engine* engine, const char* path, int crops, int top, dlcv_prediction* found,
                               size_t* count) {
  return classify(engine, crops, top, found, count, file_of, path);
}

dlcv_status dlcv_classify_rgb(const dlcv_engine* engine, const uint8_t* rgb, int width, int height, int crops, int top,
                              dlcv_prediction* found, size_t* count) {
  const Pixels pixels{rgb, width, height};
  return classify(engine, crops, top, found, count, image_of, &pixels);
}

dlcv_status dlcv_run(const dlcv_engine* engine, const float* input, size_t rows, float* logits) {
  return guarded([&] {
    const dlcv::Engine& its = given(engine, "engine").engine;
    given(input, "input");
    std::vector<float*> outputs{&given(logits, "logits")};
    std::vector<std::vector<float>> others;  // what a network gives besides
    for (std::size_t i = 1; i < its.outputs().size(); ++i)
      outputs.push_back(others.emplace_back(rows * its.outputs()[i].size()).data());
    its.run(input, rows, outputs.data());
  });
}
}
