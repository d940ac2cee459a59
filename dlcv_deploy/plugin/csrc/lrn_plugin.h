// DlcvLRN and DlcvLRNMaxPool as IPluginV3. Everything that computes is behind lrn_launch.h.
#pragma once

#include <NvInferRuntime.h>

#include <vector>

#include "lrn_launch.h"

namespace dlcv {

inline constexpr char const* kLrnName = "DlcvLRN";
inline constexpr char const* kLrnMaxPoolName = "DlcvLRNMaxPool";
inline constexpr char const* kVersion = "1";
inline constexpr char const* kNamespace = "";

// The attributes of either op, and whether the pool is there.
struct Attributes {
  bool fused = false;
  LrnAttributes lrn{5, 1e-4f, 0.75f, 1.0f, 0.0f, 0.0f};
  PoolAttributes pool{{1, 1}, {1, 1}, {0, 0, 0, 0}};
};

class LrnPlugin final : public nvinfer1::IPluginV3,
                        public nvinfer1::IPluginV3OneCore,
                        public nvinfer1::IPluginV3OneBuild,
                        public nvinfer1::IPluginV3OneRuntime {
 public:
  explicit LrnPlugin(const Attributes& attributes) noexcept;
  LrnPlugin(const LrnPlugin& other) noexcept : LrnPlugin(other.attributes_) {}
  LrnPlugin& operator=(const LrnPlugin&) = delete;
  ~LrnPlugin() override = default;

  nvinfer1::IPluginCapability* getCapabilityInterface(nvinfer1::PluginCapabilityType type) noexcept override;
  nvinfer1::IPluginV3* clone() noexcept override;

  char const* getPluginName() const noexcept override;
  char const* getPluginVersion() const noexcept override;
  char const* getPluginNamespace() const noexcept override;

  int32_t getNbOutputs() const noexcept override;
  int32_t getOutputDataTypes(nvinfer1::DataType* outputs, int32_t output_count, nvinfer1::DataType const* inputs,
                             int32_t input_count) const noexcept override;
  int32_t getOutputShapes(nvinfer1::DimsExprs const* inputs, int32_t input_count, nvinfer1::DimsExprs const* shapes,
                          int32_t shape_count, nvinfer1::DimsExprs* outputs, int32_t output_count,
                          nvinfer1::IExprBuilder& builder) noexcept override;
  bool supportsFormatCombination(int32_t position, nvinfer1::DynamicPluginTensorDesc const* tensors,
                                 int32_t input_count, int32_t output_count) noexcept override;
  int32_t configurePlugin(nvinfer1::DynamicPluginTensorDesc const* inputs, int32_t input_count,
                          nvinfer1::DynamicPluginTensorDesc const* outputs, int32_t output_count) noexcept override;

  int32_t onShapeChange(nvinfer1::PluginTensorDesc const* inputs, int32_t input_count,
                        nvinfer1::PluginTensorDesc const* outputs, int32_t output_count) noexcept override;
  int32_t enqueue(nvinfer1::PluginTensorDesc const* inputs, nvinfer1::PluginTensorDesc const* outputs,
                  void const* const* x, void* const* y, void* workspace, cudaStream_t stream) noexcept override;
  nvinfer1::IPluginV3* attachToContext(nvinfer1::IPluginResourceContext* context) noexcept override;
  nvinfer1::PluginFieldCollection const* getFieldsToSerialize() noexcept override;

 private:
  bool serves(nvinfer1::PluginTensorDesc const& tensor) const noexcept;

  Attributes attributes_;
  int multiprocessors_ = 0;
  std::vector<nvinfer1::PluginField> fields_;
  nvinfer1::PluginFieldCollection collection_{};
};

class LrnCreator final : public nvinfer1::IPluginCreatorV3One {
 public:
  explicit LrnCreator(bool fused) noexcept;
  nvinfer1::IPluginV3* createPlugin(char const* name, nvinfer1::PluginFieldCollection const* fields,
                                    nvinfer1::TensorRTPhase phase) noexcept override;
  nvinfer1::PluginFieldCollection const* getFieldNames() noexcept override;
  char const* getPluginName() const noexcept override;
  char const* getPluginVersion() const noexcept override;
  char const* getPluginNamespace() const noexcept override;

 private:
  bool fused_;
  std::vector<nvinfer1::PluginField> fields_;
  nvinfer1::PluginFieldCollection collection_{};
};

}  // namespace dlcv
