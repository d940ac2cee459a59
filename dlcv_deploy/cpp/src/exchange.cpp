// Hosts and findings as JSON, as Python's dataclasses.asdict has them.
#include <stdexcept>

#include "bundle.hpp"
#include "json.hpp"

namespace dlcv {

Host host_from_json(const std::string& text) {
  Json document;
  if (!parse(text.data(), text.size(), document)) throw std::invalid_argument("the host is no JSON");
  Host host;
  host.machine = document.at("machine").text;
  host.memory_bytes = static_cast<std::uint64_t>(document.at("memory_bytes").integer);
  for (const auto& [backend, version] : document.at("runtimes").fields) host.runtimes[backend] = version.text;
  host.no_gpu = document.at("no_gpu").text;
  const Json& gpu = document.at("gpu");
  if (gpu.kind == Json::Kind::object)
    host.gpu = {gpu.at("name").text, static_cast<int>(gpu.at("sm").integer),
                static_cast<std::uint64_t>(gpu.at("memory_bytes").integer), static_cast<int>(gpu.at("cuda").integer)};
  return host;
}

std::string to_json(const std::vector<Finding>& findings) {
  std::string out = "[";
  for (const Finding& each : findings) {
    out += out.size() > 1 ? ", {" : "{";
    out += "\"code\": " + quoted(each.code) + ", \"what\": " + quoted(each.what) + ", \"fix\": " + quoted(each.fix);
    out += ", \"backend\": " + quoted(each.backend) + "}";
  }
  return out + "]";
}

}  // namespace dlcv
