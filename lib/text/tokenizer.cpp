#include "text/tokenizer.h"

#include "core/error.h"
#include "core/file.h"
#include "io/model_folder.h"
#include "text/hf_tokenizer.h"
#include "text/sentencepiece.h"
#include "text/unicode.h"

namespace llmtk::text {

bool holds_tokenizer(const fs::path& folder) {
  return fs::exists(folder / "tokenizer.json") || fs::exists(folder / "vocab.json") ||
         fs::exists(folder / "tokenizer.model");
}

namespace {

fs::path find_tokenizer(const fs::path& path_or_name) {
  std::error_code ignored;
  if (fs::exists(path_or_name, ignored)) return path_or_name;
  try {
    return io::find_model(path_or_name.string());
  } catch (const Error& e) {
    Error::Parts parts = e.parts();
    parts.what = "no such tokenizer: " + parts.what;
    parts.expected = "a model folder, or a tokenizer.json, vocab.json or sentencepiece .model file";
    throw Error(e.exit(), parts);
  }
}

}  // namespace

std::unique_ptr<Tokenizer> load_tokenizer(const fs::path& path_or_name) {
  const fs::path path = find_tokenizer(path_or_name);
  if (fs::is_directory(path)) {
    if (auto saved = read_saved_sentencepiece(path)) return saved;
    if (fs::exists(path / "tokenizer.json")) return read_tokenizer_json(path / "tokenizer.json");
    if (fs::exists(path / "vocab.json")) return read_gpt2_files(path / "vocab.json", path / "merges.txt");
    if (fs::exists(path / "tokenizer.model")) return read_sentencepiece(path / "tokenizer.model");
    throw Error(Exit::file, {.what = "the folder holds no tokenizer",
                             .where = path.string(),
                             .expected = "tokenizer.json, or vocab.json and merges.txt, or tokenizer.model"});
  }
  if (path.filename() == "vocab.json") return read_gpt2_files(path, path.parent_path() / "merges.txt");
  if (path.extension() == ".model") return read_sentencepiece(path);
  return read_tokenizer_json(path);
}

std::string StreamDecoder::push(TokenId id) {
  if (skip_special_tokens_ && tokenizer_.is_special(id)) return {};
  std::string bytes = tokenizer_.token_bytes(id);
  if (first_ && begins_ == Begins::text && bytes.starts_with(' ') && tokenizer_.drops_leading_blank())
    bytes.erase(0, 1);
  first_ = false;
  pending_ += bytes;
  const size_t whole = pending_.size() - incomplete_utf8_suffix(pending_);
  std::string text = replace_invalid_utf8(std::string_view(pending_).substr(0, whole));
  pending_.erase(0, whole);
  return text;
}

std::string StreamDecoder::finish() {
  std::string text = replace_invalid_utf8(pending_);
  pending_.clear();
  first_ = true;
  return text;
}

}  // namespace llmtk::text
