#include "dlcv/engine.hpp"

#include <algorithm>
#include <utility>

#include "backend.hpp"
#include "messages.hpp"
#include "native_error.hpp"
#include "preprocess.hpp"

namespace dlcv {

struct Engine::State {
  Manifest manifest;
  std::string backend;
  std::int64_t least = 1, most = 1;  // rows in one call of the session
  std::vector<std::string> labels;
  std::unique_ptr<Session> session;
};

namespace {

std::vector<std::string> lines_of(const Bytes& text) {
  std::vector<std::string> lines;
  for (auto at = text.begin(); at != text.end();) {
    auto end = std::find(at, text.end(), '\n');
    lines.emplace_back(at, end);
    if (!lines.back().empty() && lines.back().back() == '\r') lines.back().pop_back();
    at = end == text.end() ? end : end + 1;
  }
  return lines;
}

// As preflight.error_of.
ErrorKind kind_of(const Finding& finding) {
  const std::string& code = finding.code;
  if (finding.backend.empty() || code == "plugin_missing" || code == "plugin_other") return ErrorKind::artifact;
  return code == "engine_none" ? ErrorKind::request : ErrorKind::missing;
}

// Why nothing of a bundle runs here: the first that was found.
Error unfit(const std::filesystem::path& bundle, const std::vector<Finding>& findings) {
  if (findings.empty())
    return Error(ErrorKind::artifact, "", bundle.string() + " holds no engine",
                 "build it again with dlcv-deploy build --force");
  const Finding& told = findings.front();
  return Error(kind_of(told), told.code, told.what, told.fix);
}

const Backend& linked(const std::string& name) {
  const auto& all = backends();
  const auto found = std::find_if(all.begin(), all.end(), [&](const Backend& b) { return name == b.name; });
  if (found == all.end())
    throw Error(ErrorKind::missing, "", "this library was built without " + name, "build it again with its SDK");
  return *found;
}

void check(const LoadOptions& options) {
  const auto refuse = [](const char* name, int value, int least) {
    if (value < least)
      throw Error(ErrorKind::request, "", std::string(name) + " is " + std::to_string(value),
                  "give " + std::to_string(least) + " or more");
  };
  refuse("device", options.device, 0);
  refuse("threads", options.threads, 0);
  refuse("streams", options.streams, 1);
}

// Where a manifest contradicts itself or its labels; empty where it does not.
std::string disagreement(const Manifest& manifest, std::size_t labels) {
  const std::int64_t size = manifest.preprocess.size;
  if (manifest.inputs.empty() || manifest.outputs.empty()) return "the network has no input or no output";
  if (manifest.inputs.front().shape != std::vector<std::int64_t>{3, size, size})
    return "the network takes no images of " + std::to_string(size) + " x " + std::to_string(size) + " pixels";
  if (manifest.outputs.front().shape != std::vector<std::int64_t>{static_cast<std::int64_t>(labels)})
    return "there are " + std::to_string(labels) + " labels, and the network answers otherwise";
  return "";
}

}  // namespace

Engine Engine::load(const std::filesystem::path& bundle, const LoadOptions& options) {
  check(options);
  Checked checked = check_bundle(bundle, Host::here(options.device), options.backend);
  if (checked.backend.empty()) throw unfit(bundle, checked.findings);
  auto state = std::make_unique<State>();
  state->manifest = std::move(checked.manifest);
  state->backend = checked.backend;
  const Manifest& manifest = state->manifest;
  if (manifest.inputs.size() > 1)
    throw Error(ErrorKind::request, "", "the network takes several inputs, and no single image",
                "run the engine's files in the bundle with the tool that they are for");
  state->labels = lines_of(file_of(checked.files, state->backend, "labels.txt"));
  const std::string why = disagreement(manifest, state->labels.size());
  if (!why.empty())
    throw error(ErrorKind::artifact, message("manifest_damaged", {{"path", bundle.string()}, {"why", why}}));
  const EngineEntry& entry = manifest.engines.at(state->backend);
  state->least = entry.batch[0];
  state->most = entry.batch[2];
  state->session = linked(state->backend).load(entry, manifest, checked.files, options);
  return Engine(std::move(state));
}

Engine::Engine(std::unique_ptr<State> state) : state_(std::move(state)) {}
Engine::Engine(Engine&&) noexcept = default;
Engine& Engine::operator=(Engine&&) noexcept = default;
Engine::~Engine() = default;

const std::string& Engine::model() const { return state_->manifest.model; }
const std::string& Engine::precision() const { return state_->manifest.precision; }
const std::string& Engine::backend() const { return state_->backend; }
const std::vector<std::string>& Engine::labels() const { return state_->labels; }
const TensorInfo& Engine::input() const { return state_->manifest.inputs.front(); }
const std::vector<TensorInfo>& Engine::outputs() const { return state_->manifest.outputs; }
std::int64_t Engine::max_batch() const { return state_->most; }

std::vector<float> Engine::preprocess(const Image& image, int crops) const {
  return to_input(image, state_->manifest.preprocess, crops);
}

std::vector<Prediction> Engine::classify(const Image& image, int top, int crops) const {
  const std::vector<float> rows = preprocess(image, crops);
  const auto found = run(rows.data(), static_cast<std::size_t>(crops));
  return top_of(found.front().data(), crops, labels(), top);
}

std::vector<std::vector<Prediction>> Engine::classify(const std::vector<Image>& images, int top, int crops) const {
  std::vector<std::vector<Prediction>> answers;
  answers.reserve(images.size());
  const std::size_t together = std::max<std::size_t>(1, static_cast<std::size_t>(max_batch() / std::max(crops, 1)));
  const std::size_t values = outputs().front().size() * static_cast<std::size_t>(crops);
  std::vector<float> rows;
  for (std::size_t at = 0; at < images.size(); at += together) {
    const std::size_t count = std::min(together, images.size() - at);
    rows.clear();
    for (std::size_t i = at; i < at + count; ++i) {
      const std::vector<float> input = preprocess(images[i], crops);
      rows.insert(rows.end(), input.begin(), input.end());
    }
    const auto found = run(rows.data(), count * static_cast<std::size_t>(crops));
    for (std::size_t i = 0; i < count; ++i)
      answers.push_back(top_of(found.front().data() + i * values, crops, labels(), top));
  }
  return answers;
}

std::vector<std::vector<float>> Engine::run(const float* input, std::size_t rows) const {
  std::vector<std::vector<float>> found;
  std::vector<float*> into;
  for (const auto& output : outputs()) {
    found.emplace_back(rows * output.size());
    into.push_back(found.back().data());
  }
  run(input, rows, into.data());
  return found;
}

void Engine::run(const float* input, std::size_t rows, float* const* outputs) const {
  const auto least = static_cast<std::size_t>(state_->least), most = static_cast<std::size_t>(state_->most);
  const auto& infos = this->outputs();
  std::vector<float*> into(outputs, outputs + infos.size());
  std::size_t left = rows;
  while (left >= least && left > 0) {
    const std::size_t count = std::min(left, most);
    state_->session->run(input, static_cast<std::int64_t>(count), into.data());
    input += count * this->input().size();
    for (std::size_t i = 0; i < infos.size(); ++i) into[i] += count * infos[i].size();
    left -= count;
  }
  if (left == 0) return;
  std::vector<float> padded(least * this->input().size());  // rows of zeros behind those that are too few
  std::copy_n(input, left * this->input().size(), padded.begin());
  std::vector<std::vector<float>> found;
  std::vector<float*> whole;
  for (const auto& info : infos) {
    found.emplace_back(least * info.size());
    whole.push_back(found.back().data());
  }
  state_->session->run(padded.data(), state_->least, whole.data());
  for (std::size_t i = 0; i < infos.size(); ++i) std::copy_n(found[i].begin(), left * infos[i].size(), into[i]);
}

}  // namespace dlcv
