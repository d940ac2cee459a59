// TensorRT without a GPU: what tensorrt.cpp calls of it. Its one engine takes x (N, 4) and answers y (N, 3), where
// y[j] = (j + 1) * sum(x). With FAKE_RTX it is TensorRT for RTX.
#pragma once

#include <cstdint>
#include <map>
#include <numeric>

#include "cuda_runtime_api.h"

#ifdef FAKE_RTX
#define TRT_MAJOR_RTX 1
#define NV_TENSORRT_VERSION 10701
#else
#define NV_TENSORRT_VERSION 101401
#endif

namespace nvinfer1 {

class ILogger {
 public:
  enum class Severity : std::int32_t { kINTERNAL_ERROR, kERROR, kWARNING, kINFO, kVERBOSE };
  virtual void log(Severity severity, const char* text) noexcept = 0;
  virtual ~ILogger() = default;
};

struct Dims {
  static constexpr int MAX_DIMS = 8;
  std::int32_t nbDims;
  std::int64_t d[MAX_DIMS];
};
enum class TensorIOMode { kNONE, kINPUT, kOUTPUT };
enum class DataType { kFLOAT };

inline ILogger* told = nullptr;
inline bool refuses(const char* call) {
  if (!fake::fails(call)) return false;
  told->log(ILogger::Severity::kWARNING, "a warning");
  told->log(ILogger::Severity::kERROR, (std::string(call) + " was told to fail").c_str());
  return true;
}

class IExecutionContext : fake::Alive {
 public:
  bool setTensorAddress(const char* name, void* data) {
    address_[name] = static_cast<float*>(data);
    return !refuses("setTensorAddress");
  }
  bool setInputShape(const char*, Dims dims) {
    rows_ = dims.d[0];
    return !refuses("setInputShape");
  }
  Dims getTensorShape(const char*) const { return {2, {refuses("getTensorShape") ? 0 : rows_, 3}}; }
  bool enqueueV3(cudaStream_t stream) {
    if (refuses("enqueueV3")) return false;
    const auto rows = rows_;
    const float* x = address_.at("x");
    float* y = address_.at("y");
    stream->put([=] {
      for (std::int64_t i = 0; i < rows; ++i)
        for (int j = 0; j < 3; ++j)
          y[3 * i + j] = static_cast<float>(j + 1) * std::accumulate(x + 4 * i, x + 4 * i + 4, 0.0F);
    });
    return true;
  }

 private:
  std::map<std::string, float*> address_;
  std::int64_t rows_ = 0;
};

enum class CudaGraphStrategy { kDISABLED, kWHOLE_GRAPH_CAPTURE };
class IRuntimeConfig : fake::Alive {
 public:
  bool setCudaGraphStrategy(CudaGraphStrategy) { return !refuses("setCudaGraphStrategy"); }
};

class ICudaEngine : fake::Alive {
 public:
  TensorIOMode getTensorIOMode(const char* name) const {
    const std::string n = name;
    return n == "x" ? TensorIOMode::kINPUT : n == "y" ? TensorIOMode::kOUTPUT : TensorIOMode::kNONE;
  }
  DataType getTensorDataType(const char*) const { return DataType::kFLOAT; }
  Dims getTensorShape(const char* name) const { return {2, {-1, *name == 'x' ? 4 : 3}}; }
  std::int32_t getNbIOTensors() const { return 2; }
  IRuntimeConfig* createRuntimeConfig() { return refuses("createRuntimeConfig") ? nullptr : new IRuntimeConfig; }
  IExecutionContext* createExecutionContext(IRuntimeConfig* = nullptr) {
    return refuses("createExecutionContext") ? nullptr : new IExecutionContext;
  }
};

class IRuntime : fake::Alive {
 public:
  ICudaEngine* deserializeCudaEngine(const void*, std::size_t) {
    return refuses("deserializeCudaEngine") ? nullptr : new ICudaEngine;
  }
};

class IPluginRegistry {
 public:
  bool loaded = false;
  void* getCreator(const char*, const char*, const char*) { return loaded ? this : nullptr; }
  void* loadLibrary(const char* path) {
    if (refuses("loadLibrary")) return nullptr;
    loaded = std::string(path).rfind("/proc/self/fd/", 0) == 0 && !fake::fails("an empty library");
    return this;
  }
  void deregisterLibrary(void*) { loaded = false; }
};

inline IRuntime* createInferRuntime(ILogger& logger) {
  told = &logger;
  return refuses("createInferRuntime") ? nullptr : new IRuntime;
}

}  // namespace nvinfer1

inline nvinfer1::IPluginRegistry* getPluginRegistry() {
  static nvinfer1::IPluginRegistry registry;
  return &registry;
}
inline std::int32_t getInferLibVersion() { return std::atoi(std::getenv("FAKE_LIBRARY")); }
inline std::int32_t getInferLibBuildVersion() { return 48; }
