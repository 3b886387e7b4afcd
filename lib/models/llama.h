#pragma once
// Llama (Touvron et al., LLaMA and Llama 2, 2023; Llama 3, 2024) and the many models of its shape, as HF's
// LlamaForCausalLM: RMSNorm before each sub-layer, rotary positions, grouped-query attention, SwiGLU, biases optional.
// Mistral, Qwen2 and Qwen3 are this decoder with a setting or two of its config: their files read it.
//
// Shapes: B rows, T tokens, H hidden_size, N heads, K key-value heads, D head_dim, V vocab_size.

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "io/json.h"
#include "nn/activation.h"
#include "nn/causal_model.h"
#include "nn/linear.h"
#include "nn/rotary.h"

namespace llmtk::models {

struct LlamaConfig {
  std::string architecture = "LlamaForCausalLM";  ///< the HF class
  int64_t vocab_size, hidden_size, intermediate_size, num_hidden_layers, num_attention_heads;
  int64_t num_key_value_heads;  ///< num_attention_heads where config.json has none
  int64_t head_dim;             ///< hidden_size / num_attention_heads where config.json has none
  int64_t max_position_embeddings;
  nn::Activation hidden_act = nn::Activation::silu;
  nn::RopeConfig rope;
  double rms_norm_eps = 1e-6;
  double initializer_range = 0.02;
  double attention_dropout = 0;
  bool qkv_bias = false, o_bias = false, mlp_bias = false;
  bool qk_norm = false;          ///< an RMSNorm of each head's queries and keys before they are rotated
  int64_t sliding_window = 0;    ///< tokens that a query sees, itself included, in the layers that slide; 0: all
  std::vector<bool> is_sliding;  ///< of each layer
  bool tie_word_embeddings = false;
  io::Json raw;  ///< config.json itself: what is saved again

  /// What the families of this shape say in the same words; the rest is as in Llama without biases. Throws Error(file)
  /// naming the key.
  static LlamaConfig from_common(io::ObjectReader& config);
  /// Throws Error(file) naming `where` and the key.
  static LlamaConfig from_hf(const io::Json& json, const std::string& where, const io::TypedKeys* typed_keys = nullptr);
};

std::shared_ptr<nn::Model> make_llama_decoder(LlamaConfig config, const nn::Build& build);
std::shared_ptr<nn::Model> make_llama(const io::Json& config, const std::string& where, const nn::Build& build);

/// The parameter that a tensor of a file means: old files carry rotary_emb.inv_freq, files of the bare LlamaModel lack
/// the prefix. nullopt: not a weight.
std::optional<std::string> llama_parameter_name(const std::string& name);

/// config.json by name: smollm2-135m, llama-2-7b, llama-3.2-1b, ...
std::map<std::string, io::Json> llama_presets();

/// A published shape, and what config.json says of it in all families of this decoder.
struct LlamaShape {
  const char* name;
  int64_t vocab, hidden, intermediate, layers, heads, kv_heads, head_dim, positions;
  double eps;
  bool tied;
  int64_t bos, eos;
};
io::Json llama_preset(const LlamaShape& shape, const char* model_type, const char* architecture,
                      const nn::RopeConfig& rope);

}  // namespace llmtk::models
