#pragma once
// GPT-NeoX (Black et al., GPT-NeoX-20B, 2022) and Pythia (Biderman et al., 2023), as HF's GPTNeoXForCausalLM: attention
// and MLP beside each other on the same stream (or one after the other), rotary positions on a share of each head,
// LayerNorm, queries, keys and values of a head in one row of one matrix.
//
// Shapes: B rows, T tokens, H hidden_size, N heads, D = H / N, V vocab_size.

#include <map>
#include <optional>
#include <string>

#include "io/json.h"
#include "nn/activation.h"
#include "nn/causal_model.h"
#include "nn/linear.h"
#include "nn/rotary.h"

namespace llmtk::models {

struct GPTNeoXConfig {
  int64_t vocab_size, hidden_size, intermediate_size, num_hidden_layers, num_attention_heads;
  int64_t max_position_embeddings;
  nn::Activation hidden_act = nn::Activation::gelu;
  nn::RopeConfig rope;
  double layer_norm_eps = 1e-5;
  double initializer_range = 0.02;
  double attention_dropout = 0, hidden_dropout = 0;
  bool use_parallel_residual = true;
  bool attention_bias = true;
  bool tie_word_embeddings = false;
  io::Json raw;  ///< config.json itself: what is saved again

  int64_t head_dim() const { return hidden_size / num_attention_heads; }
  /// Throws Error(file) naming `where` and the key.
  static GPTNeoXConfig from_hf(const io::Json& json, const std::string& where,
                               const io::TypedKeys* typed_keys = nullptr);
};

std::shared_ptr<nn::Model> make_gpt_neox(const io::Json& config, const std::string& where, const nn::Build& build);

/// The parameter that a tensor of a file means: the first files carry the causal mask and the rotary frequencies, files
/// of the bare GPTNeoXModel lack the prefix. nullopt: not a weight.
std::optional<std::string> gpt_neox_parameter_name(const std::string& name);

/// config.json by name: pythia-70m, pythia-1b, gpt-neox-20b, ...
std::map<std::string, io::Json> gpt_neox_presets();

}  // namespace llmtk::models
