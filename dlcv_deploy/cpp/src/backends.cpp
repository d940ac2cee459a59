// The backends that this library was built with, the one to take first in front.
#include "backend.hpp"

namespace dlcv {

#if defined(DLCV_WITH_TENSORRT) || defined(DLCV_WITH_TENSORRT_RTX)
Backend tensorrt_backend();  // tensorrt.cpp
#endif
#ifdef DLCV_WITH_OPENVINO
Backend openvino_backend();  // openvino.cpp
#endif

const std::vector<Backend>& backends() {
  static const std::vector<Backend> all = {
#if defined(DLCV_WITH_TENSORRT) || defined(DLCV_WITH_TENSORRT_RTX)
      tensorrt_backend(),
#endif
#ifdef DLCV_WITH_OPENVINO
      openvino_backend(),
#endif
  };
  return all;
}

}  // namespace dlcv
