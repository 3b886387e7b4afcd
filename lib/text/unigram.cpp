#include "text/unigram.h"

#include <algorithm>
#include <cstdio>
#include <limits>

#include "core/error.h"
#include "text/unicode.h"

namespace llmtk::text {

struct UnigramModel::Scratch : WordCache::Scratch {
  /// The best way to reach a place of the word, by its last token.
  struct Step {
    double score = 0;
    size_t begin = 0;
    TokenId id = -1;  // -1: not reached yet
  };
  std::vector<Step> ends_at;
  std::vector<Step> path;  // the last token first; `score` is where it ends
};

UnigramModel::UnigramModel(Vocabulary vocabulary, std::vector<double> scores, UnigramOptions options)
    : TokenModel(std::move(vocabulary), options.unk), scores_(std::move(scores)), options_(options) {
  LLMTK_CHECK(options_.unk >= 0 && scores_.size() == this->vocabulary().size(), scores_.size(), " scores");
  std::vector<std::pair<std::string_view, TokenId>> tokens;
  tokens.reserve(scores_.size());
  for (size_t id = 0; id < scores_.size(); ++id)
    if (const std::string_view token = this->vocabulary().token(static_cast<TokenId>(id)); !token.empty())
      tokens.emplace_back(token, static_cast<TokenId>(id));
  tokens_ = ByteTrie(std::move(tokens));
  constexpr double kUnknownPenalty = 10;  // as sentencepiece's
  unk_score_ = std::ranges::min(scores_) - kUnknownPenalty;
  for (size_t b = 0; b < 256; ++b) {
    char name[8];
    std::snprintf(name, sizeof name, "<0x%02X>", static_cast<unsigned>(b));
    byte_ids_[b] = this->vocabulary().find(name);
  }
}

// Viterbi's algorithm: from left to right, each place knows the best way to it before anything starts there. Of equal
// ways the one whose last token began first stays.
void UnigramModel::find_best_path(std::string_view word, Scratch& scratch) const {
  auto& ends_at = scratch.ends_at;
  ends_at.assign(word.size() + 1, {});
  const auto offer = [&](size_t end, double score, size_t begin, TokenId id) {
    Scratch::Step& step = ends_at[end];
    if (step.id < 0 || score > step.score) step = {score, begin, id};
  };
  for (size_t at = 0; at < word.size();) {
    const size_t size = decode_utf8(word.data() + at, word.data() + word.size()).size;
    const double here = ends_at[at].score;
    bool has_token = false;
    tokens_.for_each_prefix(word.substr(at), [&](size_t length, TokenId id) {
      offer(at + length, here + scores_[static_cast<size_t>(id)], at, id);
      has_token |= length == size;
    });
    if (!has_token) offer(at + size, here + unk_score_, at, options_.unk);
    at += size;
  }
}

void UnigramModel::encode_unknown(std::string_view part, std::vector<TokenId>& out) const {
  // Characters in a row that are unknown one by one may be a token together.
  if (const TokenId id = vocabulary().find(part); id >= 0) {
    out.push_back(id);
    return;
  }
  const auto byte_id = [&](char b) { return byte_ids_[static_cast<unsigned char>(b)]; };
  if (options_.byte_fallback && std::ranges::all_of(part, [&](char b) { return byte_id(b) >= 0; })) {
    for (const char b : part) out.push_back(byte_id(b));
    return;
  }
  out.push_back(options_.unk);
}

void UnigramModel::encode_short(std::string_view word, WordCache& cache, std::vector<TokenId>& out) const {
  if (!cache.scratch) cache.scratch = std::make_unique<Scratch>();
  auto& scratch = static_cast<Scratch&>(*cache.scratch);
  find_best_path(word, scratch);
  auto& path = scratch.path;
  path.clear();
  for (size_t end = word.size(); end > 0; end = path.back().begin) path.push_back(scratch.ends_at[end]);
  std::ranges::reverse(path);
  for (size_t i = 0; i < path.size();) {
    if (path[i].id != options_.unk) {
      out.push_back(path[i++].id);
      continue;
    }
    const size_t begin = path[i].begin;
    while (i < path.size() && path[i].id == options_.unk) ++i;
    const size_t end = i < path.size() ? path[i].begin : word.size();
    encode_unknown(word.substr(begin, end - begin), out);
  }
}

void UnigramModel::encode_long(std::string_view word, const char* /*readable_end*/, WordCache& cache,
                               std::vector<TokenId>& out) const {
  encode_short(word, cache, out);
}

}  // namespace llmtk::text
