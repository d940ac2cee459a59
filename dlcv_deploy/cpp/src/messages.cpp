#include "messages.hpp"

#include <algorithm>
#include <cstring>
#include <stdexcept>

#include "json.hpp"

namespace dlcv {

extern const char* const kTable;  // table.cpp, which CMake writes

namespace {

const Json& table() {
  static const Json read = [] {
    Json document;
    if (!parse(kTable, std::strlen(kTable), document)) throw std::logic_error("messages.json is no JSON");
    return document;
  }();
  return read;
}

// Each {name} replaced, from left to right; what a value holds is not looked at again.
std::string filled(const std::string& text, const std::map<std::string, std::string>& values) {
  std::string out;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t open = std::min(text.find('{', at), text.size());
    out.append(text, at, open - at);
    if (open == text.size()) break;
    const std::size_t close = text.find('}', open);
    const auto value = values.find(text.substr(open + 1, close - open - 1));
    if (close == std::string::npos || value == values.end()) throw std::logic_error("no value for: " + text);
    out += value->second;
    at = close + 1;
  }
  return out;
}

}  // namespace

Message message(const std::string& code, const std::map<std::string, std::string>& values) {
  const Json& entry = table().at("messages").at(code);
  return {code, filled(entry.at("what").text, values), filled(entry.at("fix").text, values)};
}

Error error(ErrorKind kind, const Message& message) { return Error(kind, message.code, message.what, message.fix); }

Message cause_of(const std::string& tool, const std::string& text) {
  for (const Json& entry : table().at("causes").items) {
    const auto& tools = entry.at("tools").items;
    const auto& parts = entry.at("all").items;
    const bool its = std::any_of(tools.begin(), tools.end(), [&](const Json& name) { return name.text == tool; });
    const bool said = std::all_of(parts.begin(), parts.end(),
                                  [&](const Json& part) { return text.find(part.text) != std::string::npos; });
    if (its && said) return {entry.at("code").text, entry.at("what").text, entry.at("fix").text};
  }
  return {};
}

}  // namespace dlcv
