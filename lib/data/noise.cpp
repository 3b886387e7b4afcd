#include "data/noise.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "data/permutation.h"

namespace llmtk::data {
namespace {

/// A row's own random numbers.
class RowRandom {
 public:
  explicit RowRandom(uint64_t seed) : state_(seed) {}
  uint64_t bits() { return mix(state_ += 0x9E3779B97F4A7C15u); }
  double uniform() { return std::ldexp(static_cast<double>(bits() >> 11), -53); }  ///< in [0, 1)
  /// In [0, n). The bias of so small an n is below 2^-32.
  uint64_t below(uint64_t n) { return bits() % n; }

 private:
  uint64_t state_;
};

/// Cuts `total` into `parts` lengths of at least 1, every way as probable as another.
std::vector<int64_t> random_parts(int64_t total, int64_t parts, RowRandom& random) {
  std::vector<int64_t> lengths;
  int64_t cuts = parts - 1, length = 1;
  for (int64_t place = 1; place < total; ++place, ++length) {
    if (static_cast<int64_t>(random.below(static_cast<uint64_t>(total - place))) >= cuts) continue;
    lengths.push_back(length);
    length = 0;
    --cuts;
  }
  lengths.push_back(length);
  return lengths;
}

[[noreturn]] void refuse(const std::string& what, const std::string& where, const std::string& hint) {
  throw Error(Exit::data, {.what = what, .where = where, .hint = hint});
}

}  // namespace

void MaskedLmConfig::validate(config::Problems& problems) const {
  if (mask_replace_prob + random_replace_prob > 1)
    problems.add("random_replace_prob", {.what = "more than is left",
                                         .got = std::to_string(random_replace_prob),
                                         .expected = "at most 1 - mask_replace_prob"});
}

TokenMasker::TokenMasker(const MaskedLmConfig& config, const text::Tokenizer& tokenizer,
                         const std::string& tokenizer_path)
    : config_(config), mask_(tokenizer.special_tokens().mask), vocab_size_(tokenizer.vocab_size()) {
  if (mask_ < 0)
    refuse("the tokenizer has no mask token, which the model is to fill", tokenizer_path,
           "take an encoder's tokenizer, or learn one: tokenizer.train.type wordpiece");
  special_.resize(vocab_size_);
  for (size_t id = 0; id < vocab_size_; ++id) special_[id] = tokenizer.is_special(static_cast<text::TokenId>(id));
}

void TokenMasker::operator()(Example& example, uint64_t seed) const {
  if (!example.labels.empty()) return;
  RowRandom random(seed);
  example.labels.assign(example.input_ids.size(), kIgnore);
  for (size_t t = 0; t < example.input_ids.size(); ++t) {
    int32_t& id = example.input_ids[t];
    const bool chosen = random.uniform() < config_.mlm_probability;
    const double fate = random.uniform();
    if (!chosen || (static_cast<size_t>(id) < special_.size() && special_[static_cast<size_t>(id)])) continue;
    example.labels[t] = id;
    if (fate < config_.mask_replace_prob)
      id = mask_;
    else if (fate < config_.mask_replace_prob + config_.random_replace_prob)
      id = static_cast<int32_t>(random.below(vocab_size_));
  }
}

SpanCorruptor::SpanCorruptor(const SpanCorruptionConfig& config, const text::Tokenizer& tokenizer,
                             const std::string& tokenizer_path)
    : config_(config), tokenizer_path_(tokenizer_path), eos_(tokenizer.special_tokens().eos) {
  while (const auto id = tokenizer.token_to_id("<extra_id_" + std::to_string(sentinels_.size()) + ">"))
    sentinels_.push_back(*id);
  before_ = tokenizer.prefix();
  after_ = tokenizer.post_process({}, nullptr).ids;
  LLMTK_CHECK(std::equal(before_.begin(), before_.end(), after_.begin()));
  after_.erase(after_.begin(), after_.begin() + static_cast<int64_t>(before_.size()));
  if (eos_ < 0) refuse("the tokenizer has no end-of-text token", tokenizer_path, "take T5's own tokenizer");
  if (sentinels_.empty())
    refuse("the tokenizer has no sentinels, which stand for what is hidden", tokenizer_path,
           "take T5's own tokenizer, or learn one with <extra_id_0>, <extra_id_1>, ... among "
           "tokenizer.train.special_tokens");
}

SpanCorruptor::Counts SpanCorruptor::counts(int64_t length) const {
  const auto share = static_cast<int64_t>(std::nearbyint(static_cast<double>(length) * config_.noise_density));
  const int64_t noise = std::clamp<int64_t>(share, 1, std::max<int64_t>(1, length - 1));
  const auto spans =
      static_cast<int64_t>(std::nearbyint(static_cast<double>(noise) / config_.mean_noise_span_length));
  return {noise, std::clamp<int64_t>(spans, 1, std::max<int64_t>(1, std::min(noise, length - noise)))};
}

int64_t SpanCorruptor::text_length(int64_t length) const {
  const auto in_encoder = [this](int64_t n) {
    const Counts c = counts(n);
    return n - c.noise + c.spans + static_cast<int64_t>(before_.size() + after_.size());
  };
  int64_t n = 2;
  if (in_encoder(n) > length)
    throw Error(Exit::usage, {.what = "data.max_length leaves no room to hide anything",
                              .got = std::to_string(length),
                              .expected = std::to_string(in_encoder(n)) + " or more"});
  while (in_encoder(n + 1) <= length) ++n;
  if (const int64_t spans = counts(n).spans; spans > static_cast<int64_t>(sentinels_.size()))
    throw Error(Exit::usage, {.what = "the tokenizer has too few sentinels for rows of this length",
                              .where = tokenizer_path_,
                              .got = std::to_string(sentinels_.size()),
                              .expected = std::to_string(spans),
                              .hint = "lower data.max_length or data.span_corruption.noise_density, or raise "
                                      "data.span_corruption.mean_noise_span_length"});
  return n;
}

void SpanCorruptor::operator()(Example& example, uint64_t seed) const {
  if (!example.labels.empty()) return;
  RowRandom random(seed);
  const std::vector<int32_t> text = std::move(example.input_ids);
  example.input_ids = before_;
  const auto length = static_cast<int64_t>(text.size());
  size_t sentinel = 0;
  if (length > 1) {  // a single token has nothing beside it
    const Counts c = counts(length);
    const auto kept = random_parts(length - c.noise, c.spans, random), hidden = random_parts(c.noise, c.spans, random);
    auto at = text.begin();
    for (; sentinel < kept.size(); ++sentinel) {
      const int32_t mark = sentinels_.at(sentinel);
      example.input_ids.insert(example.input_ids.end(), at, at + kept[sentinel]);
      at += kept[sentinel];
      example.input_ids.push_back(mark);
      example.labels.push_back(mark);
      example.labels.insert(example.labels.end(), at, at + hidden[sentinel]);
      at += hidden[sentinel];
    }
  } else {
    example.input_ids.insert(example.input_ids.end(), text.begin(), text.end());
  }
  example.input_ids.insert(example.input_ids.end(), after_.begin(), after_.end());
  example.labels.push_back(eos_);
}

}  // namespace llmtk::data
