#include "models/t5.h"

#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/dropout.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/softmax.h>

#include <cmath>
#include <limits>

#include "core/error.h"
#include "models/common.h"
#include "nn/attention.h"
#include "nn/checkpoint.h"
#include "nn/fused_attention.h"
#include "nn/init.h"
#include "nn/norm.h"
#include "nn/relative_bias.h"

namespace llmtk::models {

using at::Tensor;
using nn::Linear;
using nn::Residual;

namespace {

/// Scores where `visible` (bool, broadcast) is false become -inf.
Tensor hide(const Tensor& bias, const Tensor& visible) {
  return bias.masked_fill(visible.logical_not(), -std::numeric_limits<double>::infinity());
}

/// The real tokens of a mask [B, length] as [B, 1, 1, keys], with virtual ones before them where there are more keys;
/// undefined where nothing is padding.
Tensor real_keys(const Tensor& mask, int64_t batch, int64_t length, int64_t keys, c10::Device device) {
  if (!mask.defined()) return {};
  LLMTK_CHECK(mask.sizes() == at::IntArrayRef({batch, length}), "the mask is ", mask.sizes(), " for ", batch,
              " rows of ", length);
  const Tensor real = mask.to(device, at::kBool);
  // On a GPU looking would wait for it; there the mask is simply used.
  if (real.is_cpu() && real.all().item<bool>()) return {};
  return at::constant_pad_nd(real, {keys - length, 0}, true).unsqueeze(1).unsqueeze(1);
}

/// softmax(q k^T + bias) v. q: [B, N, T, D]; k, v: [B, N, S, D]; bias: a number for each score, or a bool, true where a
/// query sees a key; or undefined. Returns [B, T, N * D]. With `maps` the weights are computed explicitly and appended.
Tensor attend(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& bias, double dropout,
              std::vector<Tensor>* maps) {
  Tensor y;
  if (maps) {
    Tensor scores = at::matmul(q, k.transpose(2, 3));  // [B, N, T, S]
    if (bias.defined()) scores = bias.scalar_type() == at::kBool ? hide(scores, bias) : scores + bias;
    Tensor weights = at::softmax(scores, -1, at::kFloat);
    maps->push_back(weights);
    if (dropout > 0) weights = at::dropout(weights, dropout, true);
    y = at::matmul(weights.to(v.scalar_type()), v);  // [B, N, T, D]
  } else {
    y = nn::fused_attention(q, k, v, bias, {.scale = 1.0, .dropout = dropout});
  }
  return y.transpose(1, 2).flatten(2);  // [B, T, N * D]
}

using KeysValues = nn::Seq2SeqCache::KeysValues;

/// What all layers of one pass through a stack share.
struct StackContext {
  Tensor bias;                 // [1 or B, N, T, keys], -inf where a query does not see a key
  Tensor encoder_hidden;       // [B, S, H]; undefined in the encoder, and where the cache holds what is needed of it
  Tensor encoder_mask;         // bool [B, 1, 1, S], or undefined
  Tensor virtual_keys_values;  // as nn::VirtualInputs has them; in the decoder alone
  nn::Seq2SeqCache* cache = nullptr;
  std::vector<Tensor>* attentions = nullptr;
  std::vector<Tensor>* cross_attentions = nullptr;
};

/// In float16 `wo` and with it the residual stream are float32, as in transformers: what the feed-forward of published
/// models gives is too large for it. What is multiplied with next is again of the weights' type.
Tensor normed(const nn::RMSNorm& norm, Residual& x) { return norm.forward(x).to(norm.weight.scalar_type()); }

struct Attention : torch::nn::Module {
  /// bias: what of the stack's distances counts; given to the first layer of a stack, which makes the bias for all.
  Attention(const T5Config& c, const std::optional<nn::RelativeBias::Options>& bias, const nn::Build& build)
      : heads(c.num_heads), dropout_rate(c.dropout_rate) {
    const int64_t H = c.d_model, inner = c.num_heads * c.d_kv;
    const Linear::Options plain{.bias = false};
    q = register_module("q", std::make_shared<Linear>(H, inner, plain, build));
    k = register_module("k", std::make_shared<Linear>(H, inner, plain, build));
    v = register_module("v", std::make_shared<Linear>(H, inner, plain, build));
    o = register_module("o", std::make_shared<Linear>(inner, H, plain, build));
    if (bias)
      relative_attention_bias =
          register_module("relative_attention_bias", std::make_shared<nn::RelativeBias>(*bias, heads, build));
  }

