#include "models/bert_encoder.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/nonzero.h>
#include <ATen/ops/tanh.h>
#include <ATen/ops/zeros.h>

#include <algorithm>

#include "core/error.h"
#include "kernels/cross_entropy.h"
#include "models/common.h"
#include "models/sequence_classifier.h"
#include "nn/init.h"

namespace llmtk::models {

using at::Tensor;
using nn::Build;
using nn::EncoderLayerContext;
using nn::Head;
using nn::Linear;

namespace {

constexpr std::pair<Head, const char*> kHeadClasses[] = {
    {Head::none, "Model"},
    {Head::masked_lm, "ForMaskedLM"},
    {Head::sequence_classification, "ForSequenceClassification"},
    {Head::token_classification, "ForTokenClassification"},
};

/// The head that `architectures` names; where it names nothing, the encoder alone. BertForPreTraining's other head (of
/// the next sentence) is left out.
Head read_head(io::ObjectReader& config, const io::Json& json, const EncoderNames& names) {
  const auto found = json.find("architectures");
  if (found == json.end() || found->is_null() || found->empty()) return Head::none;
  const std::string name = found->is_array() && found->front().is_string() ? found->front().get<std::string>() : "";
  std::string expected;
  for (const auto& [head, suffix] : kHeadClasses) {
    if (name == names.class_name(head)) return head;
    expected += (expected.empty() ? "" : ", ") + names.class_name(head);
  }
  if (name == "BertForPreTraining" && names.class_name(Head::none) == "BertModel") return Head::masked_lm;
  config.fail("architectures", "a list that begins with one of " + expected);
}

/// Null means none, absent means what HF's config class says.
int64_t read_pad_token_id(io::ObjectReader& config, const io::Json& json, int64_t otherwise, int64_t vocab_size) {
  const auto found = json.find("pad_token_id");
  if (found != json.end() && found->is_null()) return -1;
  const int64_t id = config.integer_or("pad_token_id", otherwise);
  if (id >= vocab_size) config.fail("pad_token_id", "less than vocab_size, " + std::to_string(vocab_size));
  return id;
}

}  // namespace

std::string EncoderNames::class_name(Head head) const {
  return class_prefix +
         std::string(std::ranges::find(kHeadClasses, head, &std::pair<Head, const char*>::first)->second);
}

bool EncoderNames::is_head_tensor(std::string name) const {
  if (name.starts_with(base_prefix)) name.erase(0, std::string_view(base_prefix).size());
  return std::ranges::find(head_tensors, name, [](const char* known) { return std::string_view(known); }) !=
         head_tensors.end();
}

BertConfig BertConfig::from_hf(const io::Json& json, const std::string& where, const io::TypedKeys* typed_keys,
                               const EncoderNames& names, int64_t default_pad_token_id) {
  io::ObjectReader config(json, where, typed_keys);
  read_common(config);
  BertConfig c;
  c.vocab_size = config.integer("vocab_size");
  c.hidden_size = config.integer("hidden_size");
  c.num_hidden_layers = config.integer("num_hidden_layers", 1, kMostLayers);
  c.num_attention_heads = config.integer("num_attention_heads");
  c.intermediate_size = config.integer("intermediate_size");
  c.max_position_embeddings = config.integer("max_position_embeddings");
  c.type_vocab_size = config.integer("type_vocab_size");
  c.hidden_act = read_activation(config, "hidden_act", "gelu");
  c.hidden_dropout_prob = config.probability_or("hidden_dropout_prob", c.hidden_dropout_prob);
  c.attention_probs_dropout_prob =
      config.probability_or("attention_probs_dropout_prob", c.attention_probs_dropout_prob);
  c.classifier_dropout = config.probability_or("classifier_dropout", c.hidden_dropout_prob);
  c.layer_norm_eps = config.number_or("layer_norm_eps", c.layer_norm_eps);
  c.initializer_range = config.number_or("initializer_range", c.initializer_range);
  c.pad_token_id = read_pad_token_id(config, json, default_pad_token_id, c.vocab_size);
  c.head = read_head(config, json, names);
  c.num_labels = read_num_labels(config, json);
  if (c.hidden_size % c.num_attention_heads != 0)
    config.fail("num_attention_heads", "a divisor of hidden_size, " + std::to_string(c.hidden_size));
  config.only("is_decoder", false, "this program reads BERT as an encoder");
  config.only("add_cross_attention", false);
  config.only("position_embedding_type", "absolute");
  if (c.head == Head::masked_lm) config.only("tie_word_embeddings", true);
  // Of the first BERTs' configs: the pooler as it always is, and what no program reads.
  config.ignore({"tie_word_embeddings", "pooler_fc_size", "pooler_num_attention_heads", "pooler_num_fc_layers",
                 "pooler_size_per_head", "pooler_type", "directionality", "output_past"});
  refuse_unread(config, typed_keys);
  c.raw = json;
  return c;
}

BertOutput::BertOutput(int64_t width, const BertConfig& c, const Build& build)
    : hidden_dropout_prob(c.hidden_dropout_prob) {
  dense = register_module("dense", std::make_shared<Linear>(width, c.hidden_size, Linear::Options{}, build));
  LayerNorm = register_module("LayerNorm", std::make_shared<nn::LayerNorm>(c.hidden_size, c.layer_norm_eps, build));
}

Tensor BertOutput::forward(const Tensor& x, const Tensor& residual) {
  nn::Residual sum{residual, nn::dropout(dense->forward(x), hidden_dropout_prob, is_training())};
  return LayerNorm->forward(sum);
}

struct BertSelfAttention : torch::nn::Module {
  BertSelfAttention(const BertConfig& c, const Build& build)
      : heads(c.num_attention_heads), attention_probs_dropout_prob(c.attention_probs_dropout_prob) {
    const auto square = [&] {
      return std::make_shared<Linear>(c.hidden_size, c.hidden_size, Linear::Options{}, build);
    };
    query = register_module("query", square());
    key = register_module("key", square());
    value = register_module("value", square());
  }

