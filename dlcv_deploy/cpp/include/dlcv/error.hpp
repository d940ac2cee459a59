// Errors of this library: what is wrong, and what to do about it.
#pragma once

#include <stdexcept>
#include <string>

namespace dlcv {

// As the exit codes of the command line.
enum class ErrorKind { request = 2, missing = 3, tool = 4, artifact = 5 };

// The one exception this library throws on purpose. `code` names the message for machines (messages.json); it is empty
// where the words are not of that table. `what()` has both lines.
class Error : public std::runtime_error {
 public:
  Error(ErrorKind kind, std::string code, const std::string& message, const std::string& fix)
      : std::runtime_error(fix.empty() ? message : message + "\n  fix: " + fix),
        kind_(kind),
        code_(std::move(code)),
        message_(message),
        fix_(fix) {}

  ErrorKind kind() const noexcept { return kind_; }
  const std::string& code() const noexcept { return code_; }
  const std::string& message() const noexcept { return message_; }
  const std::string& fix() const noexcept { return fix_; }

 private:
  ErrorKind kind_;
  std::string code_, message_, fix_;
};

}  // namespace dlcv
