#include "text/bpe.h"

#include <algorithm>
#include <bit>

#include "core/error.h"
#include "text/byte_level.h"
#include "text/unicode.h"

namespace llmtk::text {

namespace {

constexpr std::string_view kBlank = "\xE2\x96\x81";  // U+2581, what sentencepiece spells blanks with

}  // namespace

/// Room of the merge loops.
struct BpeModel::Scratch : WordCache::Scratch {
  struct Candidate {
    uint32_t rank, position;
    TokenId result;
  };
  struct Link {
    TokenId id;
    int32_t previous, next;
  };
  std::vector<TokenId> symbols, results;
  std::vector<uint32_t> ranks;
  std::vector<Candidate> heap;
  std::vector<Link> links;
};

BpeModel::BpeModel(Vocabulary vocabulary, std::vector<Merge> merges, BpeOptions options)
    : TokenModel(std::move(vocabulary), options.unk), merges_(std::move(merges)), options_(options) {
  LLMTK_CHECK(merges_.size() < kNoRank, merges_.size(), " merges");
  const size_t slots = std::bit_ceil(std::max<size_t>(16, merges_.size() * 2));
  slots_.resize(slots);
  mask_ = slots - 1;
  shift_ = 64 - std::countr_zero(slots);
  for (uint32_t rank = 0; rank < merges_.size(); ++rank) {
    const Merge& merge = merges_[rank];
    const uint64_t key = uint64_t{static_cast<uint32_t>(merge.left)} << 32 | static_cast<uint32_t>(merge.right);
    size_t slot = (key * 0x9E3779B97F4A7C15u) >> shift_;
    while (slots_[slot].key != kEmpty && slots_[slot].key != key) slot = (slot + 1) & mask_;
    slots_[slot] = {key, {rank, merge.result}};
  }
  byte_ids_.fill(-1);
  if (!options_.byte_level) {
    blank_begins_part_ = this->vocabulary().find(kBlank) >= 0;
    for (const Merge& merge : merges_)
      if (this->vocabulary().token(merge.right).starts_with(kBlank) && !this->vocabulary().token(merge.left).ends_with(kBlank))
        blank_begins_part_ = false;
    return;
  }
  for (int b = 0; b < 256; ++b) {
    std::string spelled;
    append_utf8(byte_to_char(static_cast<unsigned char>(b)), spelled);
    byte_ids_[b] = this->vocabulary().find(spelled);
    if (byte_ids_[b] < 0) has_all_bytes_ = false;
  }
  const auto edge = [&](TokenId id, bool last) {
    const auto bytes = unspell_bytes(this->vocabulary().token(id));
    if (!bytes || bytes->empty()) return -1;
    return static_cast<int>(static_cast<unsigned char>(last ? bytes->back() : bytes->front()));
  };
  for (const Merge& merge : merges_) {
    const int a = edge(merge.left, true), b = edge(merge.right, false);
    // A part that spells no bytes can never come up in a word.
    if (a >= 0 && b >= 0) joins_[a][b >> 6] |= uint64_t{1} << (b & 63);
  }
}

void BpeModel::symbols_of(std::string_view word, std::vector<TokenId>& symbols) const {
  symbols.clear();
  if (options_.byte_level) {
    for (const char b : word) {
      const TokenId id = byte_ids_[static_cast<unsigned char>(b)];
      if (id >= 0) symbols.push_back(id);
    }
    return;
  }
  bool after_unknown = false;
  for (const char *p = word.data(), *end = p + word.size(); p < end;) {
    const uint32_t size = decode_utf8(p, end).size;
    const std::string_view character(p, size);
    p += size;
    if (const TokenId id = vocabulary().find(character); id >= 0) {
      symbols.push_back(id);
      after_unknown = false;
      continue;
    }
    if (options_.byte_fallback) {
      const size_t before = symbols.size();
      for (const char b : character) {
        char name[8];
        std::snprintf(name, sizeof name, "<0x%02X>", static_cast<unsigned char>(b));
        symbols.push_back(vocabulary().find(name));
      }
      if (std::find(symbols.begin() + static_cast<ptrdiff_t>(before), symbols.end(), -1) == symbols.end()) {
        after_unknown = false;
        continue;
      }
      symbols.resize(before);
    }
    if (options_.unk >= 0 && !(options_.fuse_unk && after_unknown)) symbols.push_back(options_.unk);
    after_unknown = true;
  }
}

void BpeModel::encode_short(std::string_view word, WordCache& cache, std::vector<TokenId>& out) const {
  if (options_.ignore_merges && encode_as_token(word, out)) return;
  merge(word, cache, out);
}

// A part of a longer word: only whole words may skip the merges, so the cache keeps the two apart.
void BpeModel::encode_part(std::string_view part, const char* readable_end, WordCache& cache,
                           std::vector<TokenId>& out) const {
  if (part.size() <= WordCache::kMaxBytes)
    cache.encode(part, options_.ignore_merges, readable_end, out, [&] { merge(part, cache, out); });
  else
    merge(part, cache, out);
}

// A long word (a run of Chinese is one) falls apart wherever no merge could ever join the two bytes at a place.
void BpeModel::encode_long(std::string_view word, const char* readable_end, WordCache& cache,
                           std::vector<TokenId>& out) const {
  if (options_.ignore_merges && encode_as_token(word, out)) return;
  if (blank_begins_part_) {
    encode_parts_of_blanks(word, readable_end, cache, out);
    return;
  }
  if (!options_.byte_level || !has_all_bytes_) {  // a byte without a token vanishes and its neighbours may join
    merge(word, cache, out);
    return;
  }
  size_t begin = 0;
  for (size_t i = 1; i <= word.size(); ++i) {
    if (i < word.size()) {
      const auto a = static_cast<unsigned char>(word[i - 1]), b = static_cast<unsigned char>(word[i]);
      if (joins_[a][b >> 6] >> (b & 63) & 1) continue;
    }
    encode_part(word.substr(begin, i - begin), readable_end, cache, out);
    begin = i;
  }
}

// Models as Llama 2's take a whole text for one word. No merge reaches over the front of a run of blanks.
void BpeModel::encode_parts_of_blanks(std::string_view word, const char* readable_end, WordCache& cache,
                                      std::vector<TokenId>& out) const {
  for (size_t begin = 0; begin < word.size();) {
    size_t end = begin;
    while (word.substr(end).starts_with(kBlank)) end += kBlank.size();
    end = std::min(word.find(kBlank, end), word.size());
    encode_part(word.substr(begin, end - begin), readable_end, cache, out);
    begin = end;
  }
}

bool BpeModel::encode_as_token(std::string_view word, std::vector<TokenId>& out) const {
  const TokenId id = vocabulary().find(options_.byte_level ? spell_bytes(word) : std::string(word));
  if (id >= 0) out.push_back(id);
  return id >= 0;
}

void BpeModel::merge(std::string_view word, WordCache& cache, std::vector<TokenId>& out) const {
  if (!cache.scratch) cache.scratch = std::make_unique<Scratch>();
  auto& scratch = static_cast<Scratch&>(*cache.scratch);
  symbols_of(word, scratch.symbols);
  constexpr size_t kScan = 128;  // beyond it the heap is faster
  if (merges_.empty() || scratch.symbols.size() < 2)
    out.insert(out.end(), scratch.symbols.begin(), scratch.symbols.end());
  else if (scratch.symbols.size() <= kScan)
    merge_scanning(scratch, out);
  else
    merge_with_heap(scratch, out);
}

void BpeModel::merge_scanning(Scratch& scratch, std::vector<TokenId>& out) const {
  auto& ids = scratch.symbols;
  auto& ranks = scratch.ranks;
  auto& results = scratch.results;
  size_t pairs = ids.size() - 1;
  ranks.resize(pairs);
  results.resize(pairs);
  const auto look = [&](size_t i) {
    const Found found = find_merge(ids[i], ids[i + 1]);
    ranks[i] = found.rank;
    results[i] = found.result;
  };
  for (size_t i = 0; i < pairs; ++i) look(i);
  while (pairs > 0) {
    uint32_t lowest = kNoRank;
    for (size_t i = 0; i < pairs; ++i) lowest = std::min(lowest, ranks[i]);
    if (lowest == kNoRank) break;
    const auto at = static_cast<size_t>(std::find(ranks.begin(), ranks.end(), lowest) - ranks.begin());
    ids[at] = results[at];
    const auto close = [at](auto& v, size_t offset, size_t size) {
      std::copy(v.begin() + static_cast<ptrdiff_t>(at + offset + 1), v.begin() + static_cast<ptrdiff_t>(size),
                v.begin() + static_cast<ptrdiff_t>(at + offset));
    };
    close(ids, 1, pairs + 1);
    close(ranks, 0, pairs);
    close(results, 0, pairs);
    --pairs;
    if (at > 0) look(at - 1);
    if (at < pairs) look(at);
  }
  out.insert(out.end(), ids.begin(), ids.begin() + static_cast<ptrdiff_t>(pairs + 1));
}

void BpeModel::merge_with_heap(Scratch& scratch, std::vector<TokenId>& out) const {
  LLMTK_CHECK(scratch.symbols.size() < (size_t{1} << 31), "a word of ", scratch.symbols.size(), " bytes");
  auto& links = scratch.links;
  auto& heap = scratch.heap;
  const auto n = static_cast<int32_t>(scratch.symbols.size());
  links.resize(static_cast<size_t>(n));
  heap.clear();
  const auto later = [](const Scratch::Candidate& a, const Scratch::Candidate& b) {
    return a.rank != b.rank ? a.rank > b.rank : a.position > b.position;
  };
  for (int32_t i = 0; i < n; ++i) links[i] = {scratch.symbols[i], i - 1, i + 1 < n ? i + 1 : -1};
  for (int32_t i = 0; i + 1 < n; ++i) {
    const Found found = find_merge(links[i].id, links[i + 1].id);
    if (found.rank != kNoRank) heap.push_back({found.rank, static_cast<uint32_t>(i), found.result});
  }
  std::make_heap(heap.begin(), heap.end(), later);
  const auto push = [&](int32_t at) {
    const Found found = find_merge(links[at].id, links[links[at].next].id);
    if (found.rank == kNoRank) return;
    heap.push_back({found.rank, static_cast<uint32_t>(at), found.result});
    std::push_heap(heap.begin(), heap.end(), later);
  };
  while (!heap.empty()) {
    const Scratch::Candidate top = heap.front();
    std::pop_heap(heap.begin(), heap.end(), later);
    heap.pop_back();
    Scratch::Link& left = links[top.position];
    if (left.id < 0 || left.next < 0) continue;  // swallowed, or nothing to its right any more
    Scratch::Link& right = links[left.next];
    const Found found = find_merge(left.id, right.id);
    if (found.rank != top.rank) continue;  // one of the two has changed since
    left.id = top.result;
    right.id = -1;
    left.next = right.next;
    if (right.next >= 0) {
      links[right.next].previous = static_cast<int32_t>(top.position);
      push(static_cast<int32_t>(top.position));
    }
    if (left.previous >= 0) push(left.previous);
  }
  for (int32_t i = 0; i >= 0; i = links[i].next) out.push_back(links[i].id);
}

}  // namespace llmtk::text
