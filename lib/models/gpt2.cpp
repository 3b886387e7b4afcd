#include "models/gpt2.h"

#include <cmath>

#include "models/common.h"
#include "nn/attention.h"
#include "nn/checkpoint.h"
#include "nn/init.h"
#include "nn/norm.h"

namespace llmtk::models {

using at::Tensor;
using nn::Build;
using nn::LayerContext;
using nn::Linear;
using nn::Residual;

GPT2Config GPT2Config::from_hf(const io::Json& json, const std::string& where, const io::TypedKeys* typed_keys) {
  io::ObjectReader config(json, where, typed_keys);
  read_common(config);
  GPT2Config c;
  c.vocab_size = config.integer("vocab_size");
  c.n_positions = config.integer("n_positions");
  c.n_embd = config.integer("n_embd");
  c.n_layer = config.integer("n_layer", 1, kMostLayers);
  c.n_head = config.integer("n_head");
  c.n_inner = config.integer_or("n_inner", 4 * c.n_embd, 1);
  c.activation_function = read_activation(config, "activation_function", "gelu_new");
  c.resid_pdrop = config.probability_or("resid_pdrop", c.resid_pdrop);
  c.embd_pdrop = config.probability_or("embd_pdrop", c.embd_pdrop);
  c.attn_pdrop = config.probability_or("attn_pdrop", c.attn_pdrop);
  c.layer_norm_epsilon = config.number_or("layer_norm_epsilon", c.layer_norm_epsilon);
  c.initializer_range = config.number_or("initializer_range", c.initializer_range);
  c.scale_attn_weights = config.boolean_or("scale_attn_weights", true);
  c.scale_attn_by_inverse_layer_idx = config.boolean_or("scale_attn_by_inverse_layer_idx", false);
  c.tie_word_embeddings = config.boolean_or("tie_word_embeddings", true);
  if (c.n_embd % c.n_head != 0) config.fail("n_head", "a divisor of n_embd, " + std::to_string(c.n_embd));
  config.only("add_cross_attention", false);
  // How half-precision attention is rounded in the reference's eager mode; and settings of heads for other tasks.
  config.ignore({"reorder_and_upcast_attn", "summary_type", "summary_use_proj", "summary_activation",
                 "summary_proj_to_labels", "summary_first_dropout"});
  refuse_unread(config, typed_keys);
  c.raw = json;
  return c;
}

namespace {

struct Attention : torch::nn::Module {
  Attention(const GPT2Config& c, int64_t layer, const Build& build)
      : heads(c.n_head), layer(layer), attn_pdrop(c.attn_pdrop), resid_pdrop(c.resid_pdrop) {
    if (c.scale_attn_weights) scale = 1 / std::sqrt(static_cast<double>(c.n_embd / c.n_head));
    if (c.scale_attn_by_inverse_layer_idx) scale /= static_cast<double>(layer + 1);
    c_attn = register_module("c_attn",
                             std::make_shared<Linear>(c.n_embd, 3 * c.n_embd, Linear::Options{.conv1d = true}, build));
    c_proj =
        register_module("c_proj", std::make_shared<Linear>(c.n_embd, c.n_embd, Linear::Options{.conv1d = true}, build));
  }

  Tensor forward(const Tensor& x, const LayerContext& context) {
    const Tensor qkv = c_attn->forward(x).unflatten(2, {3, heads, -1}).permute({2, 0, 3, 1, 4});  // [3, B, N, T, D]
    const auto parts = qkv.unbind(0);                                                             // each [B, N, T, D]
    const Tensor y = nn::causal_attention(parts[0], parts[1], parts[2], context, layer,
                                          {.scale = scale, .dropout = is_training() ? attn_pdrop : 0.0});  // [B, T, H]
    return nn::dropout(c_proj->forward(y), resid_pdrop, is_training());
  }

