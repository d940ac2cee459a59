#include "manifest.hpp"

#include <sys/stat.h>

#include <algorithm>
#include <initializer_list>

#include "descriptor.hpp"
#include "json.hpp"
#include "sha256.hpp"

namespace dlcv {
namespace {

constexpr std::int64_t kSchema = 4;
constexpr std::size_t kMostBytes = 16 << 20;
constexpr std::int64_t kMost = 2147483647;  // of all numbers but sizes of files
constexpr std::int64_t kMostSize = std::int64_t{1} << 53;

using Kind = Json::Kind;
using Right = bool (*)(const Json&);

struct Field {
  const char* name;
  Right right;
};

bool whole(const Json& v, std::int64_t low, std::int64_t high) {
  return v.kind == Kind::integer && low <= v.integer && v.integer <= high;
}

bool listed(const Json& v, Right each, std::size_t least = 0, std::size_t most = kMost) {
  return v.kind == Kind::array && least <= v.items.size() && v.items.size() <= most &&
         std::all_of(v.items.begin(), v.items.end(), each);
}

bool one_of(const Json& v, std::initializer_list<const char*> words) {
  return v.kind == Kind::text && std::any_of(words.begin(), words.end(), [&](const char* w) { return v.text == w; });
}

bool parts(const Json& v, std::initializer_list<Field> fields) {
  return v.kind == Kind::object && std::all_of(fields.begin(), fields.end(), [&](const Field& field) {
           const Json* held = v.find(field.name);
           return held != nullptr && field.right(*held);
         });
}

bool table(const Json& v, bool (*key)(const std::string&), Right value) {
  return v.kind == Kind::object && std::all_of(v.fields.begin(), v.fields.end(), [&](const auto& field) {
           return key(field.first) && value(field.second);
         });
}

// Text of at most 4096 bytes, without control characters.
bool plain(const std::string& text) {
  return text.size() <= 4096 && std::none_of(text.begin(), text.end(), [](char c) {
           const auto code = static_cast<unsigned char>(c);
           return code < 0x20 || code == 0x7f;
         });
}

// Whether it leaves the bundle is looked at later.
bool is_path(const std::string& text) { return plain(text) && !text.empty() && text.size() <= 1024; }

bool is_name(const std::string& text) {
  return is_path(text) && text.size() <= 255 && text != "." && text != ".." &&
         text.find_first_of("/\\:") == std::string::npos;
}

bool text(const Json& v) { return v.kind == Kind::text && plain(v.text); }
bool string(const Json& v) { return v.kind == Kind::text; }
bool flag(const Json& v) { return v.kind == Kind::boolean; }
bool path(const Json& v) { return v.kind == Kind::text && is_path(v.text); }
bool name(const Json& v) { return v.kind == Kind::text && is_name(v.text); }
bool size(const Json& v) { return whole(v, 0, kMostSize); }
bool positive(const Json& v) { return whole(v, 1, kMost); }
bool architecture(const Json& v) { return whole(v, 1, 999); }
bool pixels(const Json& v) { return whole(v, 1, 16384); }
bool number(const Json& v) { return v.kind == Kind::integer || v.kind == Kind::real; }

bool is_sha256(const std::string& text) {
  return text.size() == 64 && text.find_first_not_of("0123456789abcdef") == std::string::npos;
}

bool sha256(const Json& v) { return v.kind == Kind::text && is_sha256(v.text); }

double real(const Json& v) { return v.kind == Kind::integer ? static_cast<double>(v.integer) : v.real; }

bool tensor(const Json& v) {
  if (!parts(v, {{"name", text}, {"shape", [](const Json& s) { return listed(s, positive, 0, 8); }}, {"dtype", text}}))
    return false;
  std::int64_t values = 1;
  for (const Json& d : v.at("shape").items)
    if ((values *= d.integer) > kMost) return false;
  return true;
}

bool tensors(const Json& v) { return listed(v, tensor, 1); }

bool preprocess(const Json& v) {
  return parts(v, {{"size", pixels},
                   {"canvas", pixels},
                   {"fit", [](const Json& f) { return one_of(f, {"resize", "pad"}); }},
                   {"mean", [](const Json& m) { return listed(m, number, 3, 3); }},
                   {"std",
                    [](const Json& s) {
                      return listed(s, [](const Json& n) { return number(n) && real(n) > 0; }, 3, 3);
                    }}}) &&
         v.at("size").integer <= v.at("canvas").integer;
}

bool plugin(const Json& v) {
  return parts(v, {{"file", name},
                   {"sha256", sha256},
                   {"tensorrt", text},
                   {"architectures", [](const Json& a) { return listed(a, architecture, 1, 64); }},
                   {"ops", [](const Json& o) { return listed(o, text); }}});
}

bool engine(const Json& v) {
  if (!parts(v, {{"target", text},
                 {"sm", [](const Json& a) { return listed(a, architecture, 0, 64); }},
                 {"later", flag},
                 {"version", text},
                 {"notes", [](const Json& n) { return listed(n, string); }},
                 {"batch", [](const Json& b) { return listed(b, positive, 3, 3); }},
                 {"files", [](const Json& f) { return table(f, is_name, path); }}}))
    return false;
  const auto& batch = v.at("batch").items;
  const Json* called = v.find("plugin");
  return batch[0].integer <= batch[1].integer && batch[1].integer <= batch[2].integer &&
         (called == nullptr || plugin(*called));
}

bool file(const Json& v) { return parts(v, {{"bytes", size}, {"sha256", sha256}}); }

// In the order in which they are looked at.
constexpr Field kFields[] = {
    {"schema", size},
    {"model", text},
    {"precision", [](const Json& v) { return one_of(v, {"fp32", "fp16", "int8"}); }},
    {"weights", text},
    {"weights_sha256", text},
    {"trained", flag},
    {"preprocess", preprocess},
    {"inputs", tensors},
    {"outputs", tensors},
    {"classes", positive},
    {"engines", [](const Json& v) { return table(v, is_name, engine); }},
    {"build_key", text},
    {"tool_version", text},
    {"bgr", flag},
    {"files", [](const Json& v) { return table(v, is_path, file); }},
    {"factory", text},
    {"code_sha256", text},
    {"contract", [](const Json& v) { return listed(v, string); }},
};

std::vector<int> numbers(const Json& v) {
  std::vector<int> found;
  for (const Json& each : v.items) found.push_back(static_cast<int>(each.integer));
  return found;
}

std::vector<TensorInfo> tensors_of(const Json& v) {
  std::vector<TensorInfo> found;
  for (const Json& each : v.items) {
    TensorInfo& info = found.emplace_back();
    info.name = each.at("name").text;
    for (const Json& d : each.at("shape").items) info.shape.push_back(d.integer);
  }
  return found;
}

EngineEntry engine_of(const std::string& backend, const Json& v) {
  EngineEntry entry;
  entry.backend = backend;
  entry.target = v.at("target").text;
  entry.version = v.at("version").text;
  entry.sm = numbers(v.at("sm"));
  entry.later = v.at("later").boolean;
  for (std::size_t i = 0; i < entry.batch.size(); ++i) entry.batch[i] = v.at("batch").items[i].integer;
  for (const auto& [vendors, inside] : v.at("files").fields) entry.files[vendors] = inside.text;
  if (const Json* called = v.find("plugin")) {
    PluginEntry& plugin = entry.plugin.emplace();
    plugin.file = called->at("file").text;
    plugin.sha256 = called->at("sha256").text;
    plugin.tensorrt = called->at("tensorrt").text;
    plugin.architectures = numbers(called->at("architectures"));
    for (const Json& op : called->at("ops").items) plugin.ops.push_back(op.text);
  }
  return entry;
}

Manifest manifest_of(const Json& v) {
  Manifest manifest;
  manifest.model = v.at("model").text;
  manifest.precision = v.at("precision").text;
  const Json& pre = v.at("preprocess");
  manifest.preprocess.size = static_cast<int>(pre.at("size").integer);
  manifest.preprocess.canvas = static_cast<int>(pre.at("canvas").integer);
  manifest.preprocess.pad = pre.at("fit").text == "pad";
  for (std::size_t i = 0; i < 3; ++i) {
    manifest.preprocess.mean[i] = real(pre.at("mean").items[i]);
    manifest.preprocess.std[i] = real(pre.at("std").items[i]);
  }
  manifest.inputs = tensors_of(v.at("inputs"));
  manifest.outputs = tensors_of(v.at("outputs"));
  manifest.classes = static_cast<int>(v.at("classes").integer);
  for (const auto& [backend, entry] : v.at("engines").fields) manifest.engines[backend] = engine_of(backend, entry);
  for (const auto& [inside, entry] : v.at("files").fields)
    manifest.files[inside] = {static_cast<std::uint64_t>(entry.at("bytes").integer), entry.at("sha256").text};
  return manifest;
}

// Whether the last line is a digest, and not that of what is in front of it.
bool seal_is_broken(const Bytes& data) {
  const std::string before = ",\n  \"seal\": \"", behind = "\"\n}\n";
  const std::size_t seal = before.size() + 64 + behind.size();
  if (data.size() < seal) return false;
  const std::string end(data.end() - static_cast<std::ptrdiff_t>(seal), data.end());
  const std::string told = end.substr(before.size(), 64);
  if (end != before + told + behind || !is_sha256(told)) return false;
  Sha256 digest;
  digest.add(data.data(), data.size() - seal);
  return digest.hex() != told;
}

Message damaged(const std::string& bundle, const char* why, const std::map<std::string, std::string>& values = {}) {
  return message("manifest_damaged", {{"path", bundle}, {"why", message(why, values).what}});
}

}  // namespace

std::string shown(const std::filesystem::path& path) {
  const std::string& whole = path.native();
  const std::size_t slashes = std::min(whole.find_first_not_of('/'), whole.size());
  std::string out(slashes == 2 ? 2 : std::min<std::size_t>(slashes, 1), '/');  // exactly two are another root (POSIX)
  for (std::size_t at = slashes; at < whole.size();) {
    const std::size_t end = std::min(whole.find('/', at), whole.size());
    const std::string part = whole.substr(at, end - at);
    if (!part.empty() && part != ".") out += (out.empty() || out.back() == '/' ? "" : "/") + part;
    at = end + 1;
  }
  return out.empty() ? "." : out;
}

bool is_regular(const std::string& path) {
  struct stat found{};
  return path.find('\0') == std::string::npos && ::stat(path.c_str(), &found) == 0 && S_ISREG(found.st_mode);
}

std::optional<Message> read_manifest(const std::string& bundle, Manifest& into) {
  struct stat found{};
  if (bundle.find('\0') != std::string::npos || ::stat(bundle.c_str(), &found) != 0)
    return message("no_bundle", {{"path", bundle}});
  const std::string path = bundle + "/" + kManifest;
  if (!is_regular(path)) return message("not_a_bundle", {{"path", bundle}});
  Bytes data;
  const Descriptor file(path);
  if (!file.append(data, kMostBytes + 1)) return damaged(bundle, "damaged_read");
  if (data.size() > kMostBytes) return damaged(bundle, "damaged_large");
  if (seal_is_broken(data)) return damaged(bundle, "damaged_seal");
  Json document;
  if (!parse(data.data(), data.size(), document) || document.kind != Kind::object)
    return damaged(bundle, "damaged_json");
  const Json* schema = document.find("schema");
  if (schema != nullptr && size(*schema) && schema->integer != kSchema)
    return message("manifest_schema",
                   {{"path", bundle}, {"found", std::to_string(schema->integer)}, {"wanted", std::to_string(kSchema)}});
  for (const Field& field : kFields)
    if (!parts(document, {field})) return damaged(bundle, "damaged_field", {{"field", field.name}});
  into = manifest_of(document);
  return std::nullopt;
}

}  // namespace dlcv
