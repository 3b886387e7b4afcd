#pragma once
// The one interface behind which every tokenizer stands.

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace llmtk::text {

using TokenId = int32_t;

/// Ids of the tokens with a role; -1 where the tokenizer has none.
struct SpecialTokens {
  TokenId bos = -1, eos = -1, pad = -1, unk = -1, cls = -1, sep = -1, mask = -1;
};

/// Ids, and for each the text that it belongs to as the tokenizer counts them (BERT's token_type_ids: 0 and 1).
struct Encoding {
  std::vector<TokenId> ids, type_ids;
};

/// Text to ids and back. Immutable once loaded: one object serves all threads.
class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  /// One more than the largest id, added tokens included.
  virtual size_t vocab_size() const = 0;
  virtual SpecialTokens special_tokens() const = 0;

  /// Appends the ids of `text` to `out`. `add_special_tokens`: what the tokenizer's post-processor adds (bos, eos).
  virtual void encode(std::string_view text, std::vector<TokenId>& out, bool add_special_tokens = false) const = 0;
  /// Puts together what was encoded of a text and, where it is not null, of a second one, each without special tokens:
  /// the tokenizer's post-processor. Where it has none: one after the other, of types 0 and 1.
  virtual Encoding post_process(const std::vector<TokenId>& text, const std::vector<TokenId>* pair,
                                bool add_special_tokens = true) const;
  /// The ids of a text, or of a pair of texts, in one sequence.
  Encoding encode_pair(std::string_view text, std::optional<std::string_view> pair,
                       bool add_special_tokens = true) const;
  /// What encode() with `add_special_tokens` puts before a text (bos); mostly nothing.
  virtual std::vector<TokenId> prefix() const { return {}; }
  /// The text of `ids`; a byte sequence that is not UTF-8 comes out as U+FFFD.
  virtual std::string decode(std::span<const TokenId> ids, bool skip_special_tokens = false) const = 0;
  /// The raw bytes that `id` stands for inside a text (a leading space kept); what streaming puts together.
  virtual std::string token_bytes(TokenId id) const = 0;
  /// The same at the front of a text, where sentencepiece's tokenizers drop the blank that encode() put there.
  virtual std::string first_token_bytes(TokenId id) const { return token_bytes(id); }

  virtual std::optional<TokenId> token_to_id(std::string_view token) const = 0;
  /// As the vocabulary spells it ("Ġhello", "▁hello").
  virtual std::string id_to_token(TokenId id) const = 0;
  virtual bool is_special(TokenId id) const = 0;
  /// Whether decode() takes out the blanks before punctuation and contractions (clean_up_tokenization_spaces).
  virtual bool cleans_up_blanks() const { return false; }

  /// Writes the tokenizer's files into `folder`, so that Hugging Face's libraries open it.
  virtual void save(const std::filesystem::path& folder) const = 0;
};

/// Opens a model folder, a single tokenizer file, or a model's name in the local Hugging Face cache (see
/// io::find_model). Throws Error(file) that names the file and what is wrong with it.
std::unique_ptr<Tokenizer> load_tokenizer(const std::filesystem::path& path_or_name);

/// Whether a folder has files of a tokenizer that load_tokenizer reads.
bool holds_tokenizer(const std::filesystem::path& folder);

/// `text` without the blanks that stand before punctuation and English contractions in it: transformers'
/// clean_up_tokenization.
std::string clean_up_blanks(std::string text);

/// Turns a stream of ids into pieces of text that never cut a character in half.
class StreamDecoder {
 public:
  /// What the ids are: the whole of a text (then the pieces together are what decode() gives), or what comes after one,
  /// where the blank of a first word is part of the text.
  enum class Begins { text, continuation };
  explicit StreamDecoder(const Tokenizer& tokenizer, bool skip_special_tokens = true,
                         Begins begins = Begins::continuation)
      : tokenizer_(tokenizer), skip_special_tokens_(skip_special_tokens), begins_(begins) {}
  /// The text that `id` completes; may be empty.
  std::string push(TokenId id);
  /// What is left at the end (an incomplete character comes out as U+FFFD). The next id begins anew.
  std::string finish();

 private:
  std::string take(size_t size);

  const Tokenizer& tokenizer_;
  bool skip_special_tokens_;
  Begins begins_;
  std::string pending_;  // bytes
  bool first_ = true;
};

}  // namespace llmtk::text