  int64_t heads, layer;
  double scale = 1.0, attn_pdrop, resid_pdrop;
  std::shared_ptr<Linear> c_attn, c_proj;
};

struct MLP : torch::nn::Module {
  MLP(const GPT2Config& c, const Build& build) : activation(c.activation_function), resid_pdrop(c.resid_pdrop) {
    c_fc =
        register_module("c_fc", std::make_shared<Linear>(c.n_embd, c.n_inner, Linear::Options{.conv1d = true}, build));
    c_proj = register_module("c_proj",
                             std::make_shared<Linear>(c.n_inner, c.n_embd, Linear::Options{.conv1d = true}, build));
  }

  Tensor forward(const Tensor& x) {
    return nn::dropout(c_proj->forward(nn::activate(activation, c_fc->forward(x))), resid_pdrop, is_training());
  }

  nn::Activation activation;
  double resid_pdrop;
  std::shared_ptr<Linear> c_fc, c_proj;
};

struct Block : torch::nn::Module {
  Block(const GPT2Config& c, int64_t layer, const Build& build) {
    ln_1 = register_module("ln_1", std::make_shared<nn::LayerNorm>(c.n_embd, c.layer_norm_epsilon, build));
    attn = register_module("attn", std::make_shared<Attention>(c, layer, build));
    ln_2 = register_module("ln_2", std::make_shared<nn::LayerNorm>(c.n_embd, c.layer_norm_epsilon, build));
    mlp = register_module("mlp", std::make_shared<MLP>(c, build));
  }

  Residual forward(Residual x, const LayerContext& context) {
    x.update = attn->forward(ln_1->forward(x), context);
    x.update = mlp->forward(ln_2->forward(x));
    return x;
  }

  std::shared_ptr<nn::LayerNorm> ln_1, ln_2;
  std::shared_ptr<Attention> attn;
  std::shared_ptr<MLP> mlp;
};

struct Transformer : torch::nn::Module {
  Transformer(const GPT2Config& c, const Build& build) : embd_pdrop(c.embd_pdrop) {
    wte = register_module("wte", std::make_shared<nn::Embedding>(c.vocab_size, c.n_embd, build));
    wpe = register_module("wpe", std::make_shared<nn::Embedding>(c.n_positions, c.n_embd, build));
    h = register_module("h", std::make_shared<nn::Layers<Block>>());
    for (int64_t layer = 0; layer < c.n_layer; ++layer) h->append(std::make_shared<Block>(c, layer, build));
    ln_f = register_module("ln_f", std::make_shared<nn::LayerNorm>(c.n_embd, c.layer_norm_epsilon, build));
  }

  Tensor forward(const Tensor& input_ids, const LayerContext& context, std::vector<Tensor>* hidden_states) {
    const Tensor embedded = kernels::add(nn::put_before(context.virtual_embeddings, wte->forward(input_ids)),
                                         wpe->forward(context.position_ids));  // [B, T, H]
    Residual x{nn::dropout(embedded, embd_pdrop, is_training()), {}};
    for (const auto& block : *h) {
      if (hidden_states) hidden_states->push_back(x.sum());
      x = nn::run_layer(*block, x, context, gradient_checkpointing);
    }
    const Tensor y = ln_f->forward(x);
    if (hidden_states) hidden_states->push_back(y);
    return y;
  }

  double embd_pdrop;
  bool gradient_checkpointing = false;
  std::shared_ptr<nn::Embedding> wte, wpe;
  std::shared_ptr<nn::Layers<Block>> h;
  std::shared_ptr<nn::LayerNorm> ln_f;
};

class GPT2 final : public nn::CausalModel {
 public:
  GPT2(GPT2Config config, const Build& build) : config_(std::move(config)) {
    transformer_ = register_module("transformer", std::make_shared<Transformer>(config_, build));
    lm_head_ = register_module("lm_head", Linear::head(transformer_->wte->weight, config_.tie_word_embeddings, build));
  }

  /// Normal with initializer_range; the projections that write into the residual stream scaled by 1 / sqrt(2 L), the
  /// number of them (section 2.3 of the paper, and GPT2PreTrainedModel._init_weights).
  void initialize(uint64_t seed) override {
    const double deviation = config_.initializer_range;
    const double residual = deviation / std::sqrt(2.0 * static_cast<double>(config_.n_layer));
    nn::init_parameters(*this, seed,
                        [=](std::string_view name) { return name.ends_with("c_proj.weight") ? residual : deviation; });
  }