  Tensor forward(const Tensor& x, const EncoderLayerContext& context) {
    const auto split = [&](Linear& layer) {
      return layer.forward(x).unflatten(2, {heads, -1}).transpose(1, 2);  // [B, N, T, D]
    };
    return nn::bidirectional_attention(split(*query), split(*key), split(*value), context,
                                       is_training() ? attention_probs_dropout_prob : 0.0);  // [B, T, H]
  }

  int64_t heads;
  double attention_probs_dropout_prob;
  std::shared_ptr<Linear> query, key, value;
};

BertAttention::BertAttention(const BertConfig& c, const Build& build) {
  self = register_module("self", std::make_shared<BertSelfAttention>(c, build));
  output = register_module("output", std::make_shared<BertOutput>(c.hidden_size, c, build));
}

Tensor BertAttention::forward(const Tensor& x, const EncoderLayerContext& context) {
  return output->forward(self->forward(x, context), x);
}

BertDense::BertDense(int64_t in, int64_t out, const Build& build) {
  dense = register_module("dense", std::make_shared<Linear>(in, out, Linear::Options{}, build));
}

BertLayer::BertLayer(const BertConfig& c, const Build& build) : hidden_act(c.hidden_act) {
  attention = register_module("attention", std::make_shared<BertAttention>(c, build));
  intermediate =
      register_module("intermediate", std::make_shared<BertDense>(c.hidden_size, c.intermediate_size, build));
  output = register_module("output", std::make_shared<BertOutput>(c.intermediate_size, c, build));
}

Tensor BertLayer::forward(const Tensor& x, const EncoderLayerContext& context) {
  const Tensor y = attention->forward(x, context);
  return output->forward(nn::activate(hidden_act, intermediate->forward(y)), y);
}

BertEmbeddings::BertEmbeddings(const BertConfig& c, int64_t position_padding, const Build& build)
    : hidden_dropout_prob(c.hidden_dropout_prob) {
  const auto table = [&](const char* name, int64_t rows, int64_t padding) {
    return register_module(name, std::make_shared<nn::Embedding>(rows, c.hidden_size, build, padding));
  };
  word_embeddings = table("word_embeddings", c.vocab_size, c.pad_token_id);
  position_embeddings = table("position_embeddings", c.max_position_embeddings, position_padding);
  token_type_embeddings = table("token_type_embeddings", c.type_vocab_size, -1);
  LayerNorm = register_module("LayerNorm", std::make_shared<nn::LayerNorm>(c.hidden_size, c.layer_norm_eps, build));
}

Tensor BertEmbeddings::forward(const Tensor& input_ids, const Tensor& position_ids, const Tensor& token_type_ids,
                               const Tensor& virtual_embeddings) {
  Tensor types = token_type_ids.defined() ? token_type_ids : at::zeros({1, 1}, input_ids.options());
  if (token_type_ids.defined() && virtual_embeddings.defined())
    types = at::constant_pad_nd(types, {virtual_embeddings.size(0), 0}, 0);
  const Tensor tokens = nn::put_before(virtual_embeddings, word_embeddings->forward(input_ids));
  const Tensor sum =
      tokens + token_type_embeddings->forward(types) + position_embeddings->forward(position_ids);  // [B, T, H]
  return nn::dropout(LayerNorm->forward(sum), hidden_dropout_prob, is_training());
}

BertBase::BertBase(BertConfig config, const EncoderNames& names, bool pooler, int64_t position_padding,
                   const Build& build)
    : config_(std::move(config)), names_(names), position_padding_(position_padding), base_(this) {
  const bool bare = config_.head == Head::none;
  if (!bare) {
    const std::string prefix = names.base_prefix;
    base_ = register_module(prefix.substr(0, prefix.size() - 1), std::make_shared<torch::nn::Module>()).get();
  }
  embeddings_ =
      base_->register_module("embeddings", std::make_shared<BertEmbeddings>(config_, position_padding, build));
  const auto encoder = base_->register_module("encoder", std::make_shared<torch::nn::Module>());
  layers_ = encoder->register_module("layer", std::make_shared<nn::Layers<BertLayer>>());
  for (int64_t layer = 0; layer < config_.num_hidden_layers; ++layer)
    layers_->append(std::make_shared<BertLayer>(config_, build));
  if (pooler || bare)
    pooler_ =
        base_->register_module("pooler", std::make_shared<BertDense>(config_.hidden_size, config_.hidden_size, build));
  if (config_.head == Head::token_classification)
    token_classifier_ = register_module(
        "classifier", std::make_shared<Linear>(config_.hidden_size, config_.num_labels, Linear::Options{}, build));
}

Tensor BertBase::forward(const Tensor& input_ids, const nn::EncoderContext& context) {
  const EncoderLayerContext shared = nn::make_encoder_context(input_ids, context, max_positions(), virtual_inputs());
  const bool keep = config_.head == Head::sequence_classification;
  const auto seen = [&](const Tensor& x) {
    return keep || shared.before.read() == 0 ? x : x.narrow(1, shared.before.read(), input_ids.size(1));
  };
  Tensor x = embeddings_->forward(input_ids, positions(input_ids, context, shared), context.token_type_ids,
                                  shared.before.embeddings);  // [B, T, H]
  for (size_t i = 0; i < layers_->size(); ++i) {
    if (context.hidden_states) context.hidden_states->push_back(seen(x));
    x = nn::run_encoder_layer(*(*layers_)[i], static_cast<int64_t>(i), x, shared, gradient_checkpointing_);
  }
  if (context.hidden_states) context.hidden_states->push_back(seen(x));
  return seen(x);
}

/// [B or 1, T], virtual tokens that are embedded included.
Tensor BertBase::positions(const Tensor& input_ids, const nn::EncoderContext& context,
                           const EncoderLayerContext& shared) const {
  const Tensor text = context.position_ids.defined() ? context.position_ids : default_positions(input_ids, shared.real);
  const int64_t virtual_tokens = shared.before.length();
  if (virtual_tokens == 0) return text;
  const Tensor behind = text + virtual_tokens;
  if (shared.before.read() == 0) return behind;
  const int64_t first = config_.max_position_embeddings - num_positions();  // rows before it are no place in a text
  const Tensor before = at::arange(first, first + virtual_tokens, text.options()).unsqueeze(0);
  return at::cat({before.expand({text.size(0), -1}), behind}, 1);
}

Tensor BertBase::pooled(const Tensor& hidden, const Tensor& attention_mask) {
  return pooler_ ? pooler_->forward(first_token(hidden, attention_mask)).tanh() : Tensor();  // [B, H]
}

Tensor BertBase::first_token(const Tensor& hidden, const Tensor& attention_mask) const {
  const bool embedded = attention_mask.defined() && hidden.size(1) > attention_mask.size(1);  // virtual tokens
  return nn::first_token(hidden, embedded ? Tensor() : attention_mask);
}

Tensor BertBase::logits(const Tensor& hidden, const Tensor& attention_mask) {
  switch (config_.head) {
    case Head::none:
      return hidden;
    case Head::masked_lm:
      return masked_lm_decoder().forward(masked_lm_transform(hidden));  // [..., V]
    case Head::sequence_classification:
      return sequence_logits(hidden, attention_mask);  // [B, labels]
    case Head::token_classification:
      return token_classifier_->forward(head_dropout(hidden));  // [..., labels]
    default:
      break;
  }
  LLMTK_CHECK(false, "unknown head");
}

Tensor BertBase::token_cross_entropy(const Tensor& hidden, const Tensor& targets, double scale, int64_t ignore_index) {
  const Tensor asked = targets.ne(ignore_index).nonzero().squeeze(1);
  const Tensor x = hidden.index_select(0, asked), wanted = targets.index_select(0, asked);  // [M, H], [M]
  if (config_.head == Head::masked_lm)
    return kernels::linear_cross_entropy(masked_lm_transform(x), masked_lm_decoder().effective_weight(x.scalar_type()), wanted,
                                         {.scale = scale}, masked_lm_decoder().bias);
  LLMTK_CHECK(config_.head == Head::token_classification, "this head does not look at each token alone");
  return at::cross_entropy_loss(logits(x, {}).to(at::kFloat), wanted, {}, at::Reduction::Sum) * scale;
}

int64_t BertBase::num_labels() const {
  const bool labels = config_.head == Head::sequence_classification || config_.head == Head::token_classification;
  return labels ? config_.num_labels : 0;
}

void BertBase::remove_pooler() {
  if (pooler_) base_->unregister_module("pooler");
  pooler_.reset();
}

double BertBase::training_flops_per_token(int64_t sequence_length) const {
  const auto H = static_cast<double>(config_.hidden_size), T = static_cast<double>(sequence_length);
  double head = pooler_ ? H * H / T : 0;  // one token of each sequence
  if (config_.head == Head::masked_lm) head += H * (H + static_cast<double>(config_.vocab_size));
  if (config_.head == Head::token_classification) head += H * static_cast<double>(config_.num_labels);
  const double layer = H * (4 * H + 2 * static_cast<double>(config_.intermediate_size));
  return 6 * (static_cast<double>(config_.num_hidden_layers) * layer + head) +
         12 * static_cast<double>(config_.num_hidden_layers) * H * T;
}

void BertBase::initialize_parameter(const std::string& name, const Tensor& parameter, uint64_t seed) {
  if (name.ends_with("bias")) return nn::init_constant(parameter, 0);
  if (parameter.dim() == 1) return nn::init_constant(parameter, 1);
  nn::init_normal(parameter, config_.initializer_range, seed, name);
  const int64_t padding = name.ends_with(".word_embeddings.weight")       ? config_.pad_token_id
                          : name.ends_with(".position_embeddings.weight") ? position_padding_
                                                                          : -1;
  if (padding >= 0) nn::init_constant(parameter.detach().select(0, padding), 0);
}

io::Json BertBase::config() const {
  io::Json json = config_.raw;
  json["architectures"] = {names_.class_name(config_.head)};
  json["model_type"] = names_.model_type;
  return json;
}

Tensor BertBase::head_dropout(const Tensor& x) const {
  return nn::dropout(x, config_.classifier_dropout, is_training());
}

std::optional<std::string> bert_encoder_parameter_name(const std::string& name) {
  if (name.ends_with("embeddings.position_ids") || name.ends_with("embeddings.token_type_ids")) return std::nullopt;
  const auto renamed = [&](std::string_view old, std::string_view now) {
    return name.substr(0, name.size() - old.size()) + std::string(now);
  };
  if (name.ends_with("LayerNorm.gamma")) return renamed("gamma", "weight");
  if (name.ends_with("LayerNorm.beta")) return renamed("beta", "bias");
  return name;
}

}  // namespace llmtk::models
