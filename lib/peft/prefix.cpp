#include "peft/prefix.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tanh.h>

#include <cmath>

#include "nn/init.h"
#include "nn/linear.h"
#include "nn/seq2seq_model.h"
#include "peft/head.h"

namespace llmtk::peft {

void PrefixTuningConfig::validate(config::Problems& problems) const {
  if (encoder_hidden_size && !prefix_projection)
    problems.add("encoder_hidden_size", {.what = "has no influence without prefix_projection: true"});
}

namespace {

/// peft deals an encoder-decoder's table out in fours, of which its cache keeps the first two: layer l sees the keys
/// and values of the table's layer 2 l mod L. int64 [2 L].
at::Tensor seq2seq_order(int64_t layers) {
  const at::Tensor pair = at::arange(layers, at::kLong) * 2 % layers;
  return at::stack({pair * 2, pair * 2 + 1}, 1).flatten();
}

}  // namespace

PrefixTuning::PrefixTuning(const nn::Model& model, const PrefixTuningConfig& config)
    : config_(config), shape_(model.key_value_shape()) {
  const nn::Build build{at::kFloat, model.device()};
  const int64_t width = shape_.heads * shape_.head_dim, all = 2 * shape_.layers * width, P = length();
  if (dynamic_cast<const nn::Seq2SeqModel*>(&model)) order_ = seq2seq_order(shape_.layers).to(build.device);
  const auto named = [this](const char* name) { return register_module(name, std::make_shared<torch::nn::Module>()); };
  embedding_ =
      named("embedding")->register_parameter("weight", build.empty({P, config.prefix_projection ? width : all}));
  if (!config.prefix_projection) return;
  const int64_t hidden = config.encoder_hidden_size.value_or(width);
  const auto transform = named("transform");
  hidden_ = transform->register_module("0", std::make_shared<nn::Linear>(width, hidden, nn::Linear::Options{}, build));
  output_ = transform->register_module("2", std::make_shared<nn::Linear>(hidden, all, nn::Linear::Options{}, build));
}

at::Tensor PrefixTuning::table() {
  return hidden_ ? output_->forward(at::tanh(hidden_->forward(embedding_))) : embedding_;  // [P, 2 L K D]
}

at::Tensor PrefixTuning::keys_values() {
  const at::Tensor split = table().view({length(), 2 * shape_.layers, shape_.heads, shape_.head_dim});
  const at::Tensor by_layer = split.permute({1, 2, 0, 3});  // [2 L, K, P, D]
  return order_.defined() ? by_layer.index_select(0, order_) : by_layer;
}

void PrefixTuning::initialize(uint64_t seed) {
  nn::init_normal(embedding_, 1.0, seed, "embedding.weight");
  if (!hidden_) return;
  const auto linear = [seed](const nn::Linear& layer, const std::string& name) {
    const double bound = 1 / std::sqrt(static_cast<double>(layer.in_features()));
    nn::init_uniform(layer.weight, bound, seed, name + ".weight");
    nn::init_uniform(layer.bias, bound, seed, name + ".bias");
  };
  linear(*hidden_, "transform.0");
  linear(*output_, "transform.2");
}

void apply(nn::Model& model, const PrefixTuningConfig& config, uint64_t seed) {
  const auto prefix = std::make_shared<PrefixTuning>(model, config);
  prefix->initialize(seed);
  train_head_alone(model);
  model.set_virtual_tokens(prefix);
}

void apply(nn::Model& model, const PTuningV2Config& config, uint64_t seed) {
  apply(model, PrefixTuningConfig{.num_virtual_tokens = config.num_virtual_tokens}, seed);
}

}  // namespace llmtk::peft
