#pragma once
// A tokenizer as Hugging Face's tokenizer.json describes it: added tokens -> normalizer -> pre-tokenizer -> model ->
// post-processor, and a decoder for the way back. Read by hf_read.cpp, put together from older files
// (hf_read_files.cpp), or trained.

#include <array>
#include <atomic>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "text/added_tokens.h"
#include "text/decoder.h"
#include "text/normalizer.h"
#include "text/post_processor.h"
#include "text/split.h"
#include "text/token_model.h"
#include "text/tokenizer.h"

namespace llmtk::text {

/// A file of the folder that the tokenizer came from, kept so that save() gives back what was read.
using KeptFile = std::pair<std::string, std::string>;
/// Writes them, each atomically, into a folder that is made where it is not there.
void write_kept_files(const std::filesystem::path& folder, const std::vector<KeptFile>& files);

class HfTokenizer : public Tokenizer {
 public:
  struct Parts {
    std::unique_ptr<TokenModel> model;
    Normalizer normalizer;
    PreTokenizer pre_tokenizer;
    PostProcessor post_processor;
    Decoder decoder;
    std::vector<AddedToken> added;
    SpecialTokens special;
    bool cleans_up_blanks = false;  ///< clean_up_tokenization_spaces
    std::vector<KeptFile> files;    ///< tokenizer.json and what stood beside it
  };
  explicit HfTokenizer(Parts parts);
  ~HfTokenizer() override;

  size_t vocab_size() const override { return vocab_size_; }
  SpecialTokens special_tokens() const override { return parts_.special; }
  void encode(std::string_view text, std::vector<TokenId>& out, bool add_special_tokens) const override;
  Encoding post_process(const std::vector<TokenId>& text, const std::vector<TokenId>* pair,
                        bool add_special_tokens) const override {
    return parts_.post_processor.apply(text, pair, add_special_tokens);
  }
  std::vector<TokenId> prefix() const override { return parts_.post_processor.before(); }
  std::string decode(std::span<const TokenId> ids, bool skip_special_tokens) const override;
  std::string token_bytes(TokenId id) const override;
  std::string first_token_bytes(TokenId id) const override;
  std::optional<TokenId> token_to_id(std::string_view token) const override;
  std::string id_to_token(TokenId id) const override;
  bool is_special(TokenId id) const override;
  bool cleans_up_blanks() const override { return parts_.cleans_up_blanks; }
  void save(const std::filesystem::path& folder) const override;

  const TokenModel& model() const { return *parts_.model; }

 private:
  /// Word caches wait here between calls, so that a thread finds a warm one; taking one is a single atomic exchange.
  class CachePool {
   public:
    ~CachePool();
    std::unique_ptr<WordCache> take();
    void give_back(std::unique_ptr<WordCache> cache);

   private:
    static constexpr size_t kSlots = 64;
    static size_t slot_of_thread();
    std::array<std::atomic<WordCache*>, kSlots> slots_{};
  };
  const AddedToken* added(TokenId id) const;
  std::string_view spelled(TokenId id) const;

  Parts parts_;
  TokenFinder raw_finder_, normalized_finder_;
  std::vector<int32_t> added_by_id_;  // place in parts_.added, -1 for none
  size_t vocab_size_ = 0;
  mutable CachePool caches_;
};

/// tokenizer.json (and tokenizer_config.json, special_tokens_map.json beside it where they are).
std::unique_ptr<HfTokenizer> read_tokenizer_json(const std::filesystem::path& file);
/// The byte-level files of GPT-2 and RoBERTa. Which of the two rules hold say tokenizer_config.json and config.json
/// beside them, as they do for transformers: GPT-2's ("<|endoftext|>" as beginning and end) unless a RobertaTokenizer
/// or a model_type roberta is named.
std::unique_ptr<HfTokenizer> read_vocab_and_merges(const std::filesystem::path& vocab_json,
                                                   const std::filesystem::path& merges_txt);
/// BERT's own file, a token a line. What tokenizer_config.json beside it may say: do_lower_case, strip_accents,
/// tokenize_chinese_chars, the special tokens.
std::unique_ptr<HfTokenizer> read_vocab_txt(const std::filesystem::path& vocab_txt);
/// From the text of a tokenizer.json; `where` names it in errors. `files` are kept beside it.
std::unique_ptr<HfTokenizer> parse_tokenizer_json(const std::string& json, const std::string& where,
                                                  std::vector<KeptFile> files);

}  // namespace llmtk::text
