#pragma once
// Text files as documents: what `tokenize` encodes, counts and trains on.

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace llmtk::text {

/// What to do with invalid UTF-8, and with a row that is not the JSON it should be (which nothing can replace: skipped).
enum class BadLine { stop, skip, replace };
/// "stop", "skip", "replace"; throws Error(usage).
BadLine parse_bad_line(std::string_view name);

struct CorpusOptions {
  BadLine bad_line = BadLine::stop;
  std::string text_key = "text";  ///< of a .jsonl row
  bool lines = false;             ///< every line of a .txt is a document (without its line end), not the file
  uint64_t max_bytes = 0;         ///< stop after so many bytes of text; 0: no limit
};

struct CorpusReport {
  uint64_t documents = 0, bytes = 0;
  uint64_t skipped_lines = 0, replaced_lines = 0;
  std::string first_bad;  ///< "corpus.txt:12: invalid UTF-8 at byte 3"
};

/// Where a document stands.
struct Place {
  const std::filesystem::path& file;
  size_t line;  ///< its first, from 1
};

/// Calls each(text, place) for the documents of `files` in order: a .jsonl row's text, or a whole file of any other name.
/// The text is valid UTF-8. Throws Error(file) for a file that cannot be read, Error(data) naming file and line.
CorpusReport read_corpus(const std::vector<std::filesystem::path>& files, const CorpusOptions& options,
                         const std::function<void(std::string_view text, const Place& place)>& each);

/// The same treatment of one text that is no file; `name` stands in errors. False where it is to be skipped.
bool check_text(std::string& text, const std::string& name, BadLine policy, CorpusReport& report);

}  // namespace llmtk::text
