#pragma once
// GPT-2 (Radford et al., Language Models are Unsupervised Multitask Learners, 2019), as HF's GPT2LMHeadModel.
// GPT-3's published shapes are this architecture too (dense attention in every layer).
//
// Shapes: B rows, T tokens, H n_embd, N n_head, D = H / N, V vocab_size.

#include <map>
#include <optional>
#include <string>

#include "io/json.h"
#include "nn/activation.h"
#include "nn/causal_model.h"
#include "nn/linear.h"

namespace llmtk::models {

struct GPT2Config {
  int64_t vocab_size, n_positions, n_embd, n_layer, n_head;
  int64_t n_inner;  ///< 4 * n_embd where config.json has null
  nn::Activation activation_function = nn::Activation::gelu_tanh;
  double resid_pdrop = 0.1, embd_pdrop = 0.1, attn_pdrop = 0.1;
  double layer_norm_epsilon = 1e-5;
  double initializer_range = 0.02;
  bool scale_attn_weights = true;
  bool scale_attn_by_inverse_layer_idx = false;
  bool tie_word_embeddings = true;
  io::Json raw;  ///< config.json itself: what is saved again

  /// Throws Error(file) naming `where` and the key.
  static GPT2Config from_hf(const io::Json& json, const std::string& where, const io::TypedKeys* typed_keys = nullptr);
};

std::shared_ptr<nn::Model> make_gpt2(const io::Json& config, const std::string& where, const nn::Build& build);

/// The parameter that a tensor of a file means: the first files on the hub lack the prefix and carry the causal mask as
/// buffers. nullopt: not a weight.
std::optional<std::string> gpt2_parameter_name(const std::string& name);

/// config.json by name: gpt2, gpt2-medium, gpt2-large, gpt2-xl, gpt3-small, ...
std::map<std::string, io::Json> gpt2_presets();

}  // namespace llmtk::models
