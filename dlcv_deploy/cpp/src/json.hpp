// JSON as a tree of plain values; nlohmann-json, which is slow to compile, is behind it.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace dlcv {

struct Json {
  enum class Kind { null, boolean, integer, real, text, array, object };

  Kind kind = Kind::null;
  bool boolean = false;
  std::int64_t integer = 0;
  double real = 0;
  std::string text;
  std::vector<Json> items;
  std::map<std::string, Json> fields;  // in the order of their names as bytes

  // A field, nullptr where it is not there or this is no object.
  const Json* find(const std::string& name) const;

  // Of trusted JSON: a field that is missing is a bug, std::logic_error.
  const Json& at(const std::string& name) const;
};

// Parse a document as manifest.py has it: RFC 8259 in strict UTF-8 without a byte order mark, at most 32 deep, no
// number beyond a double (integers beyond 64 bits are real), no name twice in one object. False where it is none.
bool parse(const void* data, std::size_t bytes, Json& into);

// A string as JSON has it, quotes included; ASCII alone.
std::string quoted(const std::string& text);

}  // namespace dlcv
