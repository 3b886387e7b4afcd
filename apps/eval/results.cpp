#include "eval/results.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <optional>

#include "core/device.h"
#include "core/error.h"
#include "core/file.h"
#include "core/log.h"
#include "core/progress.h"
#include "inspect/table.h"
#include "io/json.h"
#include "io/model_folder.h"
#include "peft/methods.h"

namespace llmtk {
namespace {

/// The checksum of each file that is there, by name.
Json checksums(const fs::path& folder, const std::vector<std::string>& names) {
  Json found = Json::object();
  for (const std::string& name : names)
    if (fs::is_regular_file(folder / name)) found[name] = checksum_file(folder / name);
  return found;
}

std::vector<std::string> weight_files(const fs::path& folder) {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    if (name.ends_with(".safetensors") || name.ends_with(".safetensors.index.json")) names.push_back(name);
  }
  std::ranges::sort(names);
  return names;
}

Json describe_model(const fs::path& path) {
  if (!fs::is_directory(path)) return checksums(path.parent_path(), {path.filename().string()});
  std::vector<std::string> names = {"config.json", "generation_config.json"};
  std::ranges::copy(weight_files(path), std::back_inserter(names));
  return checksums(path, names);
}

Json describe_tokenizer(const ModelOptions& options, const fs::path& model) {
  fs::path path = options.tokenizer.empty() ? model : fs::path(options.tokenizer);
  if (!fs::exists(path)) path = io::find_model(options.tokenizer);
  if (!fs::is_directory(path)) return checksums(path.parent_path(), {path.filename().string()});
  return checksums(path, {std::begin(io::kTokenizerFiles), std::end(io::kTokenizerFiles)});
}

}  // namespace

Json describe_run(const char* command, const EvalOptions& options, const fs::path& model_folder,
                  const std::vector<std::string>& inputs) {
  if (options.output.empty()) return {};
  Json files = Json::object();
  for (const std::string& input : inputs) files[fs::path(input).filename().string()] = checksum_file(input);
  Json run = {{"eval", command},
              {"model", describe_model(model_folder)},
              {"tokenizer", describe_tokenizer(options.model, model_folder)},
              {"inputs", std::move(files)},
              {"device", resolve_device(options.model.device).is_cpu() ? "cpu" : "cuda"},
              {"dtype", options.model.dtype},
              {"settings", options.settings.json()}};
  for (const std::string& adapter : options.model.adapters)
    run["adapters"].push_back({{"weighted", adapter},
                               {"files", checksums(adapter_folder(adapter), peft::adapter_files(adapter_folder(adapter)))}});
  return run;
}

namespace {

std::string line_of(const Json& json) { return json.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n"; }

[[noreturn]] void not_results(const std::string& path) {
  throw Error(Exit::file, {.what = "not a file of results", .where = path, .hint = "give another --output"});
}

/// Throws Error(usage) that names what differs, as "'settings.stride'".
void check_same(const std::string& path, const std::string& name, const Json& kept, const Json& run) {
  if (kept == run) return;
  if (kept.is_object() && run.is_object()) {
    const std::string prefix = name.empty() ? "" : name + ".";
    for (const auto& [key, value] : run.items()) check_same(path, prefix + key, kept.value(key, Json()), value);
    for (const auto& [key, value] : kept.items())
      if (!run.contains(key)) check_same(path, prefix + key, value, Json());
  }
  throw Error(Exit::usage, {.what = "the results in the file are another run's: '" + name + "' differs",
                            .where = path,
                            .got = kept.dump(),
                            .expected = run.dump(),
                            .hint = "give another --output, or remove the file"});
}

}  // namespace

Results::Results(const std::string& path, const Json& run, const std::function<void(const Json&)>& seen) : path_(path) {
  if (path_.empty()) return;
  signals_.emplace();
  open(run, seen);
  if (done_ > 0) log::info(path_ + " holds " + std::to_string(done_) + " results; the run goes on behind them");
}

Results::~Results() {
  if (file_) std::fclose(file_);
}

void Results::open(const Json& run, const std::function<void(const Json&)>& seen) {
  const std::string kept = fs::exists(path_) ? read_file(path_) : "";
  size_t whole = 0;  // bytes of whole lines
  bool first = true;
  for (size_t end; (end = kept.find('\n', whole)) != kept.npos; whole = end + 1) {
    const Json line = io::parse_json(std::string_view(kept).substr(whole, end - whole), path_);
    if (!first) {
      take_up(line, seen);
    } else {
      if (!line.is_object() || !line.contains("eval")) not_results(path_);
      check_same(path_, "", line, run);
    }
    done_ += !std::exchange(first, false);
  }
  // Without a whole line it is a run that was stopped in its first one, or something else of the user's.
  if (first && !line_of(run).starts_with(kept)) not_results(path_);
  file_ = std::fopen(path_.c_str(), "ab");
  if (!file_ || ::ftruncate(::fileno(file_), static_cast<off_t>(whole)) != 0)
    throw Error(Exit::file, {.what = std::string("cannot write the results: ") + std::strerror(errno), .where = path_});
  if (!first) return;
  add(run);
  done_ = 0;
  flush();
}

void Results::take_up(const Json& line, const std::function<void(const Json&)>& seen) const {
  const auto broken = [&] {
    return Error(Exit::file, {.what = "result " + std::to_string(done_) + " is not one of this command's",
                              .where = path_,
                              .hint = "remove the file to begin again"});
  };
  try {
    seen(line);
  } catch (const Json::exception&) {  // a key that is missing, or of another type
    throw broken();
  } catch (const std::out_of_range&) {  // a class that there is not
    throw broken();
  }
}

void Results::add(const Json& result) {
  ++done_;
  if (!file_) return;
  const std::string line = line_of(result);
  std::fwrite(line.data(), 1, line.size(), file_);
}

void Results::flush() {
  if (!file_) return;
  if (std::fflush(file_) != 0 || std::ferror(file_) || ::fdatasync(::fileno(file_)) != 0)
    throw Error(Exit::file, {.what = std::string("cannot write the results: ") + std::strerror(errno), .where = path_});
}

void Results::stop_if_asked(size_t count) const {
  const int signal = signals_ ? signals_->received() : 0;
  if (signal == 0) return;
  throw Error(Exit::stopped_saved, {.what = std::string("stopped by ") + train::StopSignals::name(signal) + " with " +
                                            std::to_string(done_) + " of " + std::to_string(count) + " results kept",
                                    .where = path_,
                                    .hint = "the same command goes on from there"});
}

void in_blocks(Results& results, size_t count, size_t per_block, const char* label,
               const std::function<void(size_t, size_t)>& evaluate) {
  std::optional<Progress> progress;  // of what takes more than a moment
  if (count > results.done() + per_block)
    progress.emplace(static_cast<int64_t>(count),
                     Progress::Options{.label = label, .first = static_cast<int64_t>(results.done())});
  for (size_t begin = results.done(); begin < count; begin = results.done()) {
    const size_t end = std::min(begin + per_block, count);
    evaluate(begin, end);
    LLMTK_CHECK(results.done() == end, results.done(), " results of ", end);
    results.flush();
    if (progress) progress->update(static_cast<int64_t>(end), {}, true);
    if (end < count) results.stop_if_asked(count);
  }
  if (progress) progress->finish();
}

void print_summary(const Json& summary) {
  Table table({"", ""}, {1});
  for (const auto& [key, value] : summary.items())
    table.add({key, value.is_number_float() ? fixed(value, 6) : value.dump()});
  table.print();
}

}  // namespace llmtk
