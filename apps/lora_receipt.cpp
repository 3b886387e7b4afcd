#include "lora_receipt.h"

#include <ATen/ATen.h>

#include <cmath>

#include "nn/causal_model.h"
#include "nn/encoder_model.h"
#include "nn/seq2seq_model.h"
#include "nn/sequence_classifier.h"

namespace llmtk {
namespace {

/// What the model's head says of one row: [T, V], or a classifier's [1, labels]. An encoder-decoder reads the row on
/// both sides.
at::Tensor logits_of(nn::Model& model, const at::Tensor& ids) {
  if (dynamic_cast<nn::Seq2SeqClassifier*>(&model)) {
    const at::Tensor end = at::full({1, 1}, model.config().value("eos_token_id", int64_t{1}), ids.options());
    return model.class_logits({.input_ids = at::cat({ids, end}, 1)});
  }
  if (model.head() == nn::Head::sequence_classification) return model.class_logits({.input_ids = ids});
  if (auto* causal = dynamic_cast<nn::CausalModel*>(&model)) return causal->logits(causal->forward(ids))[0];
  if (auto* encoder = dynamic_cast<nn::EncoderModel*>(&model))
    return encoder->logits(encoder->forward(ids)).flatten(0, -2);
  auto& seq2seq = dynamic_cast<nn::Seq2SeqModel&>(model);
  return seq2seq.logits(seq2seq.decode(ids, {.encoder_hidden = seq2seq.encode(ids)}))[0];
}

double nll(const at::Tensor& logits, const at::Tensor& ids) {
  return -at::log_softmax(logits.slice(0, 0, -1), -1).gather(1, ids[0].slice(0, 1).unsqueeze(1)).sum().item<double>();
}

}  // namespace

nlohmann::ordered_json Receipt::json() const {
  nlohmann::ordered_json json = {{"tokens", tokens},
                                 {"largest_logit_difference", largest_logit_difference},
                                 {"largest_logit", largest_logit},
                                 {"mean_kl", mean_kl}};
  if (scored == 0) return json;
  const auto perplexity = [&](double sum) { return std::exp(sum / static_cast<double>(scored)); };
  json["perplexity"] = {
      {"base", perplexity(base_nll)}, {"adapter", perplexity(adapter_nll)}, {"merged", perplexity(merged_nll)}};
  return json;
}

Receipt compare(nn::Model* base, nn::Model& adapted, nn::Model& merged,
                const std::vector<std::vector<text::TokenId>>& rows) {
  const at::NoGradGuard no_grad;
  Receipt receipt;
  double kl = 0;
  int64_t positions = 0;
  for (const auto& row : rows) {
    const std::vector<int64_t> wide(row.begin(), row.end());
    const at::Tensor ids = at::tensor(wide).unsqueeze(0).to(adapted.device());
    const at::Tensor before = logits_of(adapted, ids).to(at::kFloat), after = logits_of(merged, ids).to(at::kFloat);
    receipt.tokens += ids.numel();
    receipt.largest_logit_difference =
        std::max(receipt.largest_logit_difference, (before - after).abs().max().item<double>());
    receipt.largest_logit = std::max(receipt.largest_logit, before.abs().max().item<double>());
    const at::Tensor p = at::log_softmax(before, -1, at::kDouble), q = at::log_softmax(after, -1, at::kDouble);
    kl += (p.exp() * (p - q)).sum().item<double>();
    positions += before.size(0);
    if (!base || row.size() < 2) continue;
    receipt.scored += ids.numel() - 1;
    receipt.base_nll += nll(logits_of(*base, ids).to(at::kFloat), ids);
    receipt.adapter_nll += nll(before, ids);
    receipt.merged_nll += nll(after, ids);
  }
  receipt.mean_kl = positions ? std::max(0.0, kl / static_cast<double>(positions)) : 0;
  return receipt;
}

}  // namespace llmtk
