#pragma once
// What one thread keeps between the words that it encodes: the ids of short words that it met, and a model's scratch.

#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string_view>
#include <vector>

#include "text/tokenizer.h"

namespace llmtk::text {

/// Of one thread and one model. Not shared.
class WordCache {
 public:
  static constexpr size_t kMaxBytes = 15;  // of a word that is cached

  WordCache();

  /// Appends to `out` the ids of `word` (at most kMaxBytes long): those kept, or else what encode_new() appends.
  /// `apart`: keeps it apart from the same word without the flag. `readable_end`: memory may be read up to here.
  template <class EncodeNew>
  void encode(std::string_view word, bool apart, const char* readable_end, std::vector<TokenId>& out,
              EncodeNew&& encode_new);

  /// A model's room for its work; it makes what it needs once.
  struct Scratch {
    virtual ~Scratch() = default;
  };
  std::unique_ptr<Scratch> scratch;

 private:
  static constexpr size_t kInline = 3;  // ids that stand in the entry itself
  static constexpr size_t kBuckets = 1 << 14;
  static constexpr size_t kMaxSpilled = 1 << 20;
  /// The word's bytes and its length; its ids, or where they stand in `spilled_`.
  struct Entry {
    uint64_t low = 0, high = 0;
    uint32_t count = 0;
    TokenId ids[kInline] = {};
  };
  struct alignas(64) Bucket {
    Entry entries[2];
  };
  struct Release {
    void operator()(Bucket* buckets) const;
  };
  void keep(Entry (&entries)[2], uint64_t low, uint64_t high, const TokenId* ids, size_t count);

  std::unique_ptr<Bucket[], Release> buckets_;
  std::vector<TokenId> spilled_;
};

template <class EncodeNew>
inline void WordCache::encode(std::string_view word, bool apart, const char* readable_end, std::vector<TokenId>& out,
                              EncodeNew&& encode_new) {
  uint64_t low, high;
  if (word.data() + 16 <= readable_end) [[likely]] {
    std::memcpy(&low, word.data(), 8);
    std::memcpy(&high, word.data() + 8, 8);
    const size_t n = word.size();
    low = n >= 8 ? low : low & ((uint64_t{1} << (8 * n)) - 1);
    high = n > 8 ? high & ((uint64_t{1} << (8 * (n - 8))) - 1) : 0;
  } else {
    char padded[16] = {};
    std::memcpy(padded, word.data(), word.size());
    std::memcpy(&low, padded, 8);
    std::memcpy(&high, padded + 8, 8);
  }
  high |= uint64_t{word.size() | (apart ? 0x80u : 0u)} << 56;
  const uint64_t hash = (low ^ std::rotl(high, 29)) * 0x9E3779B97F4A7C15u ^ high * 0xC2B2AE3D27D4EB4Fu;
  auto& entries = buckets_[hash >> (64 - std::countr_zero(kBuckets))].entries;
  for (const Entry& entry : entries) {
    if (entry.low != low || entry.high != high) continue;
    if (entry.count == 1) [[likely]] {
      out.push_back(entry.ids[0]);
      return;
    }
    const TokenId* ids = entry.count <= kInline ? entry.ids : spilled_.data() + entry.ids[0];
    out.insert(out.end(), ids, ids + entry.count);
    return;
  }
  const size_t before = out.size();
  encode_new();
  keep(entries, low, high, out.data() + before, out.size() - before);
}

}  // namespace llmtk::text
