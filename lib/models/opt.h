#pragma once
// OPT (Zhang et al., OPT: Open Pre-trained Transformer Language Models, 2022), as HF's OPTForCausalLM: learned
// positions that begin at row 2 of their table, ReLU, biases; LayerNorm before each sub-layer, in one size after it,
// where a table narrower than the model is projected to its width and back.
//
// Shapes: B rows, T tokens, H hidden_size, E word_embed_proj_dim, N heads, D = H / N, V vocab_size.

#include <map>
#include <optional>
#include <string>

#include "io/json.h"
#include "nn/activation.h"
#include "nn/causal_model.h"
#include "nn/linear.h"

namespace llmtk::models {

struct OPTConfig {
  int64_t vocab_size, hidden_size, ffn_dim, num_hidden_layers, num_attention_heads, max_position_embeddings;
  int64_t word_embed_proj_dim;  ///< hidden_size where config.json has none
  nn::Activation activation_function = nn::Activation::relu;
  double dropout = 0.1, attention_dropout = 0;
  double init_std = 0.02;
  bool do_layer_norm_before = true;
  bool remove_final_layer_norm = false;
  bool enable_bias = true;
  bool layer_norm_elementwise_affine = true;
  bool tie_word_embeddings = true;
  io::Json raw;  ///< config.json itself: what is saved again

  /// Throws Error(file) naming `where` and the key.
  static OPTConfig from_hf(const io::Json& json, const std::string& where, const io::TypedKeys* typed_keys = nullptr);
};

std::shared_ptr<nn::Model> make_opt(const io::Json& config, const std::string& where, const nn::Build& build);

/// The parameter that a tensor of a file means: the first files carry a version beside the weights and lack the prefix.
/// nullopt: not a weight.
std::optional<std::string> opt_parameter_name(const std::string& name);

/// config.json by name: opt-125m, opt-350m, ...
std::map<std::string, io::Json> opt_presets();

}  // namespace llmtk::models