  nn::KeyValueShape key_value_shape() const override {
    return {config_.n_layer, config_.n_head, config_.n_embd / config_.n_head};
  }

  double training_flops_per_token(int64_t sequence_length) const override {
    const double H = config_.n_embd, layer = H * (4 * H + 2.0 * config_.n_inner);
    return 6 * (config_.n_layer * layer + H * config_.vocab_size) + 6.0 * config_.n_layer * H * sequence_length;
  }

  Linear& lm_head() override { return *lm_head_; }
  int64_t vocab_size() const override { return config_.vocab_size; }
  Tensor embed(const Tensor& ids) override { return transformer_->wte->forward(ids); }
  int64_t num_positions() const override { return config_.n_positions; }
  int64_t num_layers() const override { return config_.n_layer; }
  void set_gradient_checkpointing(bool on) override { transformer_->gradient_checkpointing = on; }

  io::Json config() const override {
    io::Json json = config_.raw;
    json["architectures"] = {"GPT2LMHeadModel"};
    json["model_type"] = "gpt2";
    return json;
  }

 private:
  Tensor run_layers(const Tensor& input_ids, LayerContext& context, std::vector<Tensor>* hidden_states) override {
    return transformer_->forward(input_ids, context, hidden_states);
  }

  GPT2Config config_;
  std::shared_ptr<Transformer> transformer_;
  std::shared_ptr<Linear> lm_head_;
};

}  // namespace

std::shared_ptr<nn::Model> make_gpt2(const io::Json& config, const std::string& where, const Build& build) {
  return std::make_shared<GPT2>(GPT2Config::from_hf(config, where, build.typed_keys), build);
}

std::optional<std::string> gpt2_parameter_name(const std::string& name) {
  if (name.ends_with(".attn.bias") || name.ends_with(".attn.masked_bias")) return std::nullopt;
  if (name.starts_with("transformer.") || name.starts_with("lm_head.")) return name;
  return "transformer." + name;
}

std::map<std::string, io::Json> gpt2_presets() {
  struct Shape {
    const char* name;
    int64_t layers, width, heads, positions;
  };
  // GPT-2: table 2 of its paper. GPT-3: table 2.1 of Brown et al. 2020, with GPT-2's vocabulary; the 13B width is
  // rounded to its 40 heads of 128.
  static constexpr Shape kShapes[] = {
      {"gpt2", 12, 768, 12, 1024},        {"gpt2-medium", 24, 1024, 16, 1024}, {"gpt2-large", 36, 1280, 20, 1024},
      {"gpt2-xl", 48, 1600, 25, 1024},    {"gpt3-small", 12, 768, 12, 2048},   {"gpt3-medium", 24, 1024, 16, 2048},
      {"gpt3-large", 24, 1536, 16, 2048}, {"gpt3-xl", 24, 2048, 16, 2048},     {"gpt3-2.7b", 32, 2560, 32, 2048},
      {"gpt3-6.7b", 32, 4096, 32, 2048},  {"gpt3-13b", 40, 5120, 40, 2048},    {"gpt3-175b", 96, 12288, 96, 2048},
  };
  std::map<std::string, io::Json> presets;
  for (const Shape& shape : kShapes)
    presets[shape.name] = {{"model_type", "gpt2"},
                           {"architectures", {"GPT2LMHeadModel"}},
                           {"vocab_size", 50257},
                           {"n_positions", shape.positions},
                           {"n_embd", shape.width},
                           {"n_layer", shape.layers},
                           {"n_head", shape.heads},
                           {"n_inner", nullptr},
                           {"activation_function", "gelu_new"},
                           {"resid_pdrop", 0.1},
                           {"embd_pdrop", 0.1},
                           {"attn_pdrop", 0.1},
                           {"layer_norm_epsilon", 1e-5},
                           {"initializer_range", 0.02},
                           {"tie_word_embeddings", true},
                           {"bos_token_id", 50256},
                           {"eos_token_id", 50256}};
  return presets;
}

}  // namespace llmtk::models
