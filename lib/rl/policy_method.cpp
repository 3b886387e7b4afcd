#include "rl/policy_method.h"

namespace llmtk::rl {

void set_stop_tokens(generate::GenerationConfig& sampling, const ResponseEndConfig& config,
                     const text::Tokenizer& tokenizer) {
  if (config.stop_token_id)
    sampling.eos_token_ids = {static_cast<text::TokenId>(*config.stop_token_id)};
  else if (config.stop_token == "eos")
    sampling.eos_token_ids = {tokenizer.special_tokens().eos};
}

}  // namespace llmtk::rl
