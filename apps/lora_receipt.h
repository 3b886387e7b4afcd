#pragma once
// What a merge cost: how far the merged model is from the base with its adapters.

#include <nlohmann/json.hpp>
#include <vector>

#include "nn/model.h"
#include "text/tokenizer.h"

namespace llmtk {

struct Receipt {
  int64_t tokens = 0;                   ///< that were compared
  double largest_logit_difference = 0;  ///< absolute
  double largest_logit = 0;             ///< absolute, of the model with adapters
  double mean_kl = 0;                   ///< of the adapters' distribution to the merged one's, nats per position
  double base_nll = 0, adapter_nll = 0, merged_nll = 0;  ///< summed over `scored` tokens; of decoders and a text alone
  int64_t scored = 0;

  nlohmann::ordered_json json() const;
};

/// Compares models of one shape on rows of tokens. base: null where the tokens are no text whose perplexity counts.
Receipt compare(nn::Model* base, nn::Model& adapted, nn::Model& merged,
                const std::vector<std::vector<text::TokenId>>& rows);

}  // namespace llmtk
