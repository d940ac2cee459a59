#include "lrn_plugin.h"

#include <cstdio>
#include <cstring>
#include <new>

using nvinfer1::DataType;
using nvinfer1::PluginField;
using nvinfer1::PluginFieldType;
using nvinfer1::TensorFormat;

namespace dlcv {
namespace {

nvinfer1::ILoggerFinder* logger_finder = nullptr;

template <class... Values>
void log_error(char const* op, char const* format, Values... values) noexcept {
  char what[256], line[320];
  std::snprintf(what, sizeof what, format, values...);
  std::snprintf(line, sizeof line, "%s: %s", op, what);
  nvinfer1::ILogger* const logger = logger_finder != nullptr ? logger_finder->findLogger() : nullptr;
  if (logger != nullptr) {
    logger->log(nvinfer1::ILogger::Severity::kERROR, line);
  } else {
    std::fprintf(stderr, "%s\n", line);
  }
}

char const* name_of(bool fused) noexcept { return fused ? kLrnMaxPoolName : kLrnName; }

// Every field by its name, type, length and place: what is read, offered and serialized is this one list. Fields that
// ONNX has a default for may be missing.
struct FieldAt {
  char const* name;
  PluginFieldType type;
  int32_t length;
  void* place;
  bool needed = false;
};

std::vector<FieldAt> fields_of(Attributes& a) {
  constexpr auto kInt = PluginFieldType::kINT32, kFloat = PluginFieldType::kFLOAT32;
  std::vector<FieldAt> found{{"size", kInt, 1, &a.lrn.size, true},
                             {"alpha", kFloat, 1, &a.lrn.alpha},
                             {"beta", kFloat, 1, &a.lrn.beta},
                             {"bias", kFloat, 1, &a.lrn.bias},
                             {"input_scale", kFloat, 1, &a.lrn.input_scale},
                             {"output_scale", kFloat, 1, &a.lrn.output_scale}};
  if (a.fused) {
    found.push_back({"kernel_shape", kInt, 2, a.pool.kernel, true});
    found.push_back({"strides", kInt, 2, a.pool.strides});
    found.push_back({"pads", kInt, 4, a.pool.pads});
  }
  return found;
}

// Whether all fields were read; says what is wrong where not.
bool read_fields(Attributes& a, nvinfer1::PluginFieldCollection const& given) {
  char const* const op = name_of(a.fused);
  auto known = fields_of(a);
  for (int32_t i = 0; i < given.nbFields; ++i) {
    PluginField const& field = given.fields[i];
    FieldAt* match = nullptr;
    for (FieldAt& each : known) {
      if (std::strcmp(each.name, field.name) == 0) match = &each;
    }
    if (match == nullptr) {
      // TensorRT hands an ONNX node's plugin_version and plugin_namespace over as well.
      if (std::strncmp(field.name, "plugin_", 7) == 0) continue;
      log_error(op, "there is no attribute '%s'", field.name);
      return false;
    }
    if (field.type != match->type || field.length != match->length || field.data == nullptr) {
      log_error(op, "attribute '%s' must be %d %s", match->name, static_cast<int>(match->length),
                match->type == PluginFieldType::kINT32 ? "32-bit integers" : "32-bit floats");
      return false;
    }
    std::memcpy(match->place, field.data, static_cast<size_t>(field.length) * 4);
    match->needed = false;
  }
  for (FieldAt const& each : known) {
    if (!each.needed) continue;
    log_error(op, "attribute '%s' is missing", each.name);
    return false;
  }
  return true;
}

Shape shape_of(nvinfer1::Dims const& dims) noexcept {
  return {static_cast<int>(dims.d[0]), static_cast<int>(dims.d[1]), static_cast<int>(dims.d[2]),
          static_cast<int>(dims.d[3])};
}

// The kernels' format; false where they have none.
bool format_of(DataType type, TensorFormat format, Format& found) noexcept {
  if (type == DataType::kFLOAT && format == TensorFormat::kLINEAR) {
    found = Format::kFp32Linear;
  } else if (type == DataType::kHALF && format == TensorFormat::kLINEAR) {
    found = Format::kFp16Linear;
  } else if (type == DataType::kHALF && format == TensorFormat::kHWC8) {
    found = Format::kFp16Hwc8;
  } else if (type == DataType::kINT8 && format == TensorFormat::kCHW4) {
    found = Format::kInt8Chw4;
  } else if (type == DataType::kINT8 && format == TensorFormat::kCHW32) {
    found = Format::kInt8Chw32;
  } else {
    return false;
  }
  return true;
}

}  // namespace

LrnPlugin::LrnPlugin(const Attributes& attributes) noexcept : attributes_(attributes) {}

nvinfer1::IPluginCapability* LrnPlugin::getCapabilityInterface(nvinfer1::PluginCapabilityType type) noexcept {
  switch (type) {
    case nvinfer1::PluginCapabilityType::kCORE:
      return static_cast<nvinfer1::IPluginV3OneCore*>(this);
    case nvinfer1::PluginCapabilityType::kBUILD:
      return static_cast<nvinfer1::IPluginV3OneBuild*>(this);
    case nvinfer1::PluginCapabilityType::kRUNTIME:
      return static_cast<nvinfer1::IPluginV3OneRuntime*>(this);
  }
  return nullptr;
}

nvinfer1::IPluginV3* LrnPlugin::clone() noexcept { return new (std::nothrow) LrnPlugin(*this); }

char const* LrnPlugin::getPluginName() const noexcept { return name_of(attributes_.fused); }
char const* LrnPlugin::getPluginVersion() const noexcept { return kVersion; }
char const* LrnPlugin::getPluginNamespace() const noexcept { return kNamespace; }

int32_t LrnPlugin::getNbOutputs() const noexcept { return 1; }

int32_t LrnPlugin::getOutputDataTypes(DataType* outputs, int32_t output_count, DataType const* inputs,
                                      int32_t input_count) const noexcept {
  if (input_count != 1 || output_count != 1) {
    log_error(getPluginName(), "it takes one tensor and gives one, not %d and %d", input_count, output_count);
    return -1;
  }
  outputs[0] = inputs[0];
  return 0;
}

int32_t LrnPlugin::getOutputShapes(nvinfer1::DimsExprs const* inputs, int32_t input_count, nvinfer1::DimsExprs const*,
                                   int32_t, nvinfer1::DimsExprs* outputs, int32_t output_count,
                                   nvinfer1::IExprBuilder& builder) noexcept {
  if (input_count != 1 || output_count != 1 || inputs[0].nbDims != 4) {
    log_error(getPluginName(), "it takes batch, channels, height and width, not %d dimensions",
              input_count == 1 ? static_cast<int>(inputs[0].nbDims) : 0);
    return -1;
  }
  outputs[0] = inputs[0];
  if (!attributes_.fused) return 0;
  PoolAttributes const& pool = attributes_.pool;
  for (int axis = 0; axis < 2; ++axis) {  // floor((length + pads - kernel) / stride) + 1
    using nvinfer1::DimensionOperation;
    const auto more = builder.constant(pool.pads[axis] + pool.pads[axis + 2] - pool.kernel[axis]);
    const auto room = builder.operation(DimensionOperation::kSUM, *inputs[0].d[axis + 2], *more);
    const auto steps = builder.operation(DimensionOperation::kFLOOR_DIV, *room, *builder.constant(pool.strides[axis]));
    outputs[0].d[axis + 2] = builder.operation(DimensionOperation::kSUM, *steps, *builder.constant(1));
  }
  return 0;
}

bool LrnPlugin::serves(nvinfer1::PluginTensorDesc const& tensor) const noexcept {
  Format format{};
  return tensor.dims.nbDims == 4 && format_of(tensor.type, tensor.format, format) &&
         problem_with(attributes_.lrn, tensor.type == DataType::kINT8) == nullptr;
}

bool LrnPlugin::supportsFormatCombination(int32_t position, nvinfer1::DynamicPluginTensorDesc const* tensors,
                                          int32_t input_count, int32_t output_count) noexcept {
  if (input_count != 1 || output_count != 1 || position < 0 || position > 1) return false;
  nvinfer1::PluginTensorDesc const& tensor = tensors[position].desc;
  if (position == 0) return serves(tensor);
  return tensor.type == tensors[0].desc.type && tensor.format == tensors[0].desc.format;
}

int32_t LrnPlugin::configurePlugin(nvinfer1::DynamicPluginTensorDesc const* inputs, int32_t input_count,
                                   nvinfer1::DynamicPluginTensorDesc const* outputs, int32_t output_count) noexcept {
  if (input_count != 1 || output_count != 1 || inputs[0].desc.dims.nbDims != 4 || outputs[0].desc.dims.nbDims != 4) {
    log_error(getPluginName(), "it takes and gives batch, channels, height and width");
    return -1;
  }
  return 0;
}

int32_t LrnPlugin::onShapeChange(nvinfer1::PluginTensorDesc const* inputs, int32_t input_count,
                                 nvinfer1::PluginTensorDesc const* outputs, int32_t output_count) noexcept {
  if (input_count != 1 || output_count != 1 || !serves(inputs[0]) || outputs[0].type != inputs[0].type ||
      outputs[0].format != inputs[0].format) {
    log_error(getPluginName(), "it was given types or formats that it does not support");
    return -1;
  }
  const Shape in = shape_of(inputs[0].dims), out = shape_of(outputs[0].dims);
  const Shape want = attributes_.fused ? pooled(in, attributes_.pool) : in;
  if (out.batch != want.batch || out.channels != want.channels || out.height != want.height ||
      out.width != want.width || want.height < 1 || want.width < 1) {
    log_error(getPluginName(), "its answer is %dx%d, and it was given room for %dx%d", want.height, want.width,
              out.height, out.width);
    return -1;
  }
  return 0;
}

int32_t LrnPlugin::enqueue(nvinfer1::PluginTensorDesc const* inputs, nvinfer1::PluginTensorDesc const*,
                           void const* const* x, void* const* y, void*, cudaStream_t stream) noexcept {
  Format format{};
  if (!format_of(inputs[0].type, inputs[0].format, format)) {
    log_error(getPluginName(), "it was given a type or format that it does not support");
    return -1;
  }
  const Shape shape = shape_of(inputs[0].dims);
  const cudaError_t error =
      attributes_.fused
          ? lrn_max_pool(x[0], y[0], format, shape, attributes_.lrn, attributes_.pool, multiprocessors_, stream)
          : lrn(x[0], y[0], format, shape, attributes_.lrn, multiprocessors_, stream);
  if (error != cudaSuccess) {
    log_error(getPluginName(), "its kernel was not launched: %s", cudaGetErrorString(error));
    return -1;
  }
  return 0;
}

nvinfer1::IPluginV3* LrnPlugin::attachToContext(nvinfer1::IPluginResourceContext*) noexcept {
  auto* const attached = new (std::nothrow) LrnPlugin(*this);
  int device = 0;
  if (attached != nullptr && cudaGetDevice(&device) == cudaSuccess) {
    cudaDeviceGetAttribute(&attached->multiprocessors_, cudaDevAttrMultiProcessorCount, device);
  }
  return attached;
}

nvinfer1::PluginFieldCollection const* LrnPlugin::getFieldsToSerialize() noexcept {
  try {
    fields_.clear();
    for (FieldAt const& each : fields_of(attributes_)) {
      fields_.emplace_back(each.name, each.place, each.type, each.length);
    }
  } catch (...) {
    return nullptr;
  }
  collection_ = {static_cast<int32_t>(fields_.size()), fields_.data()};
  return &collection_;
}

LrnCreator::LrnCreator(bool fused) noexcept : fused_(fused) {}

nvinfer1::IPluginV3* LrnCreator::createPlugin(char const*, nvinfer1::PluginFieldCollection const* fields,
                                              nvinfer1::TensorRTPhase) noexcept {
  try {
    Attributes attributes;
    attributes.fused = fused_;
    if (fields == nullptr || !read_fields(attributes, *fields)) return nullptr;
    const bool int8 = attributes.lrn.input_scale != 0 || attributes.lrn.output_scale != 0;
    char const* problem = problem_with(attributes.lrn, int8);
    if (problem == nullptr && fused_) problem = problem_with(attributes.pool);
    if (problem != nullptr) {
      log_error(getPluginName(), "%s", problem);
      return nullptr;
    }
    return new LrnPlugin(attributes);
  } catch (...) {
    log_error(getPluginName(), "out of memory");
    return nullptr;
  }
}

nvinfer1::PluginFieldCollection const* LrnCreator::getFieldNames() noexcept {
  try {
    if (fields_.empty()) {
      Attributes attributes;
      attributes.fused = fused_;
      for (FieldAt const& each : fields_of(attributes)) {
        fields_.emplace_back(each.name, nullptr, each.type, each.length);
      }
    }
  } catch (...) {
    return nullptr;
  }
  collection_ = {static_cast<int32_t>(fields_.size()), fields_.data()};
  return &collection_;
}

char const* LrnCreator::getPluginName() const noexcept { return name_of(fused_); }
char const* LrnCreator::getPluginVersion() const noexcept { return kVersion; }
char const* LrnCreator::getPluginNamespace() const noexcept { return kNamespace; }

}  // namespace dlcv

