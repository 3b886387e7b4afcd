#pragma once
// Byte-pair encoding (Sennrich et al. 2016; bytes as in GPT-2): a word's symbols are joined pair by pair, the pair of
// the lowest rank first, the leftmost of equals first. Ids are exactly those of Hugging Face's `BPE` model.

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "text/token_model.h"

namespace llmtk::text {

struct BpeOptions {
  bool byte_level = true;      ///< symbols are bytes, spelled as in byte_level.h; else characters
  bool ignore_merges = false;  ///< a word that is a token is that token, however its merges would go
  bool byte_fallback = false;  ///< characters only: an unknown one becomes its bytes' tokens <0x00> ... <0xFF>
  bool fuse_unk = false;       ///< characters only: unknown ones in a row make one unknown token
  TokenId unk = -1;            ///< characters only; where -1 an unknown character vanishes, as it does elsewhere
};

class BpeModel : public TokenModel {
 public:
  struct Merge {
    TokenId left, right, result;
  };
  /// `merges` in order of rank; of a pair that stands there twice the later counts.
  BpeModel(Vocabulary vocabulary, std::vector<Merge> merges, BpeOptions options);

  const std::vector<Merge>& merges() const { return merges_; }
  const BpeOptions& options() const { return options_; }
  bool may_be_cleaned_up() const override { return false; }

 private:
  struct Found {
    uint32_t rank;
    TokenId result;
  };
  struct Slot {
    uint64_t key = kEmpty;
    Found found{};
  };
  static constexpr uint64_t kEmpty = ~uint64_t{0};
  static constexpr uint32_t kNoRank = 0xFFFFFFFF;

  Found find_merge(TokenId left, TokenId right) const {
    const uint64_t key = uint64_t{static_cast<uint32_t>(left)} << 32 | static_cast<uint32_t>(right);
    for (size_t slot = (key * 0x9E3779B97F4A7C15u) >> shift_;; slot = (slot + 1) & mask_) {
      if (slots_[slot].key == key) return slots_[slot].found;
      if (slots_[slot].key == kEmpty) return {kNoRank, -1};
    }
  }
  void encode_short(std::string_view word, WordCache& cache, std::vector<TokenId>& out) const override;
  void encode_long(std::string_view word, const char* readable_end, WordCache& cache,
                   std::vector<TokenId>& out) const override;
  void encode_part(std::string_view part, const char* readable_end, WordCache& cache, std::vector<TokenId>& out) const;
  void encode_parts_of_blanks(std::string_view word, const char* readable_end, WordCache& cache,
                              std::vector<TokenId>& out) const;
  bool encode_as_token(std::string_view word, std::vector<TokenId>& out) const;
  struct Scratch;
  void merge(std::string_view word, WordCache& cache, std::vector<TokenId>& out) const;
  void symbols_of(std::string_view word, std::vector<TokenId>& symbols) const;
  void merge_scanning(Scratch& scratch, std::vector<TokenId>& out) const;
  void merge_with_heap(Scratch& scratch, std::vector<TokenId>& out) const;

  std::vector<Merge> merges_;
  BpeOptions options_;
  std::vector<Slot> slots_;
  uint64_t mask_ = 0;
  int shift_ = 0;
  std::array<TokenId, 256> byte_ids_{};
  bool has_all_bytes_ = true;
  bool blank_begins_part_ = false;  // characters only: no merge joins what stands before a U+2581 with it
  std::array<std::array<uint64_t, 4>, 256>
      joins_{};  // [a] bit b: some merge joins a symbol ending in a with one beginning in b
};

}  // namespace llmtk::text
