#pragma once
// Byte-pair encoding (Sennrich et al. 2016; bytes as in GPT-2): a word's symbols are joined pair by pair, the pair of
// the lowest rank first, the leftmost of equals first. Ids are exactly those of Hugging Face's `BPE` model.

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "text/vocabulary.h"

namespace llmtk::text {

/// What one thread needs for encoding and keeps between words. Not shared.
class WordCache;

struct BpeOptions {
  bool byte_level = true;      ///< symbols are bytes, spelled as in byte_level.h; else characters
  bool ignore_merges = false;  ///< a word that is a token is that token, however its merges would go
  bool byte_fallback = false;  ///< characters only: an unknown one becomes its bytes' tokens <0x00> ... <0xFF>
  bool fuse_unk = false;       ///< characters only: unknown ones in a row make one unknown token
  TokenId unk = -1;            ///< characters only; where -1 an unknown character vanishes, as it does elsewhere
};

class BpeModel {
 public:
  struct Merge {
    TokenId left, right, result;
  };
  /// `merges` in order of rank; of a pair that stands there twice the later counts.
  BpeModel(Vocabulary vocabulary, std::vector<Merge> merges, BpeOptions options);

  const Vocabulary& vocabulary() const { return vocabulary_; }
  const std::vector<Merge>& merges() const { return merges_; }
  const BpeOptions& options() const { return options_; }

  /// Appends the ids of one pre-tokenized word. `readable_end`: memory may be read up to here (>= word's end).
  void encode_word(std::string_view word, const char* readable_end, WordCache& cache, std::vector<TokenId>& out) const;

 private:
  friend class WordCache;
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
  /// `whole`: the word as the pre-tokenizer gave it, not a part of it (only whole words may skip the merges).
  void encode_cached(std::string_view word, bool whole, const char* readable_end, WordCache& cache,
                     std::vector<TokenId>& out) const;
  void encode_long(std::string_view word, const char* readable_end, WordCache& cache, std::vector<TokenId>& out) const;
  void encode_parts_of_blanks(std::string_view word, const char* readable_end, WordCache& cache,
                              std::vector<TokenId>& out) const;
  bool encode_as_token(std::string_view word, std::vector<TokenId>& out) const;
  void encode_uncached(std::string_view word, bool whole, WordCache& cache, std::vector<TokenId>& out) const;
  void symbols_of(std::string_view word, std::vector<TokenId>& symbols) const;
  void merge_scanning(WordCache& cache, std::vector<TokenId>& out) const;
  void merge_with_heap(WordCache& cache, std::vector<TokenId>& out) const;

  Vocabulary vocabulary_;
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

class WordCache {
 public:
  WordCache();

 private:
  friend class BpeModel;
  static constexpr size_t kMaxBytes = 15;  // of a word that is cached
  static constexpr size_t kInline = 3;     // ids that stand in the entry itself
  static constexpr size_t kBuckets = 1 << 14;
  /// The word's bytes and its length; its ids, or where they stand in `spilled_`.
  struct Entry {
    uint64_t low = 0, high = 0;
    uint32_t count = 0;
    TokenId ids[kInline] = {};
  };
  struct alignas(64) Bucket {
    Entry entries[2];
  };
  struct Candidate {
    uint32_t rank, position;
    TokenId result;
  };
  struct Link {
    TokenId id;
    int32_t previous, next;
  };
  struct Release {
    void operator()(Bucket* buckets) const;
  };
  std::unique_ptr<Bucket[], Release> buckets_;
  std::vector<TokenId> spilled_;
  // Scratch of the merge loops.
  std::vector<TokenId> symbols_;
  std::vector<uint32_t> ranks_;
  std::vector<TokenId> results_;
  std::vector<Candidate> heap_;
  std::vector<Link> links_;
};

}  // namespace llmtk::text
