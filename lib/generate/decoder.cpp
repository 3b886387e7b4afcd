#include "generate/decoder.h"

#include <ATen/ops/ones.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include <algorithm>

#include "core/error.h"
#include "nn/causal_model.h"
#include "nn/kv_cache.h"
#include "nn/seq2seq_model.h"

namespace llmtk::generate {
namespace {

using at::Tensor;
using text::TokenId;
using Prompts = std::vector<const std::vector<TokenId>*>;

enum class Side { left, right };

/// Token ids padded with 0 to one length, and where they are real.
struct Padded {
  Tensor ids, mask;  // [B, T] int64, bool
  bool any = false;  // whether there is padding
};

Padded pad(const Prompts& prompts, Side side) {
  const auto B = static_cast<int64_t>(prompts.size());
  size_t longest = 0;
  for (const auto* prompt : prompts) longest = std::max(longest, prompt->size());
  const auto T = static_cast<int64_t>(longest);
  Padded padded{at::zeros({B, T}, at::kLong), at::zeros({B, T}, at::kBool)};
  for (int64_t b = 0; b < B; ++b) {
    const auto length = static_cast<int64_t>(prompts[b]->size()), begin = side == Side::left ? T - length : 0;
    std::ranges::copy(*prompts[b], padded.ids.data_ptr<int64_t>() + b * T + begin);
    padded.mask[b].narrow(0, begin, length).fill_(true);
    padded.any = padded.any || length < T;
  }
  return padded;
}

Tensor column(const std::vector<TokenId>& ids, c10::Device device) {
  return at::tensor(std::vector<int64_t>(ids.begin(), ids.end()), at::kLong).unsqueeze(1).to(device);  // [B, 1]
}

bool is_identity(const std::vector<int64_t>& rows, int64_t size) {
  if (static_cast<int64_t>(rows.size()) != size) return false;
  for (size_t i = 0; i < rows.size(); ++i)
    if (rows[i] != static_cast<int64_t>(i)) return false;
  return true;
}

/// Prompts of different lengths are padded on the left and masked, with positions that count from the first real token.
class CausalDecoder final : public Decoder {
 public:
  CausalDecoder(nn::CausalModel& model, const GenerateOptions& options)
      : model_(model), device_(model.device()), options_(options), prefix_(options.prefix) {}

  Tensor start(const Prompts& prompts, int64_t new_tokens) override {
    rows_ = static_cast<int64_t>(prompts.size());
    lengths_.clear();
    for (const auto* prompt : prompts) lengths_.push_back(static_cast<int64_t>(prompt->size()));
    mask_.reset();
    if (prefix_) return read(unread(*prompts.at(0)), {});
    const Padded padded = pad(prompts, Side::left);
    const int64_t T = padded.ids.size(1);
    own_cache_.reset();  // before the next one takes memory
    own_cache_ = model_.make_cache(rows_, T + new_tokens);
    cache_ = own_cache_.get();
    Tensor positions;
    if (padded.any) {  // without padding no mask is needed, and attention is faster without one
      mask_ = at::cat({padded.mask, at::ones({rows_, new_tokens}, at::kBool)}, 1).to(device_);
      positions = (padded.mask.cumsum(1) - 1).clamp_min(0);  // as transformers counts them
    }
    return read(padded.ids.to(device_), positions);
  }

  Tensor step(const std::vector<TokenId>& ids) override {
    LLMTK_CHECK(static_cast<int64_t>(ids.size()) == rows_, ids.size(), " ids for ", rows_, " rows");
    if (prefix_) prefix_->ids.push_back(ids[0]);
    Tensor positions;
    if (mask_.defined()) positions = at::tensor(lengths_, at::kLong).unsqueeze(1);
    for (int64_t& length : lengths_) ++length;
    return logits(forward(column(ids, device_), positions));
  }

  void select(const std::vector<int64_t>& rows) override {
    if (is_identity(rows, rows_)) return;
    LLMTK_CHECK(!prefix_, "a prefix belongs to one row");
    const Tensor index = at::tensor(rows, at::kLong);
    cache_->reorder(index);
    if (mask_.defined()) mask_ = mask_.index_select(0, index.to(device_));
    std::vector<int64_t> lengths;
    for (const int64_t row : rows) lengths.push_back(lengths_[row]);
    lengths_ = std::move(lengths);
    rows_ = static_cast<int64_t>(rows.size());
  }

 private:
  /// ids [B, T] with their positions, or none defined, piece by piece. Returns the logits behind the last.
  Tensor read(const Tensor& ids, const Tensor& positions) {
    const int64_t T = ids.size(1), longest = *std::ranges::max_element(lengths_);
    const auto piece = [&](int64_t begin, int64_t length) {
      return forward(ids.narrow(1, begin, length),
                     positions.defined() ? positions.narrow(1, begin, length) : positions, longest);
    };
    int64_t begin = 0;
    for (; T - begin > kPrefillTokens; begin += kPrefillTokens) {
      piece(begin, kPrefillTokens);
      if (options_.on_prefill) options_.on_prefill();
    }
    return logits(piece(begin, T - begin));
  }

