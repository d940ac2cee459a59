// What the library finds, for the Python tests to compare. Arguments: a file of cases, three lines each: a bundle's
// path, a backend or nothing, a host as JSON. Each gives a line of JSON. Without arguments: the host that this machine
// is.
#include <fstream>
#include <iostream>
#include <string>

#include "bundle.hpp"
#include "json.hpp"

namespace {

std::string told(const dlcv::Host& host) {
  std::string out = "{\"machine\": " + dlcv::quoted(host.machine) + ", \"runtimes\": {";
  for (const auto& [backend, version] : host.runtimes)
    out += (out.back() == '{' ? "" : ", ") + dlcv::quoted(backend) + ": " + dlcv::quoted(version);
  out += "}, \"memory_bytes\": " + std::to_string(host.memory_bytes);
  out += ", \"no_gpu\": " + dlcv::quoted(host.no_gpu) + ", \"gpu\": ";
  if (!host.gpu) return out + "null}";
  return out + "{\"name\": " + dlcv::quoted(host.gpu->name) + ", \"sm\": " + std::to_string(host.gpu->sm) +
         ", \"memory_bytes\": " + std::to_string(host.gpu->memory_bytes) +
         ", \"cuda\": " + std::to_string(host.gpu->cuda) + "}}";
}

std::string told(const dlcv::Checked& checked) {
  std::string out = "{\"findings\": " + dlcv::to_json(checked.findings);
  out += ", \"backend\": " + dlcv::quoted(checked.backend) + ", \"files\": {";
  for (const auto& [name, data] : checked.files)
    out += (out.back() == '{' ? "" : ", ") + dlcv::quoted(name) + ": " +
           dlcv::quoted(std::string(data.begin(), data.end()));
  return out + "}}";
}

}  // namespace

int main(int count, char** arguments) {
  if (count == 1) {
    std::cout << told(dlcv::Host::here()) << '\n';
    return 0;
  }
  std::ifstream cases(arguments[1], std::ios::binary);
  for (std::string path, backend, host; std::getline(cases, path);) {
    std::getline(cases, backend);
    std::getline(cases, host);
    const dlcv::Host machine = dlcv::host_from_json(host);
    const dlcv::Checked checked = dlcv::check_bundle(path, machine, backend);
    if (dlcv::to_json(dlcv::preflight(path, machine, backend)) != dlcv::to_json(checked.findings)) return 1;
    std::cout << told(checked) << '\n';
  }
  return 0;
}
