// Plays TensorRT's part against the plugin's library, without TensorRT and
// without a GPU.
//
//   glue LIBRARY OP "size=i5 alpha=f1e-4 kernel_shape=i3,3 ..."
//
// Prints what the plugin says, a line each: log, fields (of the plugin, its
// clone, one attached to a context, and one made again from serialized fields),
// types, formats, shapes, changes.
#include <NvInferRuntime.h>
#include <dlfcn.h>

#include <cstdio>
#include <cstring>
#include <deque>
#include <iostream>
#include <sstream>
#include <string>
#include <vector>

using namespace nvinfer1;

namespace {

struct Logger : ILogger, ILoggerFinder {
  void log(Severity, char const* message) noexcept override { std::cout << "log " << message << "\n"; }
  ILogger* findLogger() override { return this; }
} logger;

struct Length : IDimensionExpr, apiv::VDimensionExpr {
  explicit Length(int64_t value_) : value(value_) { mImpl = this; }
  bool isConstant() const override { return true; }
  int64_t getConstantValue() const override { return value; }
  bool isSizeTensor() const override { return false; }
  int64_t value;
};

struct Builder : IExprBuilder, apiv::VExprBuilder {
  Builder() { mImpl = this; }
  IDimensionExpr const* constant(int64_t value) override { return &made.emplace_back(value); }
  IDimensionExpr const* operation(DimensionOperation op, IDimensionExpr const& a, IDimensionExpr const& b) override {
    const int64_t x = a.getConstantValue(), y = b.getConstantValue();
    switch (op) {
      case DimensionOperation::kSUM:
        return constant(x + y);
      case DimensionOperation::kFLOOR_DIV:
        return constant(x / y);
      default:
        std::abort();
    }
  }
  IDimensionExpr const* declareSizeTensor(int32_t, IDimensionExpr const&, IDimensionExpr const&) override {
    std::abort();
  }
  std::deque<Length> made;
};

struct Fields {
  std::deque<std::vector<int32_t>> data;
  std::deque<std::string> names;
  std::vector<PluginField> fields;
};

Fields parsed(std::string const& text) {
  Fields found;
  std::istringstream words(text);
  for (std::string word; words >> word;) {
    const auto equals = word.find('=');
    found.names.push_back(word.substr(0, equals));
    const bool integers = word[equals + 1] == 'i';
    auto& data = found.data.emplace_back();
    std::istringstream numbers(word.substr(equals + 2));
    for (std::string number; std::getline(numbers, number, ',');) {
      const float real = std::stof(number);
      int32_t bits = integers ? std::stoi(number) : 0;
      if (!integers) std::memcpy(&bits, &real, 4);
      data.push_back(bits);
    }
    found.fields.emplace_back(found.names.back().c_str(), data.data(),
                              integers ? PluginFieldType::kINT32 : PluginFieldType::kFLOAT32,
                              static_cast<int32_t>(data.size()));
  }
  return found;
}

template <class Interface>
Interface* capability(IPluginV3* plugin, PluginCapabilityType type) {
  return static_cast<Interface*>(plugin->getCapabilityInterface(type));
}

PluginFieldCollection const* serialized(IPluginV3* plugin) {
  return capability<IPluginV3OneRuntime>(plugin, PluginCapabilityType::kRUNTIME)->getFieldsToSerialize();
}

void print_fields(char const* what, IPluginV3* plugin) {
  std::cout << "fields " << what;
  auto const* const all = serialized(plugin);
  for (int32_t i = 0; i < all->nbFields; ++i) {
    PluginField const& field = all->fields[i];
    std::cout << " " << field.name << "=";
    for (int32_t k = 0; k < field.length; ++k) {
      std::cout << (k ? "," : "");
      if (field.type == PluginFieldType::kINT32) std::cout << static_cast<int32_t const*>(field.data)[k];
      if (field.type == PluginFieldType::kFLOAT32) std::cout << static_cast<float const*>(field.data)[k];
    }
  }
  std::cout << "\n";
}

PluginTensorDesc tensor(DataType type, TensorFormat format, std::vector<int64_t> const& sizes) {
  PluginTensorDesc found{};
  found.dims.nbDims = static_cast<int32_t>(sizes.size());
  for (size_t i = 0; i < sizes.size(); ++i) found.dims.d[i] = sizes[i];
  found.type = type;
  found.format = format;
  return found;
}

void print_formats(IPluginV3OneBuild* build) {
  std::cout << "formats";
  for (int type = 0; type < 10; ++type) {
    for (int format = 0; format < 13; ++format) {
      DynamicPluginTensorDesc both[2]{};
      both[0].desc = both[1].desc =
          tensor(static_cast<DataType>(type), static_cast<TensorFormat>(format), {1, 8, 5, 5});
      const bool in = build->supportsFormatCombination(0, both, 1, 1);
      const bool out = build->supportsFormatCombination(1, both, 1, 1);
      both[1].desc.type = static_cast<DataType>((type + 1) % 10);
      const bool other = build->supportsFormatCombination(1, both, 1, 1);
      if (in && out && !other) std::cout << " " << type << ":" << format;
      if (in && (!out || other)) std::cout << " WRONG";
    }
  }
  DynamicPluginTensorDesc flat[2]{};
  flat[0].desc = flat[1].desc = tensor(DataType::kFLOAT, TensorFormat::kLINEAR, {1, 8, 5});
  std::cout << (build->supportsFormatCombination(0, flat, 1, 1) ? " 3D" : "") << "\n";
}

void print_shape(IPluginV3OneBuild* build, std::vector<int64_t> const& sizes) {
  Builder builder;
  DimsExprs in{}, out{};
  in.nbDims = static_cast<int32_t>(sizes.size());
  for (size_t i = 0; i < sizes.size(); ++i) in.d[i] = builder.constant(sizes[i]);
  const int32_t code = build->getOutputShapes(&in, 1, nullptr, 0, &out, 1, builder);
  std::cout << "shape " << code;
  for (int32_t i = 0; code == 0 && i < out.nbDims; ++i) std::cout << " " << out.d[i]->getConstantValue();
  std::cout << "\n";
}

}  // namespace

