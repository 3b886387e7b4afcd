#pragma once
// Which files a path, a folder or a pattern means, and what is in them.

#include <cstdint>
#include <filesystem>
#include <set>
#include <string>
#include <string_view>
#include <vector>

namespace llmtk::data {

enum class FileKind {
  text,   ///< plain text: .txt, and any other text file that is named (code, Markdown)
  jsonl,  ///< one JSON object a line: .jsonl, .ndjson
  json,   ///< an array of objects, or objects one after another: .json
  csv,    ///< records of fields, the first names the columns: .csv
  tsv,    ///< the same with tabs: .tsv
};

/// The delimiter of a table's fields; 0 for the other kinds.
constexpr char delimiter_of(FileKind kind) { return kind == FileKind::csv ? ',' : kind == FileKind::tsv ? '\t' : 0; }

struct SourceFile {
  std::filesystem::path path;
  uint64_t bytes = 0;
  FileKind kind = FileKind::text;
};

/// True for a path with *, ? or [ in it.
bool is_pattern(std::string_view path);

/// The files that match a pattern, sorted by name: * ? [a-z] within a name, ** for any number of folders. A file whose
/// own name holds these characters is found as it is.
std::vector<std::filesystem::path> expand_pattern(const std::string& pattern);

/// The text files behind each path (a file), folder (its .txt, .jsonl, .ndjson and .json, all levels; a warning counts
/// the others) or pattern, in the order given, folders and patterns sorted by name. Throws Error(file) for what is
/// missing and Error(data), with the way out, for what cannot be read as text (Parquet, compressed files ...).
std::vector<SourceFile> find_text_files(const std::vector<std::string>& paths);

/// The files of a run's sets: what is trained on must not be evaluated on.
class SetPaths {
 public:
  /// split: of a folder of several. Training files first. Throws Error(data) for a validation file among them.
  void add(const std::filesystem::path& path, const std::string& split, bool train);

 private:
  std::set<std::string> trained_on_;
};

}  // namespace llmtk::data
