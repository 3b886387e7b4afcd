#include "inspect/prompt.h"

#include <ATen/ops/tensor.h>

#include "core/error.h"
#include "generate/config.h"

namespace llmtk {

void add_prompt_options(CLI::App& command, PromptOptions& options) {
  add_model_options(command, options.model);
  command.add_option("-p,--prompt", options.text, "The text")->required();
  command.add_flag("--add-special-tokens,!--no-add-special-tokens", options.add_special_tokens,
                   "Whether the tokenizer puts its own special tokens (bos) around the text; default: yes");
}

std::vector<text::TokenId> prompt_ids(const OpenModel& open, const PromptOptions& options) {
  auto ids = encode_text(*open.tokenizer, options.text, options.add_special_tokens, "--prompt");
  if (ids.empty()) {
    const auto bos = generate::load_config(open.folder, open.tokenizer.get()).bos_token_id;
    if (bos < 0) throw Error(Exit::data, {.what = "the text is empty, and the model has no token to begin with"});
    ids = {bos};
  }
  for (const auto id : ids)
    if (id < 0 || id >= open.model->vocab_size())
      throw Error(Exit::data, {.what = "the tokenizer gives an id that the model does not know",
                               .got = std::to_string(id),
                               .expected = "less than vocab_size " + std::to_string(open.model->vocab_size()),
                               .hint = "this tokenizer does not belong to this model"});
  if (static_cast<int64_t>(ids.size()) > open.model->max_positions())
    throw Error(Exit::data, {.what = "the text is longer than the model can see",
                             .got = std::to_string(ids.size()) + " tokens",
                             .expected = "at most " + std::to_string(open.model->max_positions())});
  return ids;
}

at::Tensor input_tensor(const std::vector<text::TokenId>& ids, c10::Device device) {
  return at::tensor(std::vector<int64_t>(ids.begin(), ids.end()), at::kLong).unsqueeze(0).to(device);
}

}  // namespace llmtk
