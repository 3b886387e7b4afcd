#pragma once
// From an encoder's hidden states to one vector a text, as sentence-transformers' modules do it: pooling over the
// tokens, then perhaps a normalisation to length 1. (Reimers and Gurevych, Sentence-BERT, 2019.)

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace llmtk::models {

/// Several ones are concatenated in this order.
enum class Pooling {
  cls,            ///< the first token
  max,            ///< dimension by dimension
  mean,           ///< of the real tokens
  mean_sqrt_len,  ///< their sum over the square root of their number
  weighted_mean,  ///< the first token counts once, the second twice, ...
  last_token,
};
/// "cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken", as sentence-transformers says; nullopt
/// for another word.
std::optional<Pooling> parse_pooling(std::string_view name);
inline constexpr const char* kPoolingNames = "cls, max, mean, mean_sqrt_len_tokens, weightedmean or lasttoken";

/// What a folder's modules.json and the files it names say.
struct SentenceEncoder {
  std::filesystem::path transformer;  ///< the folder that holds config.json and the weights
  std::vector<Pooling> pooling;       ///< empty: the folder has no modules.json
  bool normalize = false;
  std::optional<int64_t> max_seq_length;       ///< longer texts are cut, special tokens counted
  bool include_prompt = true;                  ///< whether a prompt's tokens are pooled too
  std::map<std::string, std::string> prompts;  ///< by name: what is put before a text
  std::string default_prompt_name;             ///< empty: none
};
/// Throws Error(file) naming file and key: a module that is not supported, a key with an unusable value.
SentenceEncoder read_sentence_encoder(const std::filesystem::path& folder);

/// hidden: [B, T, H]; attention_mask: [B, T] bool, at least one true in a row. Returns [B, poolings * H] float32.
at::Tensor pool(const at::Tensor& hidden, const at::Tensor& attention_mask, const std::vector<Pooling>& poolings);
/// Rows scaled to length 1. x: [B, H].
at::Tensor normalized(const at::Tensor& x);

}  // namespace llmtk::models
