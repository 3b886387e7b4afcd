#include "nn/sequence_classifier.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/full.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/tanh.h>

#include "core/error.h"
#include "nn/init.h"
#include "nn/norm.h"

namespace llmtk::nn {

SequenceClassifier::SequenceClassifier(std::shared_ptr<Model> body, const Linear& lm_head, const std::string& under,
                                       ClassifierOptions options)
    : options_(std::move(options)),
      body_(std::move(body)),
      lm_head_size_(static_cast<double>(lm_head.in_features()) * static_cast<double>(lm_head.out_features())),
      under_(under.empty() ? "" : under + ".") {
  torch::nn::Module* parent = this;
  if (!under.empty()) parent = register_module(under, std::make_shared<torch::nn::Module>()).get();
  for (const auto& child : body_->named_children())
    if (child.value().get() != &lm_head) parent->register_module(child.key(), child.value());
}

double SequenceClassifier::training_flops_per_token(int64_t sequence_length) const {
  return body_->training_flops_per_token(sequence_length) - 6 * lm_head_size_;  // its own head reads one token
}

std::map<std::string, at::Tensor> SequenceClassifier::tied_names() {
  std::map<std::string, at::Tensor> names;
  for (const auto& [name, tensor] : body_->tied_names())
    if (name.ends_with("embed_tokens.weight")) names.emplace(under_ + name, tensor);  // else a head's
  return names;
}

void SequenceClassifier::set_virtual_tokens(std::shared_ptr<VirtualTokens> tokens) {
  Model::set_virtual_tokens(tokens);  // named and trained here
  body_->set_virtual_tokens(std::move(tokens));
}

void SequenceClassifier::train(bool on) {
  Model::train(on);
  body_->train(on);
}

void SequenceClassifier::initialize(uint64_t seed) {
  body_->initialize(seed);
  const auto of_body = body_->named_parameters();
  for (const auto& parameter : named_parameters())
    if (const auto& name = parameter.key(); !name.starts_with(under_) || !of_body.contains(name.substr(under_.size())))
      initialize_parameter(name, parameter.value(), seed);
}

void SequenceClassifier::initialize_parameter(const std::string& name, const at::Tensor& parameter, uint64_t seed) {
  if (parameter.dim() == 1) return init_constant(parameter, 0);
  init_normal(parameter, options_.initializer_range, seed, name);
}

DecoderClassifier::DecoderClassifier(std::shared_ptr<CausalModel> body, ClassifierOptions options, const Build& build)
    : SequenceClassifier(body, body->lm_head(), "", std::move(options)), body_(std::move(body)) {
  score_ = register_module("score", std::make_shared<Linear>(body_->lm_head().in_features(), num_labels(),
                                                             Linear::Options{.bias = false}, build));
}

at::Tensor DecoderClassifier::forward(const at::Tensor& input_ids, const ForwardContext& context) {
  return body_->forward(input_ids, context);
}

at::Tensor DecoderClassifier::last_tokens(const at::Tensor& input_ids, const at::Tensor& attention_mask) const {
  LLMTK_CHECK(input_ids.dim() == 2, "input_ids is ", input_ids.sizes(), ", expected [B, T]");
  const int64_t pad = options_.pad_token_id;
  at::Tensor real = pad >= 0 ? input_ids.ne(pad) : at::full_like(input_ids, 1, at::kBool);
  if (attention_mask.defined()) real = real.logical_and(attention_mask);
  return (at::arange(input_ids.size(1), input_ids.options()) * real).argmax(1);  // [B]
}

at::Tensor DecoderClassifier::logits(const at::Tensor& hidden, const at::Tensor& input_ids,
                                     const at::Tensor& attention_mask) {
  const at::Tensor last = last_tokens(input_ids, attention_mask).view({-1, 1, 1}).expand({-1, 1, hidden.size(2)});
  return scores(hidden.gather(1, last).squeeze(1));  // [B, labels]
}

at::Tensor DecoderClassifier::class_logits(const Texts& texts) {
  LLMTK_CHECK(!texts.token_type_ids.defined(), "decoders embed tokens alone");
  return logits(forward(texts.input_ids), texts.input_ids, texts.attention_mask);  // no token sees what is behind it
}

Seq2SeqClassifier::Seq2SeqClassifier(std::shared_ptr<Seq2SeqModel> body, ClassifierOptions options, const Build& build)
    : SequenceClassifier(body, body->lm_head(), "transformer", std::move(options)), body_(std::move(body)) {
  const int64_t H = body_->lm_head().in_features();
  const auto head = register_module("classification_head", std::make_shared<torch::nn::Module>());
  dense_ = head->register_module("dense", std::make_shared<Linear>(H, H, Linear::Options{}, build));
  out_proj_ = head->register_module("out_proj", std::make_shared<Linear>(H, num_labels(), Linear::Options{}, build));
}

at::Tensor Seq2SeqClassifier::class_logits(const Texts& texts) {
  LLMTK_CHECK(!texts.token_type_ids.defined(), "encoder-decoders embed tokens alone");
  const at::Tensor& ids = texts.input_ids;
  at::Tensor ends = ids.eq(options_.eos_token_id);
  if (texts.attention_mask.defined()) ends = ends.logical_and(texts.attention_mask);
  if (!ends.any(1).all().item<bool>())
    throw Error(Exit::data, {.what = "a text does not end with eos_token_id, where this model judges it",
                             .expected = std::to_string(options_.eos_token_id)});
  const at::Tensor start = at::full({ids.size(0), 1}, body_->decoder_start_token_id(), ids.options());
  const at::Tensor shifted = at::cat({start, ids.slice(1, 0, -1)}, 1);  // [B, T]
  const at::Tensor encoded = body_->encode(ids, {.attention_mask = texts.attention_mask});
  const at::Tensor hidden =
      body_->decode(shifted, {.encoder_hidden = encoded, .encoder_attention_mask = texts.attention_mask});  // [B, T, H]
  const at::Tensor last = (at::arange(ids.size(1), ids.options()) * ends).argmax(1);                        // [B]
  at::Tensor x = hidden.gather(1, last.view({-1, 1, 1}).expand({-1, 1, hidden.size(2)})).squeeze(1);
  x = dense_->forward(nn::dropout(x, options_.dropout, is_training())).tanh();
  return out_proj_->forward(nn::dropout(x, options_.dropout, is_training()));  // [B, labels]
}

void Seq2SeqClassifier::set_virtual_tokens(std::shared_ptr<VirtualTokens> tokens) {
  if (tokens)
    throw Error(Exit::usage, {.what = "virtual tokens do not work with an encoder-decoder that classifies",
                              .expected = "full fine-tuning, lora, adapter or ia3"});
  SequenceClassifier::set_virtual_tokens(nullptr);
}

}  // namespace llmtk::nn