  Tensor split_heads(const Tensor& x) const { return x.unflatten(2, {heads, -1}).transpose(1, 2); }  // [B, N, T, D]
  KeysValues keys_values(const Tensor& x) { return {split_heads(k->forward(x)), split_heads(v->forward(x))}; }

  Tensor forward(const Tensor& x, const KeysValues& seen, const Tensor& bias, std::vector<Tensor>* maps) {
    const Tensor queries = split_heads(q->forward(x));  // [B, N, T, D]
    return o->forward(attend(queries, seen.first, seen.second, bias, is_training() ? dropout_rate : 0.0, maps));
  }

  int64_t heads;
  double dropout_rate;
  std::shared_ptr<Linear> q, k, v, o;
  std::shared_ptr<nn::RelativeBias> relative_attention_bias;
};

struct SelfAttentionLayer : torch::nn::Module {
  SelfAttentionLayer(const T5Config& c, bool is_decoder, int64_t layer, const nn::Build& build)
      : layer(layer), dropout_rate(c.dropout_rate) {
    std::optional<nn::RelativeBias::Options> bias;
    if (layer == 0) bias = {c.relative_attention_num_buckets, c.relative_attention_max_distance, !is_decoder};
    attention = register_module("SelfAttention", std::make_shared<Attention>(c, bias, build));
    layer_norm = register_module("layer_norm", std::make_shared<nn::RMSNorm>(c.d_model, c.layer_norm_epsilon, build));
  }

  Tensor forward(Residual& x, const StackContext& context) {
    const Tensor y = normed(*layer_norm, x);
    KeysValues seen = attention->keys_values(y);
    if (context.cache) seen = context.cache->tokens().append(layer, seen.first, seen.second);
    nn::put_before(context.virtual_keys_values, layer, seen.first, seen.second);
    return nn::dropout(attention->forward(y, seen, context.bias, context.attentions), dropout_rate, is_training());
  }

  int64_t layer;
  double dropout_rate;
  std::shared_ptr<Attention> attention;
  std::shared_ptr<nn::RMSNorm> layer_norm;
};

struct CrossAttentionLayer : torch::nn::Module {
  CrossAttentionLayer(const T5Config& c, int64_t layer, const nn::Build& build)
      : layer(layer), dropout_rate(c.dropout_rate) {
    attention = register_module("EncDecAttention", std::make_shared<Attention>(c, std::nullopt, build));
    layer_norm = register_module("layer_norm", std::make_shared<nn::RMSNorm>(c.d_model, c.layer_norm_epsilon, build));
  }

  KeysValues keys_values(const StackContext& context) {
    if (!context.cache) return attention->keys_values(context.encoder_hidden);
    auto& [keys, values] = context.cache->encoded(layer);
    if (!keys.defined()) {
      std::tie(keys, values) = attention->keys_values(context.encoder_hidden);
      keys = keys.contiguous();  // read at every step
      values = values.contiguous();
    }
    return {keys, values};
  }

  Tensor forward(Residual& x, const StackContext& context) {
    const Tensor y = normed(*layer_norm, x);
    return nn::dropout(attention->forward(y, keys_values(context), context.encoder_mask, context.cross_attentions),
                       dropout_rate, is_training());
  }

  int64_t layer;
  double dropout_rate;
  std::shared_ptr<Attention> attention;
  std::shared_ptr<nn::RMSNorm> layer_norm;
};

struct DenseReluDense : torch::nn::Module {
  DenseReluDense(const T5Config& c, const nn::Build& build) : activation(c.activation), dropout_rate(c.dropout_rate) {
    const Linear::Options plain{.bias = false};
    wi = register_module(c.gated ? "wi_0" : "wi", std::make_shared<Linear>(c.d_model, c.d_ff, plain, build));
    if (c.gated) wi_1 = register_module("wi_1", std::make_shared<Linear>(c.d_model, c.d_ff, plain, build));
    nn::Build wide = build;
    if (build.dtype == at::kHalf) wide.dtype = at::kFloat;  // see normed()
    wo = register_module("wo", std::make_shared<Linear>(c.d_ff, c.d_model, plain, wide));
  }

  Tensor forward(const Tensor& x) {
    const Tensor inner = wi_1 ? nn::activate_gated(activation, wi->forward(x), wi_1->forward(x))
                              : nn::activate(activation, wi->forward(x));
    const Tensor y = nn::dropout(inner, dropout_rate, is_training());
    return wo->forward(wo->weight.defined() ? y.to(wo->weight.scalar_type()) : y);
  }

