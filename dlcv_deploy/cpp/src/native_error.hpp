// Errors about engines and the native tools that run them, as backends/session.py and backends/blame.py word them.
#pragma once

#include <map>
#include <string>

#include "bundle.hpp"
#include "dlcv/error.hpp"

namespace dlcv {

// One of an engine's files by the vendor's name. Throws Error (artifact): it is absent, or empty where that cannot be.
const Bytes& file_of(const std::map<std::string, Bytes>& files, const std::string& backend, const std::string& name,
                     bool may_be_empty = false);

// The error for an engine that its own runtime does not take, with the cause of that runtime's words where it is known.
Error damaged(const std::string& backend, const std::string& why, const std::string& words = "");

// The error for what a tool would not do, with its words, and their cause where it is known.
Error refused(const std::string& tool, const std::string& backend, const std::string& what, const std::string& words);

// The start of a native message on one line.
std::string one_line(const std::string& words);

}  // namespace dlcv
