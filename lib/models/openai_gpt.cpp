#include "models/openai_gpt.h"

#include <cmath>

#include "models/common.h"
#include "nn/attention.h"
#include "nn/init.h"
#include "nn/norm.h"

namespace llmtk::models {

using at::Tensor;
using nn::Build;
using nn::LayerContext;
using nn::Linear;
using nn::Residual;

OpenAIGPTConfig OpenAIGPTConfig::from_hf(const io::Json& json, const std::string& where,
                                         const io::TypedKeys* typed_keys) {
  io::ObjectReader config(json, where, typed_keys);
  read_common(config);
  OpenAIGPTConfig c;
  c.vocab_size = config.integer("vocab_size");
  c.n_positions = config.integer("n_positions");
  c.n_embd = config.integer("n_embd");
  c.n_layer = config.integer("n_layer", 1, kMostLayers);
  c.n_head = config.integer("n_head");
  const std::string afn = config.string_or("afn", "gelu");
  if (afn == "gelu")
    c.afn = nn::Activation::gelu_tanh;
  else if (afn == "relu")
    c.afn = nn::Activation::relu;
  else if (afn == "silu" || afn == "swish")
    c.afn = nn::Activation::silu;
  else
    config.fail("afn", "gelu, relu, silu or swish");
  c.resid_pdrop = config.probability_or("resid_pdrop", c.resid_pdrop);
  c.embd_pdrop = config.probability_or("embd_pdrop", c.embd_pdrop);
  c.attn_pdrop = config.probability_or("attn_pdrop", c.attn_pdrop);
  c.layer_norm_epsilon = config.number_or("layer_norm_epsilon", c.layer_norm_epsilon);
  c.initializer_range = config.number_or("initializer_range", c.initializer_range);
  c.tie_word_embeddings = config.boolean_or("tie_word_embeddings", true);
  if (c.n_embd % c.n_head != 0) config.fail("n_head", "a divisor of n_embd, " + std::to_string(c.n_embd));
  // Settings of heads for other tasks, and of the first release.
  config.ignore({"summary_type", "summary_use_proj", "summary_activation", "summary_proj_to_labels",
                 "summary_first_dropout", "n_special", "predict_special_tokens", "add_cross_attention"});
  refuse_unread(config, typed_keys);
  c.raw = json;
  return c;
}

namespace {

struct Attention : torch::nn::Module {
  Attention(const OpenAIGPTConfig& c, int64_t layer, const Build& build)
      : heads(c.n_head),
        layer(layer),
        scale(1 / std::sqrt(static_cast<double>(c.n_embd / c.n_head))),
        attn_pdrop(c.attn_pdrop),
        resid_pdrop(c.resid_pdrop) {
    const Linear::Options conv1d{.conv1d = true};
    c_attn = register_module("c_attn", std::make_shared<Linear>(c.n_embd, 3 * c.n_embd, conv1d, build));
    c_proj = register_module("c_proj", std::make_shared<Linear>(c.n_embd, c.n_embd, conv1d, build));
  }

  Tensor forward(const Tensor& x, const LayerContext& context) {
    const Tensor qkv = c_attn->forward(x).unflatten(2, {3, heads, -1}).permute({2, 0, 3, 1, 4});  // [3, B, N, T, D]
    const auto parts = qkv.unbind(0);
    const Tensor y = nn::causal_attention(parts[0], parts[1], parts[2], context, layer,
                                          {.scale = scale, .dropout = is_training() ? attn_pdrop : 0.0});  // [B, T, H]
    return nn::dropout(c_proj->forward(y), resid_pdrop, is_training());
  }

  int64_t heads, layer;
  double scale, attn_pdrop, resid_pdrop;
  std::shared_ptr<Linear> c_attn, c_proj;
};

struct MLP : torch::nn::Module {
  MLP(const OpenAIGPTConfig& c, const Build& build) : afn(c.afn), resid_pdrop(c.resid_pdrop) {
    const Linear::Options conv1d{.conv1d = true};
    c_fc = register_module("c_fc", std::make_shared<Linear>(c.n_embd, 4 * c.n_embd, conv1d, build));
    c_proj = register_module("c_proj", std::make_shared<Linear>(4 * c.n_embd, c.n_embd, conv1d, build));
  }

  Tensor forward(const Tensor& x) {
    return nn::dropout(c_proj->forward(nn::activate(afn, c_fc->forward(x))), resid_pdrop, is_training());
  }

  nn::Activation afn;
  double resid_pdrop;
  std::shared_ptr<Linear> c_fc, c_proj;
};

struct Block : torch::nn::Module {
  Block(const OpenAIGPTConfig& c, int64_t layer, const Build& build) {
    attn = register_module("attn", std::make_shared<Attention>(c, layer, build));
    ln_1 = register_module("ln_1", std::make_shared<nn::LayerNorm>(c.n_embd, c.layer_norm_epsilon, build));
    mlp = register_module("mlp", std::make_shared<MLP>(c, build));
    ln_2 = register_module("ln_2", std::make_shared<nn::LayerNorm>(c.n_embd, c.layer_norm_epsilon, build));
  }

