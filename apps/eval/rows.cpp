#include "eval/rows.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>

#include "app.h"
#include "core/error.h"
#include "core/file.h"
#include "core/log.h"
#include "core/utf8.h"
#include "inspect/table.h"
#include "io/json.h"

namespace llmtk {

void add_eval_options(CLI::App& app, EvalOptions& options) {
  add_model_options(app, options.model);
  app.add_option("-o,--output", options.output,
                 "JSON lines to keep every result in; a run that was stopped goes on from there");
  app.add_option("--batch-size", options.batch_size, "Rows that run together")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 20))
      ->capture_default_str();
  app.add_flag("--add-special-tokens,!--no-add-special-tokens", options.add_special_tokens,
               "Whether the tokenizer puts its own special tokens (bos) around a text; default: yes");
}

std::vector<Row> read_rows(const std::string& file) {
  std::ifstream in(file, std::ios::binary);
  if (!in || fs::is_directory(file)) throw Error(Exit::file, {.what = "cannot read the rows", .where = file});
  std::vector<Row> rows;
  int64_t number = 0;
  for (std::string line; std::getline(in, line);) {
    ++number;
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    Row row{Json::parse(line, nullptr, /*allow_exceptions=*/false), file + ":" + std::to_string(number)};
    if (!row.json.is_object())
      throw Error(Exit::data, {.what = "not a row of JSON lines",
                               .where = row.where,
                               .got = std::string(cut_to_width(printable(line), 60)),
                               .expected = "a JSON object"});
    rows.push_back(std::move(row));
  }
  if (rows.empty()) throw Error(Exit::data, {.what = "no rows", .where = file, .expected = "JSON lines"});
  return rows;
}

std::string text_field_of(const Row& row, const std::string& key) {
  const auto found = row.json.find(key);
  if (found != row.json.end() && found->is_string()) return found->get<std::string>();
  throw Error(Exit::data, {.what = "a row without the text '" + key + "'",
                           .where = row.where,
                           .got = found == row.json.end() ? "no such key" : std::string(found->type_name())});
}

Json describe_run(const char* command, const EvalOptions& options, const std::filesystem::path& model_folder,
                  const std::vector<std::string>& inputs, Json settings) {
  Json weights = Json::object(), files = Json::object();
  std::vector<fs::path> paths;
  if (fs::is_directory(model_folder))
    for (const auto& entry : fs::directory_iterator(model_folder)) paths.push_back(entry.path());
  else
    paths.push_back(model_folder);
  std::ranges::sort(paths);
  for (const fs::path& path : paths)
    if (path.extension() == ".safetensors" || path.extension() == ".gguf")
      weights[path.filename().string()] = {fs::file_size(path), fs::last_write_time(path).time_since_epoch().count()};
  for (const std::string& input : inputs) files[input] = checksum_file(input);
  return {{"eval", command},
          {"model", options.model.model},
          {"weights", std::move(weights)},
          {"tokenizer", options.model.tokenizer},
          {"dtype", options.model.dtype},
          {"add_special_tokens", options.add_special_tokens},
          {"inputs", std::move(files)},
          {"settings", std::move(settings)}};
}

namespace {

std::string line_of(const Json& json) { return json.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n"; }

[[noreturn]] void not_results(const std::string& path) {
  throw Error(Exit::file, {.what = "not a file of results", .where = path, .hint = "give another --output"});
}

/// Throws Error(usage) that names what differs.
void check_same_run(const std::string& path, const Json& kept, const Json& run) {
  if (!kept.is_object() || !kept.contains("eval")) not_results(path);
  for (const auto& [key, value] : run.items())
    if (const auto found = kept.find(key); found == kept.end() || *found != value)
      throw Error(Exit::usage, {.what = "the results in the file are another run's: '" + key + "' differs",
                                .where = path,
                                .got = found == kept.end() ? "none" : found->dump(),
                                .expected = value.dump(),
                                .hint = "give another --output, or remove the file"});
}

}  // namespace

Results::Results(const std::string& path, const Json& run, const std::function<void(const Json&)>& seen) : path_(path) {
  if (path_.empty()) return;
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
    if (first)
      check_same_run(path_, line, run);
    else
      take_up(line, seen);
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
