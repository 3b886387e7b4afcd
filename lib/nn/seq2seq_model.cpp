#include "nn/seq2seq_model.h"

#include <ATen/ops/arange.h>

#include <utility>

#include "kernels/cross_entropy.h"

namespace llmtk::nn {

Seq2SeqCache::Seq2SeqCache(int64_t layers, int64_t batch, int64_t heads, int64_t max_length, int64_t head_dim,
                           const Build& build)
    : tokens_(layers, batch, heads, max_length, head_dim, build),
      encoded_(static_cast<size_t>(layers)),
      sources_(at::arange(batch, at::kLong)) {}

void Seq2SeqCache::reorder(const at::Tensor& rows) {
  tokens_.reorder(rows);
  const at::Tensor before = std::exchange(sources_, sources_.index_select(0, rows.cpu()));
  if (sources_.equal(before)) return;
  const auto move = [&](at::Tensor& held) {
    if (held.defined()) held = held.index_select(0, rows.to(held.device()));
  };
  for (auto& [keys, values] : encoded_) {
    move(keys);
    move(values);
  }
  move(encoder_mask_);
}

std::unique_ptr<Seq2SeqCache> Seq2SeqModel::make_cache(int64_t batch, int64_t max_length) const {
  const auto [layers, heads, head_dim] = key_value_shape();
  const int64_t before = virtual_tokens() ? virtual_tokens()->length() : 0;
  return std::make_unique<Seq2SeqCache>(layers, batch, heads, before + max_length, head_dim, Build{dtype(), device()});
}

at::Tensor Seq2SeqModel::cross_entropy(const at::Tensor& hidden, const at::Tensor& targets, double scale,
                                       int64_t ignore_index) {
  return kernels::linear_cross_entropy(hidden, lm_head().effective_weight(hidden.scalar_type()), targets,
                                       {.ignore_index = ignore_index, .scale = scale});
}

at::Tensor Seq2SeqModel::log_prob(const at::Tensor& hidden, const at::Tensor& targets) {
  return kernels::linear_log_prob(hidden, lm_head().effective_weight(hidden.scalar_type()), targets).log_probs;
}

}  // namespace llmtk::nn