  Residual forward(const Residual& x, const LayerContext& context) {
    Residual after_attention{x.stream, attn->forward(x.stream, context)};
    const Tensor n = ln_1->forward(after_attention);
    Residual after_mlp{n, mlp->forward(n)};
    return {ln_2->forward(after_mlp), {}};
  }

  std::shared_ptr<Attention> attn;
  std::shared_ptr<nn::LayerNorm> ln_1, ln_2;
  std::shared_ptr<MLP> mlp;
};

struct Transformer : torch::nn::Module {
  Transformer(const OpenAIGPTConfig& c, const Build& build) : embd_pdrop(c.embd_pdrop) {
    tokens_embed = register_module("tokens_embed", std::make_shared<nn::Embedding>(c.vocab_size, c.n_embd, build));
    positions_embed =
        register_module("positions_embed", std::make_shared<nn::Embedding>(c.n_positions, c.n_embd, build));
    h = register_module("h", std::make_shared<nn::Layers<Block>>());
    for (int64_t layer = 0; layer < c.n_layer; ++layer) h->append(std::make_shared<Block>(c, layer, build));
  }

  Tensor forward(const Tensor& input_ids, const LayerContext& context, std::vector<Tensor>* hidden_states) {
    const Tensor embedded = kernels::add(nn::put_before(context.virtual_embeddings, tokens_embed->forward(input_ids)),
                                         positions_embed->forward(context.position_ids));
    Residual x{nn::dropout(embedded, embd_pdrop, is_training()), {}};  // [B, T, H]
    for (const auto& block : *h) {
      if (hidden_states) hidden_states->push_back(x.stream);
      x = nn::run_layer(*block, x, context, gradient_checkpointing);
    }
    if (hidden_states) hidden_states->push_back(x.stream);
    return x.stream;
  }

  double embd_pdrop;
  bool gradient_checkpointing = false;
  std::shared_ptr<nn::Embedding> tokens_embed, positions_embed;
  std::shared_ptr<nn::Layers<Block>> h;
};

class OpenAIGPT final : public nn::CausalModel {
 public:
  OpenAIGPT(OpenAIGPTConfig config, const Build& build) : config_(std::move(config)) {
    transformer_ = register_module("transformer", std::make_shared<Transformer>(config_, build));
    lm_head_ = register_module("lm_head",
                               Linear::head(transformer_->tokens_embed->weight, config_.tie_word_embeddings, build));
  }

  /// Normal with initializer_range throughout (section 4.1 of the paper).
  void initialize(uint64_t seed) override { nn::init_parameters(*this, seed, config_.initializer_range); }

  nn::KeyValueShape key_value_shape() const override {
    return {config_.n_layer, config_.n_head, config_.n_embd / config_.n_head};
  }

  double training_flops_per_token(int64_t sequence_length) const override {
    const double H = config_.n_embd, L = config_.n_layer;
    return 6 * (L * 12 * H * H + H * config_.vocab_size) + 6 * L * H * sequence_length;
  }

  Linear& lm_head() override { return *lm_head_; }
  int64_t vocab_size() const override { return config_.vocab_size; }
  Tensor embed(const Tensor& ids) override { return transformer_->tokens_embed->forward(ids); }
  int64_t num_positions() const override { return config_.n_positions; }
  int64_t num_layers() const override { return config_.n_layer; }
  void set_gradient_checkpointing(bool on) override { transformer_->gradient_checkpointing = on; }

  io::Json config() const override {
    io::Json json = config_.raw;
    json["architectures"] = {"OpenAIGPTLMHeadModel"};
    json["model_type"] = "openai-gpt";
    return json;
  }

 private:
  Tensor run_layers(const Tensor& input_ids, LayerContext& context, std::vector<Tensor>* hidden_states) override {
    return transformer_->forward(input_ids, context, hidden_states);
  }

  OpenAIGPTConfig config_;
  std::shared_ptr<Transformer> transformer_;
  std::shared_ptr<Linear> lm_head_;
};

}  // namespace

std::shared_ptr<nn::Model> make_openai_gpt(const io::Json& config, const std::string& where, const Build& build) {
  return std::make_shared<OpenAIGPT>(OpenAIGPTConfig::from_hf(config, where, build.typed_keys), build);
}

std::optional<std::string> openai_gpt_parameter_name(const std::string& name) {
  if (name.ends_with(".attn.bias") || name.ends_with("position_ids")) return std::nullopt;
  if (name.starts_with("transformer.") || name.starts_with("lm_head.")) return name;
  return "transformer." + name;
}

std::map<std::string, io::Json> openai_gpt_presets() {
  return {{"openai-gpt",
           {{"model_type", "openai-gpt"},
            {"architectures", {"OpenAIGPTLMHeadModel"}},
            {"vocab_size", 40478},
            {"n_positions", 512},
            {"n_embd", 768},
            {"n_layer", 12},
            {"n_head", 12},
            {"afn", "gelu"},
            {"resid_pdrop", 0.1},
            {"embd_pdrop", 0.1},
            {"attn_pdrop", 0.1},
            {"layer_norm_epsilon", 1e-5},
            {"initializer_range", 0.02},
            {"tie_word_embeddings", true}}}};
}

}  // namespace llmtk::models
