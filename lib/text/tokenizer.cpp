#include "text/tokenizer.h"

#include <algorithm>
#include <iterator>

#include "core/error.h"
#include "core/file.h"
#include "io/model_folder.h"
#include "text/gguf_read.h"
#include "text/hf_tokenizer.h"
#include "text/normalizer.h"
#include "text/sentencepiece.h"
#include "text/unicode.h"

namespace llmtk::text {

namespace {

/// What a folder may hold a tokenizer in: the first that is there counts.
constexpr const char* kTokenizerFiles[] = {"tokenizer.json", "vocab.json", "vocab.txt", "tokenizer.model",
                                           "spiece.model"};

}  // namespace

bool holds_tokenizer(const fs::path& folder) {
  return std::ranges::any_of(kTokenizerFiles, [&](const char* name) { return fs::exists(folder / name); });
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
    parts.expected = "a model folder, or a tokenizer.json, vocab.json, vocab.txt or sentencepiece .model file";
    throw Error(e.exit(), parts);
  }
}

}  // namespace

std::unique_ptr<Tokenizer> load_tokenizer(const fs::path& path_or_name) {
  fs::path path = find_tokenizer(path_or_name);
  if (fs::is_directory(path)) {
    if (auto saved = read_saved_sentencepiece(path)) return saved;
    const auto* name = std::ranges::find_if(kTokenizerFiles, [&](const char* file) { return fs::exists(path / file); });
    if (name == std::end(kTokenizerFiles))
      throw Error(Exit::file, {.what = "the folder holds no tokenizer",
                               .where = path.string(),
                               .expected = "tokenizer.json, or vocab.json and merges.txt, or vocab.txt, or "
                                           "tokenizer.model, or spiece.model"});
    path /= *name;
  }
  if (path.filename() == "vocab.json") return read_vocab_and_merges(path, path.parent_path() / "merges.txt");
  if (path.filename() == "vocab.txt") return read_vocab_txt(path);
  if (path.extension() == ".model") return read_sentencepiece(path);
  if (io::is_gguf_path(path)) return read_gguf_tokenizer(io::GgufFile(path));
  return read_tokenizer_json(path);
}

Encoding Tokenizer::post_process(const std::vector<TokenId>& text, const std::vector<TokenId>* pair, bool) const {
  Encoding out{.ids = text, .type_ids = std::vector<TokenId>(text.size(), 0)};
  if (pair) out.ids.insert(out.ids.end(), pair->begin(), pair->end());
  out.type_ids.resize(out.ids.size(), 1);
  return out;
}

Encoding Tokenizer::encode_pair(std::string_view text, std::optional<std::string_view> pair,
                                bool add_special_tokens) const {
  std::vector<TokenId> first, second;
  encode(text, first, false);
  if (pair) encode(*pair, second, false);
  return post_process(first, pair ? &second : nullptr, add_special_tokens);
}

std::string clean_up_blanks(std::string text) {
  constexpr std::pair<std::string_view, std::string_view> kReplaced[] = {
      {" .", "."},     {" ?", "?"},   {" !", "!"},   {" ,", ","},     {" ' ", "'"},
      {" n't", "n't"}, {" 'm", "'m"}, {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"}};
  for (const auto& [pattern, content] : kReplaced) text = replace_all(text, pattern, content);
  return text;
}

namespace {

/// How much of `text` later tokens cannot change: what clean_up_blanks() replaces is of these characters alone.
size_t cleaned_up_prefix(std::string_view text) {
  const size_t last = text.find_last_not_of(" .?!,'ntmsver");
  return last == text.npos ? 0 : last + 1;
}

}  // namespace

std::string StreamDecoder::push(TokenId id) {
  if (skip_special_tokens_ && tokenizer_.is_special(id)) return {};
  pending_ += first_ && begins_ == Begins::text ? tokenizer_.first_token_bytes(id) : tokenizer_.token_bytes(id);
  first_ = false;
  const size_t whole = pending_.size() - incomplete_utf8_suffix(pending_);
  return take(tokenizer_.cleans_up_blanks() ? cleaned_up_prefix(std::string_view(pending_).substr(0, whole)) : whole);
}

std::string StreamDecoder::finish() {
  std::string text = take(pending_.size());
  first_ = true;
  return text;
}

std::string StreamDecoder::take(size_t size) {
  std::string text = replace_invalid_utf8(std::string_view(pending_).substr(0, size));
  pending_.erase(0, size);
  return tokenizer_.cleans_up_blanks() ? clean_up_blanks(std::move(text)) : text;
}

}  // namespace llmtk::text
