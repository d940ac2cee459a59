#include "json.hpp"

#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string_view>

namespace dlcv {
namespace {

constexpr std::size_t kDeepest = 32;  // so that no document takes the stack

// Builds the tree as the parser walks over a document; a call that returns false ends it.
class Reader : public nlohmann::json_sax<nlohmann::json> {
 public:
  explicit Reader(Json& root) : root_(root) {}

  bool null() override { return place(Json::Kind::null) != nullptr; }
  bool boolean(bool value) override { return set(Json::Kind::boolean, &Json::boolean, value); }
  bool number_integer(std::int64_t value) override { return set(Json::Kind::integer, &Json::integer, value); }
  bool number_unsigned(std::uint64_t value) override {
    if (value > static_cast<std::uint64_t>(INT64_MAX)) return number_float(static_cast<double>(value), {});
    return number_integer(static_cast<std::int64_t>(value));
  }
  bool number_float(double value, const std::string&) override { return set(Json::Kind::real, &Json::real, value); }
  bool string(std::string& value) override { return set(Json::Kind::text, &Json::text, std::move(value)); }
  bool binary(binary_t&) override { return false; }
  bool start_object(std::size_t) override { return enter(Json::Kind::object); }
  bool start_array(std::size_t) override { return enter(Json::Kind::array); }
  bool end_object() override { return leave(); }
  bool end_array() override { return leave(); }
  bool key(std::string& name) override {
    const auto [at, is_new] = open_.back()->fields.try_emplace(name);
    field_ = &at->second;
    return is_new;
  }
  bool parse_error(std::size_t, const std::string&, const nlohmann::json::exception&) override { return false; }

 private:
  // The next value's place. Open containers do not move: nothing is appended to those around the innermost.
  Json* place(Json::Kind kind) {
    Json* value = &root_;
    if (!open_.empty()) value = open_.back()->kind == Json::Kind::array ? &open_.back()->items.emplace_back() : field_;
    value->kind = kind;
    return value;
  }

  template <typename T>
  bool set(Json::Kind kind, T Json::* member, T value) {
    place(kind)->*member = std::move(value);
    return true;
  }

  bool enter(Json::Kind kind) {
    if (open_.size() == kDeepest) return false;
    open_.push_back(place(kind));
    return true;
  }

  bool leave() {
    open_.pop_back();
    return true;
  }

  Json& root_;
  std::vector<Json*> open_;
  Json* field_ = nullptr;
};

}  // namespace

const Json* Json::find(const std::string& name) const {
  const auto found = fields.find(name);
  return found == fields.end() ? nullptr : &found->second;
}

const Json& Json::at(const std::string& name) const {
  if (const Json* found = find(name)) return *found;
  throw std::logic_error("no field " + name + " in the JSON of this library");
}

bool parse(const void* data, std::size_t bytes, Json& into) {
  into = {};
  Reader reader(into);
  const auto* begin = static_cast<const char*>(data);
  const std::string_view text(begin, bytes);
  // both of which nlohmann-json passes over, or takes for the end
  if (text.substr(0, 3) == "\xEF\xBB\xBF" || text.find('\0') != std::string_view::npos) return false;
  return nlohmann::json::sax_parse(begin, begin + bytes, &reader);
}

std::string quoted(const std::string& text) {
  return nlohmann::json(text).dump(-1, ' ', true, nlohmann::json::error_handler_t::replace);
}

}  // namespace dlcv
