#pragma once
// The decoder that Gemma 2 and Gemma 3 share (models/gemma2.h and gemma3_text.h read their configs): embeddings times
// sqrt(H), RMSNorms before and after each sub-layer whose weights are kept as their distance from 1, layers with a
// sliding window between those that see everything, grouped-query attention, GeGLU.
//
// Shapes: B rows, T tokens, H hidden_size, N heads, K key-value heads, D head_dim, V vocab_size.

#include <optional>
#include <string>
#include <vector>

#include "io/json.h"
#include "nn/activation.h"
#include "nn/causal_model.h"
#include "nn/linear.h"
#include "nn/rotary.h"

namespace llmtk::models {

struct GemmaConfig {
  std::string architecture;  ///< the HF class
  int64_t vocab_size, hidden_size, intermediate_size, num_hidden_layers, num_attention_heads, num_key_value_heads;
  int64_t head_dim, max_position_embeddings;
  nn::Activation hidden_activation = nn::Activation::gelu_tanh;
  nn::RopeConfig rope;                       ///< of the layers that see everything
  std::optional<nn::RopeConfig> local_rope;  ///< of those with a window, where it is another (Gemma 3)
  double rms_norm_eps = 1e-6;
  double initializer_range = 0.02;
  double attention_dropout = 0;
  double query_pre_attn_scalar = 256;  ///< scores are divided by its root
  double attn_logit_softcapping = 0;   ///< 0: none
  double final_logit_softcapping = 0;  ///< 0: none
  int64_t sliding_window = 0;          ///< tokens that a query sees, itself included, in the layers that slide
  std::vector<bool> is_sliding;        ///< of each layer
  bool attention_bias = false;
  bool qk_norm = false;  ///< an RMSNorm of each head's queries and keys before they are rotated (Gemma 3)
  bool tie_word_embeddings = true;
  io::Json raw;  ///< config.json itself: what is saved again

  /// What both families say in the same words. Throws Error(file) naming the key.
  static GemmaConfig from_common(io::ObjectReader& config);
};

std::shared_ptr<nn::Model> make_gemma_decoder(GemmaConfig config, const nn::Build& build);

/// The parameter that a tensor of a file means: files of the bare model lack the prefix.
std::optional<std::string> gemma_parameter_name(const std::string& name);

/// A published shape, and what config.json says of it in both families.
struct GemmaShape {
  const char* name;
  int64_t vocab, hidden, intermediate, layers, heads, kv_heads, head_dim, positions, query_pre_attn_scalar, window;
};
io::Json gemma_preset(const GemmaShape& shape, const char* model_type, const char* architecture);

}  // namespace llmtk::models
