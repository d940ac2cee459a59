// A bundle's manifest.json, read by the rules of manifest.py.
#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "bundle.hpp"
#include "messages.hpp"

namespace dlcv {

constexpr const char* kManifest = "manifest.json";

// A path as Python shows it: "a//./b/" is "a/b".
std::string shown(const std::filesystem::path& path);

// Whether this is a file with content, or a link to one; a folder, pipe or device is not opened.
bool is_regular(const std::string& path);

// The manifest of the bundle in a folder, as `shown`; or why there is none to be used.
std::optional<Message> read_manifest(const std::string& bundle, Manifest& into);

}  // namespace dlcv
