#include "inspect/passes.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/zeros.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <span>

#include "core/error.h"
#include "inspect/layers.h"
#include "nn/causal_model.h"
#include "nn/encoder_model.h"
#include "nn/seq2seq_model.h"
#include "nn/sequence_classifier.h"

namespace llmtk {
namespace {

using at::Tensor;

using Ids = std::vector<text::TokenId> Input::*;

int64_t longest(std::span<const Input> inputs, Ids ids) {
  size_t tokens = 0;
  for (const Input& input : inputs) tokens = std::max(tokens, (input.*ids).size());
  return static_cast<int64_t>(tokens);
}

/// T: tokens that all rows are padded to.
Stack pad(std::span<const Input> inputs, Ids ids, int64_t T, bool left, std::string prefix) {
  const auto B = static_cast<int64_t>(inputs.size());
  Stack stack{.prefix = std::move(prefix), .ids = at::zeros({B, T}, at::kLong), .mask = at::zeros({B, T}, at::kLong)};
  for (int64_t b = 0; b < B; ++b) {
    const auto& tokens = inputs[b].*ids;
    const auto length = static_cast<int64_t>(tokens.size()), begin = left ? T - length : 0;
    std::ranges::copy(tokens, stack.ids.data_ptr<int64_t>() + b * T + begin);
    stack.mask[b].narrow(0, begin, length).fill_(1);
  }
  return stack;
}

void to_cpu(std::vector<Tensor>& tensors) {
  for (Tensor& tensor : tensors) tensor = tensor.to(at::kFloat).cpu().contiguous();
}

/// [B, T] bool, on the model's device.
Tensor real(const Stack& stack, const nn::Model& model) { return stack.mask.to(model.device(), at::kBool); }

/// Hidden states whose logits are wanted: all, or those of each text's last token, [B, 1, H].
Tensor wanted_states(const Tensor& hidden, const Stack& stack, Wanted::Logits logits) {
  if (logits == Wanted::Logits::all) return hidden;
  std::vector<Tensor> rows;
  for (int64_t b = 0; b < hidden.size(0); ++b) {
    const auto last = stack.begin(static_cast<size_t>(b)) + stack.mask[b].sum().item<int64_t>() - 1;
    rows.push_back(hidden[b].narrow(0, last, 1));
  }
  return at::stack(rows);
}

/// The last hidden states of a decoder, under whatever head.
template <class Decoder>
Tensor run_decoder(Decoder& model, Passes& passes, const Wanted& wanted) {
  Stack& stack = passes.stacks[0];
  stack.causal = true;
  nn::ForwardContext context{.attention_mask = real(stack, model), .attention_layer = wanted.attention_layer};
  if (wanted.attentions) context.attentions = &stack.attentions;
  if (wanted.hidden_states) context.hidden_states = &stack.hidden_states;
  return model.forward(stack.ids.to(model.device()), context);
}

void run(nn::CausalModel& model, Passes& passes, const Wanted& wanted) {
  const Tensor hidden = run_decoder(model, passes, wanted);
  if (wanted.logits != Wanted::Logits::none)
    passes.logits = model.logits(wanted_states(hidden, passes.stacks[0], wanted.logits));
}

void run(nn::DecoderClassifier& model, Passes& passes, const Wanted& wanted) {
  const Tensor hidden = run_decoder(model, passes, wanted);
  const Stack& stack = passes.stacks[0];
  if (wanted.logits != Wanted::Logits::none)
    passes.logits = model.logits(hidden, stack.ids.to(model.device()), real(stack, model));
}

void run(nn::Seq2SeqClassifier& model, Passes& passes, const Wanted& wanted) {
  if (wanted.hidden_states || wanted.attentions)
    throw Error(Exit::usage, {.what = "of an encoder-decoder that classifies the logits alone are shown",
                              .hint = "look at the model that it was made from"});
  const Stack& stack = passes.stacks[0];
  passes.logits = model.class_logits({.input_ids = stack.ids.to(model.device()), .attention_mask = real(stack, model)});
}

void run(nn::EncoderModel& model, Passes& passes, const Wanted& wanted) {
  Stack& stack = passes.stacks[0];
  nn::EncoderContext context{.attention_mask = real(stack, model)};
  if (stack.type_ids.defined()) context.token_type_ids = stack.type_ids.to(model.device());
  if (wanted.attentions) context.attentions = &stack.attentions;
  if (wanted.hidden_states) context.hidden_states = &stack.hidden_states;
  const Tensor hidden = model.forward(stack.ids.to(model.device()), context);
  if (wanted.hidden_states) passes.pooler_output = model.pooled(hidden, context.attention_mask);
  if (wanted.logits == Wanted::Logits::none) return;
  if (model.head() == nn::Head::none)
    throw Error(Exit::usage,
                {.what = "this model has no head that gives logits", .hint = "inspect hidden shows its states"});
  passes.logits = model.logits(hidden, context.attention_mask);
}

void run(nn::Seq2SeqModel& model, Passes& passes, const Wanted& wanted) {
  auto &encoder = passes.stacks[0], &decoder = passes.stacks[1];
  decoder.causal = true;
  nn::EncoderContext reading{.attention_mask = real(encoder, model)};
  nn::DecoderContext writing{.encoder_attention_mask = reading.attention_mask, .attention_mask = real(decoder, model)};
  if (wanted.attentions) {
    reading.attentions = &encoder.attentions;
    writing.attentions = &decoder.attentions;
    writing.cross_attentions = &decoder.cross_attentions;
  }
  if (wanted.hidden_states) {
    reading.hidden_states = &encoder.hidden_states;
    writing.hidden_states = &decoder.hidden_states;
  }
  writing.encoder_hidden = model.encode(encoder.ids.to(model.device()), reading);
  const Tensor hidden = model.decode(decoder.ids.to(model.device()), writing);
  if (wanted.logits != Wanted::Logits::none)
    passes.logits = model.logits(wanted_states(hidden, decoder, wanted.logits));
}

}  // namespace

int64_t Stack::begin(size_t text) const { return mask[static_cast<int64_t>(text)].argmax().item<int64_t>(); }

std::vector<text::TokenId> Stack::tokens(size_t text) const {
  const auto row = static_cast<int64_t>(text);
  const Tensor real = ids[row].narrow(0, begin(text), mask[row].sum().item<int64_t>());
  const auto* data = real.data_ptr<int64_t>();
  return {data, data + real.numel()};
}

namespace {

/// `padded`: those whose longest text all are padded to.
Passes run_batch(nn::Model& model, std::span<const Input> inputs, std::span<const Input> padded, const Wanted& wanted,
                 const std::string& padding_side) {
  const c10::NoGradGuard no_gradients;
  auto* causal = dynamic_cast<nn::CausalModel*>(&model);
  auto* encoder = dynamic_cast<nn::EncoderModel*>(&model);
  auto* seq2seq = dynamic_cast<nn::Seq2SeqModel*>(&model);
  auto* decoder_classifier = dynamic_cast<nn::DecoderClassifier*>(&model);
  auto* seq2seq_classifier = dynamic_cast<nn::Seq2SeqClassifier*>(&model);
  const bool left = padding_side.empty() ? causal || decoder_classifier : padding_side == "left";
  Passes passes;
  const auto add = [&](Ids ids, const char* prefix) {
    passes.stacks.push_back(pad(inputs, ids, longest(padded, ids), left, prefix));
  };
  add(&Input::ids, seq2seq ? "encoder_" : "");
  if (!inputs[0].type_ids.empty()) {  // then of all
    Stack& stack = passes.stacks[0];
    stack.type_ids = pad(inputs, &Input::type_ids, stack.ids.size(1), left, "").ids;
  }
  if (seq2seq) add(&Input::decoder_ids, "decoder_");
  if (causal) run(*causal, passes, wanted);
  if (encoder) run(*encoder, passes, wanted);
  if (seq2seq) run(*seq2seq, passes, wanted);
  if (decoder_classifier) run(*decoder_classifier, passes, wanted);
  if (seq2seq_classifier) run(*seq2seq_classifier, passes, wanted);
  for (Stack& stack : passes.stacks)
    for (auto* tensors : {&stack.hidden_states, &stack.attentions, &stack.cross_attentions}) to_cpu(*tensors);
  for (Tensor* tensor : {&passes.logits, &passes.pooler_output})
    if (tensor->defined()) *tensor = tensor->to(at::kFloat).cpu().contiguous();
  return passes;
}

/// The rows of several batches under one another.
Passes join(std::vector<Passes> batches) {
  if (batches.size() == 1) return std::move(batches[0]);
  Passes all;
  const auto rows = [&](const auto& tensor_of) {
    std::vector<Tensor> tensors;
    for (const Passes& batch : batches) tensors.push_back(tensor_of(batch));
    return tensors[0].defined() ? at::cat(tensors) : Tensor();
  };
  for (size_t s = 0; s < batches[0].stacks.size(); ++s) {
    const auto joined = [&](std::vector<Tensor> Stack::*list) {
      std::vector<Tensor> tensors;
      for (size_t i = 0; i < (batches[0].stacks[s].*list).size(); ++i)
        tensors.push_back(rows([&](const Passes& batch) { return (batch.stacks[s].*list)[i]; }));
      return tensors;
    };
    const Stack& first = batches[0].stacks[s];
    all.stacks.push_back({.prefix = first.prefix,
                          .ids = rows([&](const Passes& batch) { return batch.stacks[s].ids; }),
                          .mask = rows([&](const Passes& batch) { return batch.stacks[s].mask; }),
                          .type_ids = rows([&](const Passes& batch) { return batch.stacks[s].type_ids; }),
                          .causal = first.causal,
                          .hidden_states = joined(&Stack::hidden_states),
                          .attentions = joined(&Stack::attentions),
                          .cross_attentions = joined(&Stack::cross_attentions)});
  }
  all.logits = rows([](const Passes& batch) { return batch.logits; });
  all.pooler_output = rows([](const Passes& batch) { return batch.pooler_output; });
  return all;
}

/// f(batch, index of its first) for each batch_size of the inputs.
void for_batches(const std::vector<Input>& inputs, int64_t batch_size,
                 const std::function<void(std::span<const Input>, size_t)>& f) {
  const auto step = static_cast<size_t>(batch_size);
  for (size_t begin = 0; begin < inputs.size(); begin += step)
    f(std::span(inputs).subspan(begin, std::min(step, inputs.size() - begin)), begin);
}

}  // namespace

void run_batches(nn::Model& model, const std::vector<Input>& inputs, const Wanted& wanted, const InputOptions& options,
                 const std::function<void(const Passes&, size_t)>& use) {
  for_batches(inputs, options.batch_size, [&](std::span<const Input> batch, size_t begin) {
    use(run_batch(model, batch, batch, wanted, options.padding_side), begin);
  });
}

Passes run_all(nn::Model& model, const std::vector<Input>& inputs, const Wanted& wanted, const InputOptions& options) {
  std::vector<Passes> batches;
  for_batches(inputs, options.batch_size, [&](std::span<const Input> batch, size_t) {
    batches.push_back(run_batch(model, batch, inputs, wanted, options.padding_side));
  });
  return join(std::move(batches));
}

io::NamedTensors named_tensors(const Passes& passes, const std::string& layer) {
  io::NamedTensors named;
  const auto add = [&](const std::string& name, const std::vector<Tensor>& tensors) {
    if (tensors.empty()) return;
    for (const int64_t i : choose("--layer", layer, static_cast<int64_t>(tensors.size())))
      named.emplace_back(name + "." + std::to_string(i), tensors[i]);
  };
  for (const Stack& stack : passes.stacks) {
    const std::string inputs = stack.prefix == "decoder_" ? stack.prefix : "";
    named.emplace_back(inputs + "input_ids", stack.ids);
    named.emplace_back(inputs + "attention_mask", stack.mask);
    if (stack.type_ids.defined()) named.emplace_back("token_type_ids", stack.type_ids);
    add(stack.prefix + "hidden_states", stack.hidden_states);
    add(stack.prefix + "attentions", stack.attentions);
    add("cross_attentions", stack.cross_attentions);
  }
  if (passes.logits.defined()) named.emplace_back("logits", passes.logits);
  if (passes.pooler_output.defined()) named.emplace_back("pooler_output", passes.pooler_output);
  return named;
}

void check_output(const std::string& path, const std::vector<std::string>& suffixes) {
  std::string expected;
  for (const auto& suffix : suffixes) {
    if (path.empty() || path.ends_with(suffix)) return;
    expected += (expected.empty() ? "a name that ends in " : " or ") + suffix;
  }
  throw Error(Exit::usage, {.what = "--output writes no file of this kind", .got = path, .expected = expected});
}

}  // namespace llmtk
