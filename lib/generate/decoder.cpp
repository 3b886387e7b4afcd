#include "generate/decoder.h"

#include <ATen/ops/stack.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <span>

#include "core/error.h"
#include "generate/stepper.h"
#include "kernels/elementwise.h"
#include "nn/causal_model.h"
#include "nn/kv_cache.h"
#include "nn/seq2seq_model.h"

namespace llmtk::generate {
namespace {

using at::Tensor;
using text::TokenId;
using Prompts = std::vector<const std::vector<TokenId>*>;

/// Token ids padded behind with 0 to one length, and where they are real.
struct Padded {
  Tensor ids, mask;  // [B, T] int64, bool
  bool any = false;  // whether there is padding
};

/// The ids of the prompts from `begin` on.
Padded pad(const Prompts& prompts, size_t begin = 0) {
  const auto B = static_cast<int64_t>(prompts.size());
  size_t longest = 0;
  for (const auto* prompt : prompts) longest = std::max(longest, prompt->size() - begin);
  const auto T = static_cast<int64_t>(longest);
  Padded padded{at::zeros({B, T}, at::kLong), at::zeros({B, T}, at::kBool)};
  for (int64_t b = 0; b < B; ++b) {
    const auto rest = std::span(*prompts[b]).subspan(begin);
    std::ranges::copy(rest, padded.ids.data_ptr<int64_t>() + b * T);
    padded.mask[b].narrow(0, 0, static_cast<int64_t>(rest.size())).fill_(true);
    padded.any = padded.any || static_cast<int64_t>(rest.size()) < T;
  }
  return padded;
}

/// How many tokens all prompts begin with alike, at least one of each left out; 0 where it is not worth a pass of its
/// own.
int64_t common_tokens(const Prompts& prompts) {
  constexpr size_t kWorthwhile = 32;
  size_t common = prompts[0]->size() - 1;
  for (const auto* prompt : prompts) {
    common = std::min(common, prompt->size() - 1);
    const auto differs =
        std::mismatch(prompt->begin(), prompt->begin() + static_cast<std::ptrdiff_t>(common), prompts[0]->begin());
    common = static_cast<size_t>(differs.first - prompt->begin());
  }
  return prompts.size() > 1 && common >= kWorthwhile ? static_cast<int64_t>(common) : 0;
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

/// Prompts of different lengths are padded behind, where no token sees it; from then on each row goes on at its own
/// end.
class CausalDecoder final : public Decoder {
 public:
  CausalDecoder(nn::CausalModel& model, const GenerateOptions& options)
      : model_(model), device_(model.device()), options_(options), prefix_(options.prefix), stepper_(model) {}

  Tensor start(const Prompts& prompts, int64_t new_tokens) override {
    rows_ = static_cast<int64_t>(prompts.size());
    if (prefix_) return continue_prefix(*prompts.at(0));
    int64_t longest = 0;
    for (const auto* prompt : prompts) longest = std::max(longest, static_cast<int64_t>(prompt->size()));
    own_cache_.reset();  // before the next one takes memory
    const int64_t common = common_tokens(prompts);
    own_cache_ = model_.make_cache(common > 0 ? 1 : rows_, longest + new_tokens, options_.cache_type);
    cache_ = own_cache_.get();
    stepper_.begin(*cache_);
    if (common > 0) {  // read once, for all rows
      read(pad({prompts[0]}).ids.narrow(1, 0, common), {}, longest);
      cache_->reorder(at::zeros({rows_}, at::kLong));
      if (options_.on_prefill) options_.on_prefill();
    }
    std::vector<int64_t> lengths, last;
    for (const auto* prompt : prompts) {
      lengths.push_back(static_cast<int64_t>(prompt->size()));
      last.push_back(lengths.back() - common - 1);
    }
    const Tensor hidden = read(pad(prompts, static_cast<size_t>(common)).ids, last, longest);
    cache_->truncate(lengths);
    return logits(hidden);
  }

  using Decoder::step;
  Tensor step(const std::vector<TokenId>& ids, int64_t tokens) override {
    if (prefix_) prefix_->ids.insert(prefix_->ids.end(), ids.begin(), ids.end());
    return stepper_.step(ids, tokens);
  }

  void truncate(const std::vector<int64_t>& lengths) override {
    cache_->truncate(lengths);
    if (prefix_) prefix_->ids.resize(static_cast<size_t>(lengths[0]));
  }

  void select(const std::vector<int64_t>& rows) override {
    if (is_identity(rows, rows_)) return;
    LLMTK_CHECK(!prefix_, "a prefix belongs to one row");
    cache_->reorder(at::tensor(rows, at::kLong));
    rows_ = static_cast<int64_t>(rows.size());
  }

 private:
  /// ids [B, T] behind what the cache holds, piece by piece. Returns the hidden state of each row's token last[b], [B,
  /// H]; of the last column where `last` is empty.
  Tensor read(const Tensor& ids, const std::vector<int64_t>& last, int64_t sequence_length) {
    const int64_t T = ids.size(1);
    std::vector<Tensor> found(static_cast<size_t>(ids.size(0)));
    for (int64_t begin = 0; begin < T; begin += kPrefillTokens) {
      if (begin > 0 && options_.on_prefill) options_.on_prefill();
      const int64_t length = std::min(kPrefillTokens, T - begin);
      nn::ForwardContext context;
      context.cache = cache_;
      context.sequence_length = sequence_length;
      const Tensor hidden = model_.forward(ids.narrow(1, begin, length).to(device_), context);  // [B, length, H]
      for (size_t b = 0; b < found.size(); ++b)
        if (const int64_t at = (last.empty() ? T - 1 : last[b]) - begin; at >= 0 && at < length)
          found[b] = hidden[static_cast<int64_t>(b)][at];
    }
    return at::stack(found);
  }

  Tensor logits(const Tensor& hidden) { return kernels::widen(model_.logits(hidden)); }  // [B, H] -> [B, V]

  /// Reads what `prompt` has behind what it has in common with the prefix: at least its last token.
  Tensor continue_prefix(const std::vector<TokenId>& prompt) {
    LLMTK_CHECK(rows_ == 1, "a prefix belongs to one row, not to ", rows_);
    auto& [ids, cache, reused] = *prefix_;
    if (!cache) cache = model_.make_cache(1, model_.max_positions(), options_.cache_type);
    const auto differs = std::ranges::mismatch(ids, prompt);
    const auto common = std::min({differs.in1 - ids.begin(), static_cast<std::ptrdiff_t>(prompt.size()) - 1,
                                  static_cast<std::ptrdiff_t>(cache->length())});
    cache->truncate(common);
    ids = prompt;
    reused = static_cast<size_t>(common);
    cache_ = cache.get();
    stepper_.begin(*cache_);
    return logits(read(pad({&prompt}, static_cast<size_t>(common)).ids, {}, static_cast<int64_t>(prompt.size())));
  }

  nn::CausalModel& model_;
  c10::Device device_;
  const GenerateOptions& options_;
  Prefix* prefix_;
  Stepper stepper_;
  std::unique_ptr<nn::KVCache> own_cache_;
  nn::KVCache* cache_ = nullptr;
  int64_t rows_ = 0;
};

/// The prompts are what the encoder reads, padded on the right; every row begins with the start token.
class Seq2SeqDecoder final : public Decoder {
 public:
  Seq2SeqDecoder(nn::Seq2SeqModel& model, TokenId start_token)
      : model_(model), device_(model.device()), start_token_(start_token) {}

  Tensor start(const Prompts& prompts, int64_t new_tokens) override {
    const Padded padded = pad(prompts);
    rows_ = static_cast<int64_t>(prompts.size());
    nn::EncoderContext encoder;
    nn::DecoderContext decoder;
    if (padded.any) encoder.attention_mask = decoder.encoder_attention_mask = padded.mask.to(device_);
    decoder.encoder_hidden = model_.encode(padded.ids.to(device_), encoder);  // [B, S, H]
    cache_ = model_.make_cache(rows_, 1 + new_tokens);
    return forward(std::vector<TokenId>(prompts.size(), start_token_), decoder);
  }

  using Decoder::step;
  Tensor step(const std::vector<TokenId>& ids, int64_t tokens) override {
    LLMTK_CHECK(tokens == 1, "an encoder-decoder takes a token at a time, not ", tokens);
    return forward(ids, {}).unsqueeze(1);
  }
  void truncate(const std::vector<int64_t>&) override { LLMTK_CHECK(false, "an encoder-decoder forgets nothing"); }

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

std::unique_ptr<Decoder> make_decoder(nn::Model& model, const GenerationConfig& config,
                                      const GenerateOptions& options) {
  const Prefix* prefix = options.prefix;
  if (auto* decoder = dynamic_cast<nn::CausalModel*>(&model)) return std::make_unique<CausalDecoder>(*decoder, options);
  auto* seq2seq = dynamic_cast<nn::Seq2SeqModel*>(&model);
  if (!seq2seq || prefix)
    throw Error(Exit::usage, {.what = prefix ? "only a decoder goes on with what it has read before"
                                             : "a model of this kind does not write texts",
                              .got = model.kind(),
                              .expected = prefix ? "a decoder" : "a decoder or an encoder-decoder"});
  if (options.cache_type != nn::CacheType::plain)
    throw Error(
        Exit::usage,
        {.what = "keys and values are kept in 8 bits by decoders alone", .got = model.kind(), .expected = "a decoder"});
  return std::make_unique<Seq2SeqDecoder>(*seq2seq, start_token(*seq2seq, config));
}

}  // namespace llmtk::generate