  nn::Activation activation;
  double dropout_rate;
  std::shared_ptr<Linear> wi, wi_1, wo;
};

struct FeedForwardLayer : torch::nn::Module {
  FeedForwardLayer(const T5Config& c, const nn::Build& build) : dropout_rate(c.dropout_rate) {
    dense = register_module("DenseReluDense", std::make_shared<DenseReluDense>(c, build));
    layer_norm = register_module("layer_norm", std::make_shared<nn::RMSNorm>(c.d_model, c.layer_norm_epsilon, build));
  }

  Tensor forward(Residual& x) {
    return nn::dropout(dense->forward(normed(*layer_norm, x)), dropout_rate, is_training());
  }

  double dropout_rate;
  std::shared_ptr<DenseReluDense> dense;
  std::shared_ptr<nn::RMSNorm> layer_norm;
};

struct Block : torch::nn::Module {
  Block(const T5Config& c, bool is_decoder, int64_t layer, const nn::Build& build) {
    const auto list = register_module("layer", std::make_shared<torch::nn::Module>());
    self_attention = list->register_module("0", std::make_shared<SelfAttentionLayer>(c, is_decoder, layer, build));
    if (is_decoder)
      cross_attention = list->register_module("1", std::make_shared<CrossAttentionLayer>(c, layer, build));
    feed_forward = list->register_module(is_decoder ? "2" : "1", std::make_shared<FeedForwardLayer>(c, build));
  }

  Residual forward(Residual x, const StackContext& context) {
    x.update = self_attention->forward(x, context);
    if (cross_attention) x.update = cross_attention->forward(x, context);
    x.update = feed_forward->forward(x);
    return x;
  }

  std::shared_ptr<SelfAttentionLayer> self_attention;
  std::shared_ptr<CrossAttentionLayer> cross_attention;  // in the decoder
  std::shared_ptr<FeedForwardLayer> feed_forward;
};

/// The encoder or the decoder.
struct Stack : torch::nn::Module {
  Stack(const T5Config& c, bool is_decoder, const nn::Build& build) : dropout_rate(c.dropout_rate) {
    block = register_module("block", std::make_shared<nn::Layers<Block>>());
    for (int64_t layer = 0; layer < (is_decoder ? c.num_decoder_layers : c.num_layers); ++layer)
      block->append(std::make_shared<Block>(c, is_decoder, layer, build));
    final_layer_norm =
        register_module("final_layer_norm", std::make_shared<nn::RMSNorm>(c.d_model, c.layer_norm_epsilon, build));
  }

  Tensor position_bias(int64_t queries, int64_t keys, int64_t past) const {
    return (*block)[0]->self_attention->attention->relative_attention_bias->forward(queries, keys, past);
  }

  Tensor forward(const Tensor& embedded, const StackContext& context, std::vector<Tensor>* hidden_states) {
    Residual x{nn::dropout(embedded, dropout_rate, is_training()), {}};
    for (const auto& one : *block) {
      if (hidden_states) hidden_states->push_back(x.sum());
      x = run(*one, x, context);
    }
    const Tensor y = nn::dropout(normed(*final_layer_norm, x), dropout_rate, is_training());
    if (hidden_states) hidden_states->push_back(y);
    return y;
  }

  /// one.forward(x, context), with its activations recomputed in backward where checkpointing is on.
  Residual run(Block& one, const Residual& x, const StackContext& context) const {
    if (!gradient_checkpointing || context.cache || context.attentions || context.cross_attentions)
      return one.forward(x, context);
    const nn::Tensors kept = {x.sum(), context.bias, context.encoder_hidden, context.virtual_keys_values};
    const auto outputs = nn::checkpoint(one, kept, [&one, context](const nn::Tensors& inputs) -> nn::Tensors {
      StackContext again = context;
      again.bias = inputs[1];
      again.encoder_hidden = inputs[2];
      again.virtual_keys_values = inputs[3];
      const Residual y = one.forward({inputs[0], {}}, again);
      return {y.stream, y.update};
    });
    return {outputs[0], outputs[1]};
  }