// What the library says of itself; found by reading the file's bytes, without loading it.
#define DLCV_TEXT_(x) #x
#define DLCV_TEXT(x) DLCV_TEXT_(x)
extern "C" __attribute__((visibility("default"), used)) char const dlcv_plugin_info[] =
    "DLCV_PLUGIN_INFO{\"schema\":1,\"tensorrt\":\"" DLCV_TEXT(NV_TENSORRT_MAJOR) "." DLCV_TEXT(
        NV_TENSORRT_MINOR) "." DLCV_TEXT(NV_TENSORRT_PATCH) "\",\"architectures\":[" DLCV_ARCHITECTURES
                                                            "],\"cuda\":\"" DLCV_CUDA "\",\"source\":\"" DLCV_SOURCE
                                                            "\"}";

// What TensorRT looks for in a plugin library.
extern "C" __attribute__((visibility("default"))) nvinfer1::IPluginCreatorInterface* const* getCreators(
    int32_t& count) noexcept {
  static dlcv::LrnCreator lrn{false}, lrn_max_pool{true};
  static nvinfer1::IPluginCreatorInterface* const creators[] = {&lrn, &lrn_max_pool};
  count = 2;
  return creators;
}

extern "C" __attribute__((visibility("default"))) void setLoggerFinder(nvinfer1::ILoggerFinder* finder) noexcept {
  dlcv::logger_finder = finder;
}
