// The files of a bundle, against its manifest.
#pragma once

#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "bundle.hpp"
#include "messages.hpp"

namespace dlcv {

// Each file is read once; those that are kept are as they were written.
class Files {
 public:
  // Of the bundle in a folder, as `shown`. The manifest outlives this.
  Files(const std::string& bundle, const Manifest& manifest);

  // Read a file that was not read yet; its content where that is unaltered and is kept, else nullptr.
  const Bytes* read(const std::string& name, bool keep);

  // Read all that were not read yet, and tell of those that are not as they were written, in the order of their names.
  std::vector<Message> check(const std::set<std::string>& keep);

 private:
  std::optional<Message> look(const std::string& name, bool keep);
  std::optional<Message> content(const std::string& name, const std::string& path, bool keep);

  std::string bundle_, inside_;
  const Manifest& manifest_;
  std::map<std::string, std::optional<Message>> found_;
  std::map<std::string, Bytes> kept_;
};

}  // namespace dlcv
