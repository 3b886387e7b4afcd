#pragma once
// GPT (Radford et al., Improving Language Understanding by Generative Pre-Training, 2018), as HF's
// OpenAIGPTLMHeadModel. Against GPT-2: the norms follow the residual sums instead of preceding the sub-layers, so there
// is no final norm.
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

struct OpenAIGPTConfig {
  int64_t vocab_size, n_positions, n_embd, n_layer, n_head;
  nn::Activation afn = nn::Activation::gelu_tanh;  ///< this family's "gelu" is the tanh approximation
  double resid_pdrop = 0.1, embd_pdrop = 0.1, attn_pdrop = 0.1;
  double layer_norm_epsilon = 1e-5;
  double initializer_range = 0.02;
  bool tie_word_embeddings = true;
  io::Json raw;  ///< config.json itself: what is saved again

  /// Throws Error(file) naming `where` and the key.
  static OpenAIGPTConfig from_hf(const io::Json& json, const std::string& where,
                                 const io::TypedKeys* typed_keys = nullptr);
};

std::shared_ptr<nn::Model> make_openai_gpt(const io::Json& config, const std::string& where, const nn::Build& build);

/// The parameter that a tensor of a file means: files of the bare model lack the prefix, old ones carry the causal mask
/// and the positions as buffers. nullopt: not a weight.
std::optional<std::string> openai_gpt_parameter_name(const std::string& name);

/// config.json by name: openai-gpt.
std::map<std::string, io::Json> openai_gpt_presets();

}  // namespace llmtk::models
