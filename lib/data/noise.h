#pragma once
// Denoising objectives: what is hidden from a model that it has to say. Encoders fill masks (Devlin et al., BERT, 2018,
// section 3.1); encoder-decoders say what stood at the places of sentinels (Raffel et al., T5, 2020, section 3.1.4).

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "config/config.h"
#include "data/batch.h"
#include "text/tokenizer.h"

namespace llmtk::data {

/// As HF's DataCollatorForLanguageModeling: other tokens are hidden each time that a row is drawn.
struct MaskedLmConfig {
  double mlm_probability = 0.15;
  double mask_replace_prob = 0.8;
  double random_replace_prob = 0.1;

  template <class V>
  void fields(V& v) {
    v("mlm_probability", mlm_probability, "Share of the tokens that the model has to say", config::above(0),
      config::at_most(1));
    v("mask_replace_prob", mask_replace_prob, "Of these: share that becomes the mask token", config::between(0, 1));
    v("random_replace_prob", random_replace_prob, "Of these: share that becomes a random token; the rest stays",
      config::between(0, 1));
  }
  void validate(config::Problems& problems) const;
};

struct SpanCorruptionConfig {
  double noise_density = 0.15;
  double mean_noise_span_length = 3.0;

  template <class V>
  void fields(V& v) {
    v("noise_density", noise_density, "Share of the tokens that the model has to say", config::above(0),
      config::below(1));
    v("mean_noise_span_length", mean_noise_span_length, "Tokens hidden behind one sentinel, on average",
      config::at_least(1));
  }
};

/// Hides tokens of rows that have no labels yet. Immutable: one object serves all threads.
class TokenMasker {
 public:
  /// Throws Error(data) that names the tokenizer when it has no mask token.
  TokenMasker(const MaskedLmConfig& config, const text::Tokenizer& tokenizer, const std::string& tokenizer_path);
  /// labels: the ids that were hidden, kIgnore elsewhere. Special tokens are never hidden.
  void operator()(Example& example, uint64_t random) const;

 private:
  MaskedLmConfig config_;
  text::TokenId mask_;
  uint64_t vocab_size_;
  std::vector<char> special_;  // by id
};

/// Replaces spans by sentinels (<extra_id_0>, <extra_id_1>, ...) in rows that have no labels yet; the labels are each
/// sentinel and what it stands for, and eos, as T5's random_spans_noise_mask and the functions around it have it. What is
/// left stands between what the tokenizer puts around a text (T5's: eos behind it).
class SpanCorruptor {
 public:
  /// Throws Error(data) that names the tokenizer when it has no eos, or no sentinels.
  SpanCorruptor(const SpanCorruptionConfig& config, const text::Tokenizer& tokenizer,
                const std::string& tokenizer_path);
  void operator()(Example& example, uint64_t random) const;

  /// Tokens of a text that become at most `length` of the encoder's. Throws Error(usage) when a row of
  /// them would need more sentinels than there are.
  int64_t text_length(int64_t length) const;

 private:
  struct Counts {
    int64_t noise, spans;
  };
  Counts counts(int64_t length) const;

  SpanCorruptionConfig config_;
  std::string tokenizer_path_;
  text::TokenId eos_;
  std::vector<text::TokenId> sentinels_, before_, after_;
};

}  // namespace llmtk::data