int main(int count, char** given) {
  if (count != 4) return 2;
  void* const library = dlopen(given[1], RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    std::cerr << dlerror() << "\n";
    return 2;
  }
  const auto creators = reinterpret_cast<IPluginCreatorInterface* const* (*)(int32_t&)>(dlsym(library, "getCreators"));
  reinterpret_cast<void (*)(ILoggerFinder*)>(dlsym(library, "setLoggerFinder"))(&logger);
  int32_t number = 0;
  auto const* const all = creators(number);
  IPluginCreatorV3One* creator = nullptr;
  for (int32_t i = 0; i < number; ++i) {
    auto* const each = static_cast<IPluginCreatorV3One*>(all[i]);
    if (std::strcmp(each->getPluginName(), given[2]) == 0) creator = each;
  }
  const Fields asked = parsed(given[3]);
  const PluginFieldCollection collection{static_cast<int32_t>(asked.fields.size()), asked.fields.data()};
  IPluginV3* const plugin = creator->createPlugin("node", &collection, TensorRTPhase::kBUILD);
  std::cout << "created " << (plugin != nullptr) << "\n";
  if (plugin == nullptr) return 0;

  auto* const build = capability<IPluginV3OneBuild>(plugin, PluginCapabilityType::kBUILD);
  auto* const run = capability<IPluginV3OneRuntime>(plugin, PluginCapabilityType::kRUNTIME);
  IPluginV3* const clone = plugin->clone();
  IPluginV3* const attached = run->attachToContext(nullptr);
  IPluginV3* const again = creator->createPlugin("node", serialized(plugin), TensorRTPhase::kRUNTIME);
  print_fields("plugin", plugin);
  print_fields("clone", clone);
  print_fields("attached", attached);
  print_fields("again", again);

  DataType type = DataType::kHALF, made = DataType::kFLOAT;
  build->getOutputDataTypes(&made, 1, &type, 1);
  const int32_t refused = build->getOutputDataTypes(&made, 1, &type, 2);
  std::cout << "types " << (made == type) << " " << refused << "\n";
  print_formats(build);
  print_shape(build, {2, 96, 55, 55});
  print_shape(build, {2, 96, 56, 13});
  print_shape(build, {96, 55, 55});

  PluginTensorDesc in = tensor(DataType::kFLOAT, TensorFormat::kLINEAR, {2, 96, 55, 55}), out = in;
  const int32_t same = run->onShapeChange(&in, 1, &out, 1);
  out.dims.d[2] = out.dims.d[3] = 27;
  const int32_t pooled = run->onShapeChange(&in, 1, &out, 1);
  in.type = out.type = DataType::kINT32;
  const int32_t other = run->onShapeChange(&in, 1, &out, 1);
  std::cout << "changes " << same << " " << pooled << " " << other << "\n";
  delete plugin;
  delete clone;
  delete attached;
  delete again;
  return 0;
}
