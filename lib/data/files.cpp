#include "data/files.h"

#include <fnmatch.h>

#include <algorithm>
#include <cctype>
#include <mutex>
#include <set>

#include "core/error.h"
#include "core/log.h"

namespace llmtk::data {
namespace {

namespace fs = std::filesystem;

std::string lower_extension(const fs::path& path) {
  std::string extension = path.extension().string();
  std::transform(extension.begin(), extension.end(), extension.begin(),
                 [](unsigned char c) { return std::tolower(c); });
  return extension;
}

/// Why a file with this extension is not read, with the way out; null when it may be text.
const char* refusal(const std::string& extension) {
  static constexpr struct {
    const char* extension;
    const char* hint;
  } kRefused[] = {
      {".parquet",
       "convert it first: python -c \"import datasets, sys; "
       "datasets.Dataset.from_parquet(sys.argv[1]).to_json(sys.argv[2])\" FILE.parquet FILE.jsonl"},
      {".arrow", "convert it first: datasets.Dataset.from_file(\"FILE.arrow\").to_json(\"FILE.jsonl\") in Python"},
      {".gz", "unpack it first: gunzip FILE"},
      {".zst", "unpack it first: unzstd FILE"},
      {".xz", "unpack it first: unxz FILE"},
      {".bz2", "unpack it first: bunzip2 FILE"},
      {".zip", "unpack it first: unzip FILE"},
      {".tar", "unpack it first: tar xf FILE"},
      {".bin", "token shards need the shards.json that was written beside them, or llm.c's header"},
      {".npy", "write the text as .txt or .jsonl"},
      {".pdf", "extract its text first: pdftotext FILE"},
      {".docx", "export it as .txt"},
      {".safetensors", "this holds weights, not text"},
      {".gguf", "this holds weights, not text"},
      {".pt", "this is a pickle, not text"},
  };
  for (const auto& entry : kRefused)
    if (extension == entry.extension) return entry.hint;
  return nullptr;
}

FileKind kind_of(const std::string& extension) {
  if (extension == ".jsonl" || extension == ".ndjson") return FileKind::jsonl;
  if (extension == ".json") return FileKind::json;
  if (extension == ".csv") return FileKind::csv;
  if (extension == ".tsv") return FileKind::tsv;
  return FileKind::text;
}

[[noreturn]] void refuse(const fs::path& path, const std::string& extension) {
  throw Error(Exit::data, {.what = "cannot read this format as text",
                           .where = path.string(),
                           .got = extension,
                           .expected = ".txt, .jsonl, .json, .csv or .tsv",
                           .hint = refusal(extension)});
}

void add_file(const fs::path& path, std::vector<SourceFile>& files) {
  const std::string extension = lower_extension(path);
  if (refusal(extension)) refuse(path, extension);
  std::error_code error;
  const uint64_t bytes = fs::file_size(path, error);
  if (error) throw Error(Exit::file, {.what = "cannot read: " + error.message(), .where = path.string()});
  files.push_back({path, bytes, kind_of(extension)});
}

/// The pattern that takes a file of a folder, and all that are like it.
std::string pattern_for(const fs::path& folder, const fs::path& file) {
  const std::string extension = file.extension().string();
  return "'" + (folder / "**" / (extension.empty() ? file.filename().string() : "*" + extension)).string() + "'";
}

/// Once a folder: a run looks into it more than once.
void warn_of_left_out(const fs::path& folder, const std::vector<fs::path>& left_out) {
  static std::mutex mutex;
  static std::set<fs::path> warned;
  const std::lock_guard lock(mutex);
  if (!warned.insert(fs::weakly_canonical(folder)).second) return;
  const fs::path& one = *std::ranges::min_element(left_out);
  const char* hint = refusal(lower_extension(one));
  log::warn(folder.string() + ": left out " + std::to_string(left_out.size()) + " files of other kinds, such as " +
            one.string() + " (" + (hint ? hint : "to read it give a pattern, " + pattern_for(folder, one)) + ")");
}

void add_folder(const fs::path& folder, std::vector<SourceFile>& files) {
  std::vector<fs::path> found, left_out;
  std::error_code error;
  for (fs::recursive_directory_iterator i(folder, error), end; i != end && !error; i.increment(error)) {
    if (i->path().filename().string().starts_with(".")) {
      if (i->is_directory()) i.disable_recursion_pending();
      continue;
    }
    if (!i->is_regular_file()) continue;
    const std::string extension = lower_extension(i->path());
    // A table is taken only where it is asked for: many a folder of text has one about its files.
    const bool table = delimiter_of(kind_of(extension)) != 0;
    const bool text = extension == ".txt" || kind_of(extension) != FileKind::text;
    (text && !table ? found : left_out).push_back(i->path());
  }
  if (error) throw Error(Exit::file, {.what = "cannot list: " + error.message(), .where = folder.string()});
  if (found.empty()) {
    for (const auto& path : left_out)
      if (const std::string extension = lower_extension(path); refusal(extension)) refuse(path, extension);
    const std::string example = left_out.empty() ? "'folder/**/*.py'" : pattern_for(folder, left_out.front());
    throw Error(Exit::data, {.what = "no text in this folder",
                             .where = folder.string(),
                             .expected = ".txt, .jsonl or .json files",
                             .hint = "for tables and other text files give a pattern, such as " + example});
  }
  if (!left_out.empty()) warn_of_left_out(folder, left_out);
  std::sort(found.begin(), found.end());
  for (const auto& path : found) add_file(path, files);
}

/// Appends what matches parts[at...] under `folder`.
void match(const fs::path& folder, const std::vector<std::string>& parts, size_t at, std::vector<fs::path>& found) {
  if (at == parts.size()) {
    if (fs::is_regular_file(folder)) found.push_back(folder);
    return;
  }
  const std::string& part = parts[at];
  if (part == "**") match(folder, parts, at + 1, found);
  if (part != "**" && !is_pattern(part)) return match(folder / part, parts, at + 1, found);
  std::error_code error;
  for (fs::directory_iterator i(folder.empty() ? fs::path(".") : folder, error), end; i != end && !error;
       i.increment(error)) {
    const std::string name = i->path().filename().string();
    const fs::path path = folder / name;
    if (part == "**") {
      if (fs::is_directory(path) && !fs::is_symlink(path) && !name.starts_with(".")) match(path, parts, at, found);
    } else if (::fnmatch(part.c_str(), name.c_str(), FNM_PERIOD) == 0) {
      match(path, parts, at + 1, found);
    }
  }
}

}  // namespace

bool is_pattern(std::string_view path) { return path.find_first_of("*?[") != std::string_view::npos; }

std::vector<fs::path> expand_pattern(const std::string& pattern) {
  std::vector<fs::path> found;
  if (fs::is_regular_file(pattern)) return {pattern};
  const fs::path path(pattern);
  std::vector<std::string> parts;
  for (const auto& part : path.relative_path()) parts.push_back(part.string());
  match(path.root_path(), parts, 0, found);
  std::sort(found.begin(), found.end());
  found.erase(std::unique(found.begin(), found.end()), found.end());
  return found;
}

std::vector<SourceFile> find_text_files(const std::vector<std::string>& paths) {
  std::vector<SourceFile> files;
  for (const auto& path : paths) {
    if (fs::is_directory(path)) {
      add_folder(path, files);
    } else if (fs::exists(path)) {
      add_file(path, files);
    } else if (is_pattern(path)) {
      const auto found = expand_pattern(path);
      if (found.empty()) throw Error(Exit::file, {.what = "no file matches this pattern", .where = path});
      for (const auto& file : found) add_file(file, files);
    } else {
      throw Error(Exit::file, {.what = "no such file or folder",
                               .where = path,
                               .hint = "the current folder is " + fs::current_path().string()});
    }
  }
  if (files.empty()) throw Error(Exit::data, {.what = "no files to read"});
  return files;
}

void SetPaths::add(const fs::path& path, const std::string& split, bool train) {
  std::error_code error;
  const fs::path canonical = fs::canonical(path, error);
  const std::string key = (error ? path : canonical).string() + "\n" + split;
  if (train) {
    trained_on_.insert(key);
  } else if (trained_on_.contains(key)) {
    throw Error(Exit::data, {.what = "the validation data is part of the training data",
                             .where = path.string(),
                             .hint = "use data.validation_fraction to hold a part of it out"});
  }
}

}  // namespace llmtk::data
