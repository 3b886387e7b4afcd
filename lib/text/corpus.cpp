#include "text/corpus.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/file.h"
#include "text/unicode.h"

namespace llmtk::text {
namespace {

constexpr const char* kHint = "--bad-lines skip leaves such lines out, replace puts U+FFFD for the bytes";

/// Stops, or counts the line. True where it may be mended.
bool handle_bad(const std::string& where, const std::string& what, bool mendable, BadLine policy, CorpusReport& report) {
  if (policy == BadLine::stop)
    throw Error(Exit::data, {.what = what, .where = where, .hint = mendable ? kHint : "--bad-lines skip leaves such lines out"});
  if (report.first_bad.empty()) report.first_bad = where + ": " + what;
  const bool mend = mendable && policy == BadLine::replace;
  ++(mend ? report.replaced_lines : report.skipped_lines);
  return mend;
}

std::string invalid_at(size_t offset) { return "invalid UTF-8 at byte " + std::to_string(offset + 1) + " of the line"; }

/// The lines of a text with their numbers; each keeps its line end.
template <class Each>
void for_each_line(std::string_view text, Each&& each) {
  size_t number = 1;
  for (size_t at = 0; at < text.size(); ++number) {
    const size_t newline = text.find('\n', at);
    const size_t end = newline == text.npos ? text.size() : newline + 1;
    if (!each(text.substr(at, end - at), number)) return;
    at = end;
  }
}

std::string_view without_line_end(std::string_view line) {
  if (line.ends_with('\n')) line.remove_suffix(1);
  if (line.ends_with('\r')) line.remove_suffix(1);
  return line;
}

class Reader {
 public:
  Reader(const CorpusOptions& options, const std::function<void(std::string_view, const Place&)>& each)
      : options_(options), each_(each) {}

  void read(const fs::path& path) {
    const MappedFile file(path);
    const std::string extension = path.extension().string();
    if (extension == ".jsonl" || extension == ".ndjson")
      read_rows(path, file.text());
    else if (options_.lines)
      read_lines(path, file.text());
    else
      read_whole(path, file.text());
  }
  bool full() const { return options_.max_bytes > 0 && report_.bytes >= options_.max_bytes; }
  CorpusReport& report() { return report_; }

 private:
  void emit(std::string_view text, const fs::path& path, size_t line) {
    if (full()) return;
    if (options_.max_bytes > 0 && report_.bytes + text.size() > options_.max_bytes) {
      text = text.substr(0, options_.max_bytes - report_.bytes);
      text.remove_suffix(incomplete_utf8_suffix(text));
      report_.bytes = options_.max_bytes - text.size();  // what the cut character would have taken is used up
    }
    ++report_.documents;
    report_.bytes += text.size();
    each_(text, Place{path, line});
  }

  static std::string at(const fs::path& path, size_t line) { return path.string() + ":" + std::to_string(line); }

  /// The line as it is, mended in `buffer`, or nothing.
  bool checked(std::string_view& line, std::string& buffer, const fs::path& path, size_t number) {
    const size_t invalid = find_invalid_utf8(line);
    if (invalid == line.size()) return true;
    if (!handle_bad(at(path, number), invalid_at(invalid), true, options_.bad_line, report_)) return false;
    buffer = replace_invalid_utf8(line);
    line = buffer;
    return true;
  }

  void read_whole(const fs::path& path, std::string_view text) {
    if (options_.max_bytes > 0 && text.size() > options_.max_bytes - report_.bytes) {
      text = text.substr(0, options_.max_bytes - report_.bytes);
      text.remove_suffix(incomplete_utf8_suffix(text));
    }
    if (find_invalid_utf8(text) == text.size()) {
      emit(text, path, 1);
      return;
    }
    std::string good, buffer;
    for_each_line(text, [&](std::string_view line, size_t number) {
      if (checked(line, buffer, path, number)) good += line;
      return true;
    });
    emit(good, path, 1);
  }

  void read_lines(const fs::path& path, std::string_view text) {
    std::string buffer;
    for_each_line(text, [&](std::string_view line, size_t number) {
      line = without_line_end(line);
      if (checked(line, buffer, path, number)) emit(line, path, number);
      return !full();
    });
  }

  void read_rows(const fs::path& path, std::string_view text) {
    std::string buffer;
    for_each_line(text, [&](std::string_view line, size_t number) {
      line = without_line_end(line);
      if (line.find_first_not_of(" \t") == line.npos) return true;
      if (!checked(line, buffer, path, number)) return true;
      const auto row = nlohmann::json::parse(line, nullptr, false);
      std::string problem;
      if (row.is_discarded())
        problem = "the line is not JSON";
      else if (!row.is_object() || !row.contains(options_.text_key))
        problem = "the row has no \"" + options_.text_key + "\"";
      else if (!row[options_.text_key].is_string())
        problem = "the row's \"" + options_.text_key + "\" is not a string";
      if (problem.empty())
        emit(row[options_.text_key].get_ref<const std::string&>(), path, number);
      else
        handle_bad(at(path, number), problem, false, options_.bad_line, report_);
      return !full();
    });
  }

  const CorpusOptions& options_;
  const std::function<void(std::string_view, const Place&)>& each_;
  CorpusReport report_;
};

}  // namespace

BadLine parse_bad_line(std::string_view name) {
  if (name == "stop") return BadLine::stop;
  if (name == "skip") return BadLine::skip;
  if (name == "replace") return BadLine::replace;
  throw Error(Exit::usage, {.what = "unknown way to treat bad lines",
                            .got = "'" + std::string(name) + "'",
                            .expected = "stop, skip or replace"});
}

CorpusReport read_corpus(const std::vector<fs::path>& files, const CorpusOptions& options,
                         const std::function<void(std::string_view, const Place&)>& each) {
  Reader reader(options, each);
  for (const fs::path& file : files) {
    if (reader.full()) break;
    reader.read(file);
  }
  return reader.report();
}

bool check_text(std::string& text, const std::string& name, BadLine policy, CorpusReport& report) {
  if (find_invalid_utf8(text) == text.size()) return true;
  std::string good;
  bool any = false;
  for_each_line(text, [&](std::string_view line, size_t number) {
    const size_t invalid = find_invalid_utf8(line);
    const bool keep =
        invalid == line.size() ||
        handle_bad(name + ":" + std::to_string(number), invalid_at(invalid), true, policy, report);
    if (keep) good += invalid == line.size() ? std::string(line) : replace_invalid_utf8(line);
    any |= keep;
    return true;
  });
  text = std::move(good);
  return any;
}

}  // namespace llmtk::text
