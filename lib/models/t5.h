#pragma once
// T5 (Raffel et al., Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer, 2020) and T5
// v1.1 (gated feed-forward, a head of its own), as HF's T5ForConditionalGeneration.
//
// Shapes: B rows, S encoder tokens, T decoder tokens, H d_model, N num_heads, D d_kv (N * D need not be H), V
// vocab_size. What differs from most: positions enter as a bias on the attention scores, made by the first layer of
// each stack from the distance of the two tokens and used by all; the scores are not scaled; norms are RMSNorm; nothing
// has a bias.

#include <map>
#include <optional>
#include <string>

#include "io/json.h"
#include "nn/activation.h"
#include "nn/linear.h"
#include "nn/seq2seq_model.h"

namespace llmtk::models {

struct T5Config {
  int64_t vocab_size, d_model, d_kv, d_ff, num_layers, num_heads;
  int64_t num_decoder_layers;  ///< num_layers where config.json has none
  int64_t relative_attention_num_buckets = 32, relative_attention_max_distance = 128;
  double dropout_rate = 0.1;
  double layer_norm_epsilon = 1e-6;
  double initializer_factor = 1.0;
  nn::Activation activation = nn::Activation::relu;  ///< with `gated`: feed_forward_proj
  bool gated = false;
  bool tie_word_embeddings = true;
  bool scale_decoder_outputs = true;  ///< by H^-0.5 before the head; where config.json has none: tie_word_embeddings
  std::optional<int64_t> decoder_start_token_id;
  io::Json raw;  ///< config.json itself: what is saved again

  /// Throws Error(file) naming `where` and the key.
  static T5Config from_hf(const io::Json& json, const std::string& where, const io::TypedKeys* typed_keys = nullptr);
};

std::shared_ptr<nn::Model> make_t5(const io::Json& config, const std::string& where, const nn::Build& build);

/// The parameter that a tensor of a file means: old files carry a table of distances in the first cross attention,
/// which nothing reads. nullopt: not a weight.
std::optional<std::string> t5_parameter_name(const std::string& name);

/// config.json by name: t5-small, ..., t5-11b, t5-v1_1-small, ..., t5-v1_1-xxl.
std::map<std::string, io::Json> t5_presets();

}  // namespace llmtk::models