  double dropout_rate;
  bool gradient_checkpointing = false;
  std::shared_ptr<nn::Layers<Block>> block;
  std::shared_ptr<nn::RMSNorm> final_layer_norm;
};

class T5 final : public nn::Seq2SeqModel {
 public:
  T5(T5Config config, const nn::Build& build) : config_(std::move(config)) {
    shared_ = register_module("shared", std::make_shared<nn::Embedding>(config_.vocab_size, config_.d_model, build));
    encoder_ = register_module("encoder", std::make_shared<Stack>(config_, /*is_decoder=*/false, build));
    decoder_ = register_module("decoder", std::make_shared<Stack>(config_, /*is_decoder=*/true, build));
    lm_head_ = register_module("lm_head", Linear::head(shared_->weight, config_.tie_word_embeddings, build));
  }

  Tensor encode(const Tensor& input_ids, const nn::EncoderContext& context) override {
    LLMTK_CHECK(input_ids.dim() == 2, "input_ids is ", input_ids.sizes(), ", expected [B, S]");
    LLMTK_CHECK(!context.token_type_ids.defined() && !context.position_ids.defined(), "T5 embeds tokens alone");
    const Tensor embeddings = virtual_inputs().embeddings;
    const Tensor x = nn::put_before(embeddings, shared_->forward(input_ids));  // [B, P + S, H]
    const int64_t S = x.size(1);
    StackContext stack{.bias = encoder_->position_bias(S, S, 0), .attentions = context.attentions};
    const Tensor real = real_keys(context.attention_mask, input_ids.size(0), input_ids.size(1), S, input_ids.device());
    if (real.defined()) stack.bias = hide(stack.bias, real);  // [B, N, S, S]
    return encoder_->forward(x, stack, context.hidden_states);
  }

  Tensor decode(const Tensor& decoder_input_ids, const nn::DecoderContext& context) override {
    nn::Seq2SeqCache* cache = context.cache;
    nn::KVCache* tokens = cache ? &cache->tokens() : nullptr;
    nn::VirtualInputs before;
    if (!tokens || tokens->virtual_length() == 0) before = virtual_inputs();
    const int64_t embedded = before.read();
    before.embeddings.reset();  // the encoder reads them
    if (tokens && before.keys_values.defined()) {
      if (tokens->virtual_length() == 0) tokens->put_virtual(before.keys_values);
      before.keys_values.reset();
    }
    const auto own = nn::make_layer_context(
        decoder_input_ids, {.cache = tokens, .attention_mask = context.attention_mask}, max_positions(), before);
    const int64_t T = own.length, keys = own.past + T;
    StackContext stack{.bias = decoder_->position_bias(T, keys, own.past),
                       .virtual_keys_values = before.keys_values,
                       .cache = cache,
                       .attentions = context.attentions,
                       .cross_attentions = context.cross_attentions};
    if (own.mask.defined())
      stack.bias = hide(stack.bias, own.mask);
    else if (T > 1)
      stack.bias = hide(stack.bias, at::ones({T, keys}, decoder_input_ids.options().dtype(at::kBool)).tril(own.past));
    read_encoder(context, decoder_input_ids, embedded, stack);
    const Tensor y = decoder_->forward(shared_->forward(decoder_input_ids), stack, context.hidden_states);
    if (tokens) tokens->advance(T);
    return config_.scale_decoder_outputs ? y * std::pow(static_cast<double>(config_.d_model), -0.5) : y;
  }

  /// Normal, as Mesh TensorFlow and T5PreTrainedModel._init_weights have it; a head of its own as T5X has it: HF's
  /// deviation of 1 would begin with logits of the size of sqrt(H).
  void initialize(uint64_t seed) override {
    const double H = static_cast<double>(config_.d_model), D = static_cast<double>(config_.d_kv);
    const auto deviation = [&](const std::string& name) {
      if (name.starts_with("shared.")) return 1.0;
      if (name.ends_with(".q.weight")) return std::pow(H * D, -0.5);
      if (name.ends_with(".o.weight")) return std::pow(static_cast<double>(config_.num_heads) * D, -0.5);
      if (name.ends_with(".wo.weight")) return std::pow(static_cast<double>(config_.d_ff), -0.5);
      return std::pow(H, -0.5);
    };
    for (const auto& [name, value] : named_parameters().pairs()) {
      if (value.dim() == 1)
        nn::init_constant(value, config_.initializer_factor);
      else
        nn::init_normal(value, config_.initializer_factor * deviation(name), seed, name);
    }
  }

  nn::KeyValueShape key_value_shape() const override {
    return {config_.num_decoder_layers, config_.num_heads, config_.d_kv};
  }

