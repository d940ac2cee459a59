// The sentences that this library shares with the Python package: messages.json, embedded when it is compiled.
#pragma once

#include <map>
#include <string>

#include "dlcv/error.hpp"

namespace dlcv {

struct Message {
  std::string code, what, fix;
};

// A message of the table with its values filled in. A code or value that is missing is a bug: std::logic_error.
Message message(const std::string& code, const std::map<std::string, std::string>& values = {});

Error error(ErrorKind kind, const Message& message);

// What a native tool's message means: its cause and fix in the words of the table; empty code where it is not known.
Message cause_of(const std::string& tool, const std::string& text);

}  // namespace dlcv