  /// Returns the hidden states [B, T, H].
  Tensor forward(const Tensor& ids, const Tensor& positions, int64_t sequence_length = 0) {
    nn::ForwardContext context;
    context.cache = cache_;
    context.sequence_length = sequence_length;
    if (positions.defined()) context.position_ids = positions.to(device_);
    if (mask_.defined()) context.attention_mask = mask_.narrow(1, 0, cache_->length() + ids.size(1));
    return model_.forward(ids, context);
  }

  /// Of the last token of hidden [B, T, H]: [B, V].
  Tensor logits(const Tensor& hidden) { return model_.logits(hidden.select(1, hidden.size(1) - 1)).to(at::kFloat); }

  /// The ids of `prompt` behind what the prefix has in common with it, and at least the last one: [1, T].
  Tensor unread(const std::vector<TokenId>& prompt) {
    LLMTK_CHECK(rows_ == 1, "a prefix belongs to one row, not to ", rows_);
    auto& [ids, cache, reused] = *prefix_;
    if (!cache) cache = model_.make_cache(1, model_.max_positions());
    const auto differs = std::ranges::mismatch(ids, prompt);
    const auto common = std::min({differs.in1 - ids.begin(), static_cast<std::ptrdiff_t>(prompt.size()) - 1,
                                  static_cast<std::ptrdiff_t>(cache->length())});
    cache->truncate(common);
    ids = prompt;
    reused = static_cast<size_t>(common);
    cache_ = cache.get();
    return at::tensor(std::vector<int64_t>(prompt.begin() + common, prompt.end()), at::kLong).unsqueeze(0).to(device_);
  }

  nn::CausalModel& model_;
  c10::Device device_;
  const GenerateOptions& options_;
  Prefix* prefix_;
  std::unique_ptr<nn::KVCache> own_cache_;
  nn::KVCache* cache_ = nullptr;
  int64_t rows_ = 0;
  std::vector<int64_t> lengths_;  // of each row, without padding
  Tensor mask_;                   // [B, T + new tokens], or undefined when no row is padded
};

/// The prompts are what the encoder reads, padded on the right; every row begins with the start token.
class Seq2SeqDecoder final : public Decoder {
 public:
  Seq2SeqDecoder(nn::Seq2SeqModel& model, TokenId start_token)
      : model_(model), device_(model.device()), start_token_(start_token) {}

  Tensor start(const Prompts& prompts, int64_t new_tokens) override {
    const Padded padded = pad(prompts, Side::right);
    rows_ = static_cast<int64_t>(prompts.size());
    nn::EncoderContext encoder;
    nn::DecoderContext decoder;
    if (padded.any) encoder.attention_mask = decoder.encoder_attention_mask = padded.mask.to(device_);
    decoder.encoder_hidden = model_.encode(padded.ids.to(device_), encoder);  // [B, S, H]
    cache_ = model_.make_cache(rows_, 1 + new_tokens);
    return forward(std::vector<TokenId>(prompts.size(), start_token_), decoder);
  }

  Tensor step(const std::vector<TokenId>& ids) override { return forward(ids, {}); }

  void select(const std::vector<int64_t>& rows) override {
    if (is_identity(rows, rows_)) return;
    cache_->reorder(at::tensor(rows, at::kLong));
    rows_ = static_cast<int64_t>(rows.size());
  }

 private:
  Tensor forward(const std::vector<TokenId>& ids, nn::DecoderContext context) {
    context.cache = cache_.get();
    const Tensor hidden = model_.decode(column(ids, device_), context);  // [B, 1, H]
    return model_.logits(hidden.select(1, 0)).to(at::kFloat);
  }

  nn::Seq2SeqModel& model_;
  c10::Device device_;
  TokenId start_token_;
  int64_t rows_ = 0;
  std::unique_ptr<nn::Seq2SeqCache> cache_;
};

}  // namespace

TokenId start_token(const nn::Seq2SeqModel& model, const GenerationConfig& config) {
  return config.decoder_start_token_id >= 0 ? config.decoder_start_token_id
                                            : static_cast<TokenId>(model.decoder_start_token_id());
}

std::unique_ptr<Decoder> make_decoder(nn::Model& model, const GenerationConfig& config, const GenerateOptions& options) {
  const Prefix* prefix = options.prefix;
  if (auto* decoder = dynamic_cast<nn::CausalModel*>(&model)) return std::make_unique<CausalDecoder>(*decoder, options);
  auto* seq2seq = dynamic_cast<nn::Seq2SeqModel*>(&model);
  if (!seq2seq || prefix)
    throw Error(Exit::usage, {.what = prefix ? "only a decoder goes on with what it has read before"
                                             : "a model of this kind does not write texts",
                              .got = model.kind(),
                              .expected = prefix ? "a decoder" : "a decoder or an encoder-decoder"});
  return std::make_unique<Seq2SeqDecoder>(*seq2seq, start_token(*seq2seq, config));
}

}  // namespace llmtk::generate
