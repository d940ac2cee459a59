// The session of tensorrt.cpp on the stand-ins of this folder: answers, graphs, threads, and every call failing in
// turn.
#include <cstdio>
#include <thread>

#include "NvInfer.h"
#include "backend.hpp"
#include "messages.hpp"

namespace dlcv {
Backend tensorrt_backend();
Message cause_of(const std::string&, const std::string&) { return {}; }
}  // namespace dlcv

namespace {

int wrong = 0;

void expect(bool ok, const std::string& what) {
  if (!ok) std::printf("wrong: %s\n", what.c_str()), ++wrong;
}

std::unique_ptr<dlcv::Session> loaded(bool graphs = true, bool plugin = false, int device = 0) {
  const dlcv::Backend backend = dlcv::tensorrt_backend();
  dlcv::EngineEntry entry;
  entry.target = "SM 8.9";
  entry.batch = {1, 2, 8};
  if (plugin) entry.plugin = dlcv::PluginEntry{"lib.so", std::string(64, 'a'), "10.14", {89}, {"Lrn", "LrnInt8"}};
  dlcv::Manifest manifest;
  manifest.inputs = {{"x", {4}}};
  manifest.outputs = {{"y", {3}}};
  dlcv::LoadOptions options;
  options.cuda_graphs = graphs;
  options.device = device;
  const std::map<std::string, dlcv::Bytes> files = {{"model.engine", {1}}, {"model.rtx.engine", {1}}, {"lib.so", {2}}};
  return backend.load(entry, manifest, files, options);
}

bool right(dlcv::Session& session, int rows, float first) {
  std::vector<float> x(static_cast<std::size_t>(rows) * 4), y(static_cast<std::size_t>(rows) * 3);
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = first + static_cast<float>(i);
  float* out[] = {y.data()};
  session.run(x.data(), rows, out);
  for (std::size_t i = 0; i < y.size(); ++i) {
    const float* row = x.data() + i / 3 * 4;
    if (y[i] != static_cast<float>(i % 3 + 1) * (row[0] + row[1] + row[2] + row[3])) return false;
  }
  return true;
}

void answers(bool graphs) {
  const auto session = loaded(graphs);
  float first = 0;
  for (const int rows : {1, 1, 1, 3, 3, 3, 3, 8, 1, 1}) expect(right(*session, rows, ++first), "an answer");
}

// Every n-th call of a name fails, at loading or while running; returns how often an error came of it.
int failures(const char* call) {
  int errors = 0;
  for (int nth = 1; nth < 50; ++nth) {
    fake::failing = call;
    fake::countdown = nth;
    try {
      const auto session = loaded(true, false, 1);
      for (float first : {1.0F, 2.0F, 3.0F}) expect(right(*session, 2, first), std::string(call) + ": an answer");
    } catch (const dlcv::Error& e) {
      ++errors;
      if (nth == 1) std::printf("%s: %d %s\n", call, static_cast<int>(e.kind()), e.what());
    }
    expect(fake::alive == 0, std::string(call) + ": something stays");
    expect(fake::device == 0 || std::string(call) == "cudaSetDevice",
           std::string(call) + ": another device is current");
    fake::device = 0;
    if (fake::countdown > 0) break;  // it was not called so often
  }
  fake::failing.clear();
  return errors;
}

void threads() {
  const auto session = loaded();
  std::vector<std::thread> all;
  for (int t = 0; t < 4; ++t)
    all.emplace_back([&session, t] {
      for (int i = 0; i < 50; ++i)
        if (!right(*session, 1 + (i + t) % 8, static_cast<float>(t))) std::printf("wrong: a thread's answer\n");
    });
  for (auto& thread : all) thread.join();
}

void plugins() {
  for (const char* call : {"loadLibrary", "an empty library", ""}) {
    fake::failing = call;
    fake::countdown = 1;
    try {
      loaded(true, true);
      loaded(true, true);
    } catch (const dlcv::Error& e) {
      std::printf("%s: %d %s\n", call, static_cast<int>(e.kind()), e.what());
    }
  }
}

}  // namespace

int main() {
  try {
    answers(false);
    expect(fake::launches == 0, "graphs though none were wanted");
    answers(true);
    std::printf("%d launches\n", fake::launches);
    threads();
    for (const char* call : {"cudaGetDevice",
                             "cudaSetDevice",
                             "cudaMalloc",
                             "cudaMallocHost",
                             "cudaMemcpyAsync",
                             "cudaStreamCreateWithFlags",
                             "cudaStreamSynchronize",
                             "cudaStreamBeginCapture",
                             "cudaStreamEndCapture",
                             "cudaGraphInstantiateWithFlags",
                             "cudaGraphLaunch",
                             "createInferRuntime",
                             "deserializeCudaEngine",
                             "createRuntimeConfig",
                             "setCudaGraphStrategy",
                             "createExecutionContext",
                             "setTensorAddress",
                             "setInputShape",
                             "getTensorShape",
                             "enqueueV3"})
      std::printf("%s: %d errors\n", call, failures(call));
    plugins();
    std::printf("%d wrong, %d alive\n", wrong, fake::alive);
  } catch (const dlcv::Error& e) {
    std::printf("%d %s\n", static_cast<int>(e.kind()), e.what());
  }
  return wrong;
}