  int64_t decoder_start_token_id() const override {
    if (config_.decoder_start_token_id) return *config_.decoder_start_token_id;
    throw Error(Exit::file, {.what = "key 'decoder_start_token_id' is missing",
                             .where = "config.json",
                             .hint = "published T5 models begin with their pad_token_id, 0"});
  }

  int64_t pad_token_id() const override {
    const auto pad = config_.raw.find("pad_token_id");
    return pad != config_.raw.end() && pad->is_number_integer() ? pad->get<int64_t>() : 0;
  }

  /// Of one token of the encoder and one of the decoder, where both have sequences of that length.
  double training_flops_per_token(int64_t sequence_length) const override {
    const double H = config_.d_model, inner = config_.num_heads * config_.d_kv;
    const double attention = 4 * H * inner, feed_forward = (config_.gated ? 3.0 : 2.0) * H * config_.d_ff;
    const double weights = config_.num_layers * (attention + feed_forward) +
                           config_.num_decoder_layers * (2 * attention + feed_forward) + H * config_.vocab_size;
    // In the encoder and across all see all, in the decoder half.
    const double pairs = 12.0 * config_.num_layers + 18.0 * config_.num_decoder_layers;
    return 6 * weights + pairs * inner * sequence_length;
  }

  std::map<std::string, Tensor> tied_names() override {
    std::map<std::string, Tensor> names = {{"encoder.embed_tokens.weight", shared_->weight},
                                           {"decoder.embed_tokens.weight", shared_->weight}};
    if (config_.tie_word_embeddings) names["lm_head.weight"] = shared_->weight;
    return names;
  }

  /// Version 5 of transformers saves a v1.1 model with its head and says that it is tied.
  bool untie(const std::string& name) override {
    if (name != "lm_head.weight") return false;
    config_.tie_word_embeddings = false;
    lm_head_ = replace_module("lm_head", Linear::head(shared_->weight, false, {dtype(), device()}));
    return true;
  }

  Linear& lm_head() override { return *lm_head_; }
  int64_t vocab_size() const override { return config_.vocab_size; }
  Tensor embed(const Tensor& ids) override { return shared_->forward(ids); }
  int64_t num_positions() const override { return std::numeric_limits<int64_t>::max(); }
  int64_t num_layers() const override { return config_.num_layers; }
  void set_gradient_checkpointing(bool on) override {
    encoder_->gradient_checkpointing = decoder_->gradient_checkpointing = on;
  }

  io::Json config() const override {
    io::Json json = config_.raw;
    json["architectures"] = {"T5ForConditionalGeneration"};
    json["model_type"] = "t5";
    json["is_encoder_decoder"] = true;
    json["tie_word_embeddings"] = config_.tie_word_embeddings;
    json["scale_decoder_outputs"] = config_.scale_decoder_outputs;
    return json;
  }

 private:
  /// embedded: virtual tokens before those of the text, which its mask does not know.
  static void read_encoder(const nn::DecoderContext& context, const Tensor& ids, int64_t embedded,
                           StackContext& stack) {
    nn::Seq2SeqCache* cache = stack.cache;
    if (cache && cache->holds_encoder()) {
      stack.encoder_mask = cache->encoder_mask();
      return;
    }
    const Tensor& hidden = context.encoder_hidden;
    LLMTK_CHECK(hidden.defined() && hidden.dim() == 3 && hidden.size(0) == ids.size(0), "encoder_hidden is ",
                hidden.defined() ? hidden.sizes() : at::IntArrayRef(), ", decoder_input_ids is ", ids.sizes());
    stack.encoder_hidden = hidden;
    const Tensor& mask = context.encoder_attention_mask;
    const int64_t text = mask.defined() && mask.dim() == 2 ? mask.size(1) : hidden.size(1);
    LLMTK_CHECK(text == hidden.size(1) || text == hidden.size(1) - embedded, "encoder_attention_mask is ", mask.sizes(),
                ", encoder_hidden is ", hidden.sizes());
    stack.encoder_mask = real_keys(mask, hidden.size(0), text, hidden.size(1), hidden.device());
    if (cache) cache->encoder_mask() = stack.encoder_mask;
  }

  T5Config config_;
  std::shared_ptr<nn::Embedding> shared_;
  std::shared_ptr<Stack> encoder_, decoder_;
  std::shared_ptr<Linear> lm_head_;
};

}  // namespace

std::shared_ptr<nn::Model> make_t5(const io::Json& config, const std::string& where, const nn::Build& build) {
  return std::make_shared<T5>(T5Config::from_hf(config, where, build.typed_keys), build);
}

}  // namespace llmtk::models
