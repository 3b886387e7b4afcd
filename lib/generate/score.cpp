#include "generate/score.h"

#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <functional>
#include <nlohmann/json.hpp>
#include <numeric>

#include "core/error.h"

namespace llmtk::generate {
namespace {

using text::TokenId;

/// Rows of ids on the right of which shorter ones are padded with 0.
struct PaddedRows {
  at::Tensor ids;   // [B, T]
  at::Tensor mask;  // [B, T] bool
};

PaddedRows pad_rows(const std::vector<std::vector<TokenId>>& rows) {
  size_t longest = 0;
  for (const auto& row : rows) longest = std::max(longest, row.size());
  const auto B = static_cast<int64_t>(rows.size()), T = static_cast<int64_t>(longest);
  PaddedRows out{at::zeros({B, T}, at::kLong), at::zeros({B, T}, at::kBool)};
  for (int64_t b = 0; b < B; ++b) {
    std::copy(rows[b].begin(), rows[b].end(), out.ids.data_ptr<int64_t>() + b * T);
    out.mask[b].slice(0, 0, static_cast<int64_t>(rows[b].size())).fill_(true);
  }
  return out;
}

/// Places (row * T + t) of the hidden states that predict the targets, and the targets.
struct Places {
  std::vector<int64_t> index, targets;

  void add(int64_t row, int64_t first, int64_t T, const std::vector<TokenId>& row_targets) {
    for (size_t t = 0; t < row_targets.size(); ++t) {
      index.push_back(row * T + first + static_cast<int64_t>(t));
      targets.push_back(row_targets[t]);
    }
  }
};

using ScoredBatch = std::vector<const Scored*>;

/// hidden: [B, T, H] of the batch.
template <class Model>
std::vector<float> at_places(Model& model, const at::Tensor& hidden, const Places& places) {
  const auto device = hidden.device();
  const at::Tensor predicting = hidden.flatten(0, 1).index_select(0, at::tensor(places.index).to(device));
  const at::Tensor found = model.log_prob(predicting, at::tensor(places.targets).to(device)).cpu();
  if (!found.isfinite().all().item<bool>())
    throw Error(Exit::diverged, {.what = "the model's logits are not finite",
                                 .hint = "with --dtype float16 try bfloat16 or float32; else the weights are broken"});
  return {found.const_data_ptr<float>(), found.const_data_ptr<float>() + found.numel()};
}

std::vector<float> score_batch(nn::CausalModel& model, const ScoredBatch& batch) {
  std::vector<std::vector<TokenId>> inputs;
  for (const Scored* row : batch) {
    LLMTK_CHECK(!row->context.empty(), "a row without context");
    inputs.push_back(row->context);
    // The last target predicts nothing.
    if (!row->targets.empty()) inputs.back().insert(inputs.back().end(), row->targets.begin(), row->targets.end() - 1);
  }
  const PaddedRows padded = pad_rows(inputs);
  Places places;
  for (size_t b = 0; b < batch.size(); ++b)
    places.add(static_cast<int64_t>(b), static_cast<int64_t>(batch[b]->context.size()) - 1, padded.ids.size(1),
               batch[b]->targets);
  // No mask: in a decoder nothing looks to the right, where the padding is.
  return at_places(model, model.forward(padded.ids.to(model.device())), places);
}

std::vector<float> score_batch(nn::Seq2SeqModel& model, const ScoredBatch& batch, TokenId start) {
  std::vector<std::vector<TokenId>> contexts, inputs;
  for (const Scored* row : batch) {
    LLMTK_CHECK(!row->context.empty(), "a row without context");
    contexts.push_back(row->context);
    inputs.push_back({start});
    if (!row->targets.empty()) inputs.back().insert(inputs.back().end(), row->targets.begin(), row->targets.end() - 1);
  }
  const auto device = model.device();
  const PaddedRows encoder = pad_rows(contexts), decoder = pad_rows(inputs);
  const at::Tensor mask = encoder.mask.to(device);
  const at::Tensor encoded = model.encode(encoder.ids.to(device), {.attention_mask = mask});
  Places places;
  for (size_t b = 0; b < batch.size(); ++b)
    places.add(static_cast<int64_t>(b), 0, decoder.ids.size(1), batch[b]->targets);
  const at::Tensor hidden =
      model.decode(decoder.ids.to(device), {.encoder_hidden = encoded, .encoder_attention_mask = mask});
  return at_places(model, hidden, places);
}

/// score_batch(batch) gives the log-probabilities of all targets of a batch, row after row. only_alike: rows of other
/// lengths do not meet in one.
std::vector<std::vector<float>> score_rows(std::span<const Scored> rows, int64_t batch_size, bool only_alike,
                                           const std::function<std::vector<float>(const ScoredBatch&)>& score_batch) {
  LLMTK_CHECK(batch_size >= 1, "batch_size is ", batch_size);
  const c10::NoGradGuard no_gradients;
  const auto length = [&](size_t i) { return rows[i].context.size() + rows[i].targets.size(); };
  std::vector<size_t> order(rows.size());
  std::iota(order.begin(), order.end(), size_t{0});
  // The longest first: what does not fit in memory shows at once.
  std::ranges::stable_sort(order, [&](size_t a, size_t b) { return length(a) > length(b); });

  std::vector<std::vector<float>> result(rows.size());
  for (size_t begin = 0, end = 0; begin < order.size(); begin = end) {
    ScoredBatch batch;
    while (end < order.size() && end - begin < static_cast<size_t>(batch_size) &&
           !(only_alike && length(order[end]) != length(order[begin])))
      batch.push_back(&rows[order[end++]]);
    const std::vector<float> found = score_batch(batch);
    auto next = found.begin();
    for (size_t i = begin; i < end; ++i) {
      const auto count = static_cast<ptrdiff_t>(rows[order[i]].targets.size());
      result[order[i]].assign(next, next + count);
      next += count;
    }
  }
  return result;
}

}  // namespace

std::vector<std::vector<float>> score(nn::CausalModel& model, std::span<const Scored> rows, int64_t batch_size) {
  return score_rows(rows, batch_size, model.depends_on_length(),
                    [&](const ScoredBatch& batch) { return score_batch(model, batch); });
}

std::vector<std::vector<float>> score(nn::Seq2SeqModel& model, std::span<const Scored> rows, int64_t batch_size,
                                      TokenId start) {
  return score_rows(rows, batch_size, /*only_alike=*/false,
                    [&](const ScoredBatch& batch) { return score_batch(model, batch, start); });
}

Scored after_prompt(std::span<const TokenId> prompt, std::span<const TokenId> whole) {
  const auto cut = std::ranges::mismatch(prompt, whole).in2;
  return {.context = {whole.begin(), cut}, .targets = {cut, whole.end()}};
}

std::vector<Window> windows(size_t tokens, size_t length, size_t stride) {
  LLMTK_CHECK(length >= 2 && stride >= 1 && stride <= length, "windows of ", length, ", ", stride, " apart");
  std::vector<Window> found;
  for (size_t begin = 0, scored = 0; scored < tokens; begin += stride) {
    const size_t end = std::min(begin + length, tokens);
    found.push_back({begin, std::max(scored, begin + 1), end});
    scored = end;
  }
  return found;
}

}  // namespace llmtk::generate
