#include "speculation_flags.h"

#include <algorithm>

#include "core/error.h"
#include "models/registry.h"

namespace llmtk {
namespace {

/// Throws where a token means another text to the draft model.
void check_vocabulary(const text::Tokenizer& tokenizer, const text::Tokenizer& of_draft, const std::string& draft) {
  const auto refuse = [&](const std::string& got, const std::string& expected) {
    throw Error(Exit::usage,
                {.what = "the draft model has another vocabulary",
                 .where = draft,
                 .got = got,
                 .expected = expected,
                 .hint = "take a smaller model of the same family, or --prompt-lookup-num-tokens, which needs none"});
  };
  if (tokenizer.vocab_size() != of_draft.vocab_size())
    refuse(std::to_string(of_draft.vocab_size()) + " tokens", std::to_string(tokenizer.vocab_size()));
  for (size_t i = 0; i < tokenizer.vocab_size(); ++i) {
    const auto id = static_cast<text::TokenId>(i);
    const std::string expected = tokenizer.id_to_token(id), got = of_draft.id_to_token(id);
    if (got != expected) refuse("token " + std::to_string(i) + " is '" + got + "'", "'" + expected + "'");
  }
}

void refuse(bool given, const char* what, const char* hint) {
  if (given) throw Error(Exit::usage, {.what = what, .hint = hint});
}

}  // namespace

void add_speculation_flags(CLI::App& app, SpeculationFlags& f) {
  const char* group = "Speed and memory";
  app.add_option("--assistant-model", f.assistant_model,
                 "A smaller model with the same vocabulary, which proposes tokens that the model then reads at once")
      ->group(group);
  app.add_option("--num-assistant-tokens", f.num_assistant_tokens, "Tokens that it proposes at a time; default: 5")
      ->check(CLI::Range(int64_t{1}, int64_t{31}))
      ->group(group);
  app.add_option("--prompt-lookup-num-tokens", f.prompt_lookup_num_tokens,
                 "Propose so many tokens that followed the last ones where they stood before: for answers that repeat "
                 "much of their "
                 "prompt")
      ->check(CLI::Range(int64_t{1}, int64_t{31}))
      ->group(group);
  app.add_option("--max-matching-ngram-size", f.max_matching_ngram_size,
                 "As many of the last tokens are looked for, at most; default: 3")
      ->check(CLI::Range(int64_t{1}, int64_t{64}))
      ->group(group);
}

OpenSpeculation open_speculation(const SpeculationFlags& f, const ModelOptions& model,
                                 const text::Tokenizer& tokenizer) {
  const bool draft = !f.assistant_model.empty(), look_up = f.prompt_lookup_num_tokens.has_value();
  refuse(draft && look_up, "tokens are proposed by --assistant-model or by --prompt-lookup-num-tokens",
         "leave one out");
  refuse(f.num_assistant_tokens && !draft, "--num-assistant-tokens has no effect without a draft model",
         "add --assistant-model");
  refuse(f.max_matching_ngram_size && !look_up, "--max-matching-ngram-size has no effect without looking up",
         "add --prompt-lookup-num-tokens");
  OpenSpeculation open;
  if (look_up)
    open.speculation = {.ngram = f.max_matching_ngram_size.value_or(3), .tokens = *f.prompt_lookup_num_tokens};
  if (!draft) return open;
  ModelOptions options = model;
  options.model = f.assistant_model;
  options.tokenizer.clear();
  options.adapters.clear();
  open.draft = open_model(options);
  check_vocabulary(tokenizer, *open.draft->tokenizer, f.assistant_model);
  auto decoder = models::as<nn::CausalModel>(open.draft->model, f.assistant_model);
  open.speculation = {.draft = decoder.get(), .tokens = f.num_assistant_tokens.value_or(5)};
  return open;
}

}  // namespace llmtk
