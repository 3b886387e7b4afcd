#pragma once
// What the tests of prompt methods, (IA)^3 and bottleneck adapters share.

#include <ATen/ATen.h>

#include <map>
#include <nlohmann/json.hpp>
#include <string>

#include "io/tensors.h"
#include "models/parity.h"
#include "models/registry.h"
#include "nn/causal_model.h"
#include "nn/encoder_model.h"
#include "nn/seq2seq_model.h"

namespace llmtk::test {

/// A model of any kind with random weights.
inline std::shared_ptr<nn::Model> new_model(const io::Json& config, c10::ScalarType dtype = at::kFloat) {
  auto model = models::make_model(config, "model", {dtype, c10::kCPU});
  model->initialize(5);
  model->eval();
  return model;
}

struct Inputs {
  at::Tensor ids, mask;    ///< [B, T]
  at::Tensor decoder_ids;  ///< of an encoder-decoder
};

/// What the model's head says: [B, T, V or labels], or [B, labels].
inline at::Tensor logits(nn::Model& model, const Inputs& in) {
  if (model.head() == nn::Head::sequence_classification)
    return model.class_logits({.input_ids = in.ids, .attention_mask = in.mask});
  if (auto* causal = dynamic_cast<nn::CausalModel*>(&model))
    return causal->logits(causal->forward(in.ids, {.attention_mask = in.mask}));
  if (auto* encoder = dynamic_cast<nn::EncoderModel*>(&model))
    return encoder->logits(encoder->forward(in.ids, {.attention_mask = in.mask}), in.mask);
  auto& seq2seq = dynamic_cast<nn::Seq2SeqModel&>(model);
  const at::Tensor encoded = seq2seq.encode(in.ids, {.attention_mask = in.mask});
  return seq2seq.logits(seq2seq.decode(in.decoder_ids, {.encoder_hidden = encoded, .encoder_attention_mask = in.mask}));
}

/// The mean of -log p(target) over the real tokens.
inline at::Tensor mean_loss(const at::Tensor& logits, const at::Tensor& targets, const at::Tensor& mask) {
  const at::Tensor losses = -at::log_softmax(logits, -1).gather(-1, targets.unsqueeze(-1)).squeeze(-1);
  if (losses.sizes() != mask.sizes()) return losses.mean();
  return (losses * mask).sum() / mask.sum();
}

/// What is trained, by peft's names without its prefixes.
inline std::map<std::string, at::Tensor> trained(const nn::Model& model) {
  std::map<std::string, at::Tensor> found;
  for (const auto& parameter : model.named_parameters()) {
    std::string name = parameter.key();
    if (!parameter.value().requires_grad()) continue;
    if (const size_t at = name.find(".ia3.ia3_l"); at != std::string::npos) name.erase(at, 4);
    found[name] = parameter.value();
  }
  return found;
}

}  // namespace llmtk::test
