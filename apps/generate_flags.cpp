#include "generate_flags.h"

#include <nlohmann/json.hpp>
#include <random>

#include "core/error.h"
#include "nn/seq2seq_model.h"

namespace llmtk {
namespace {

void add_length_flags(CLI::App& app, GenerationFlags& f) {
  const char* group = "How long";
  app.add_option("--max-new-tokens", f.max_new_tokens,
                 "Tokens to write at most; 20 where neither this nor "
                 "--max-length nor the model says anything")
      ->group(group);
  app.add_option("--max-length", f.max_length,
                 "Prompt and continuation together, in tokens; of an encoder-decoder, what its decoder sees")
      ->group(group);
  app.add_option("--min-new-tokens", f.min_new_tokens, "No end of sequence before so many")->group(group);
  app.add_option("--min-length", f.min_length, "The same, counted as --max-length is")->group(group);
  app.add_option("--stop-strings,--stop", f.stop_strings, "End where this is written; may be given several times")
      ->allow_extra_args(false)
      ->group(group);
  app.add_option("--eos-token-id", f.eos_token_ids, "End at this token; may be given several times")
      ->allow_extra_args(false)
      ->group(group);
  app.add_option("--exponential-decay-length-penalty", f.exponential_decay_length_penalty,
                 "[START, FACTOR]: after START new tokens the end becomes FACTOR times as attractive with each")
      ->group(group);
}

void add_sampling_flags(CLI::App& app, GenerationFlags& f) {
  const char* group = "Which token comes next";
  // Not bound to the member: CLI11 would set it to false where the flag is not given, over the model's own setting.
  app.add_flag_function(
         "--do-sample,!--no-do-sample", [&f](int64_t count) { f.do_sample = count > 0; },
         "Draw the next token; otherwise the most probable one comes")
      ->group(group);
  app.add_option("--temperature", f.temperature, "Below 1: safer, above 1: wilder")->group(group);
  app.add_option("--top-k", f.top_k, "Among the k most probable; 0: all")->group(group);
  app.add_option("--top-p", f.top_p, "Among the most probable that together have this probability")->group(group);
  app.add_option("--min-p", f.min_p, "Among those at least so many times as probable as the best")->group(group);
  app.add_option("--typical-p", f.typical_p, "Locally typical sampling")->group(group);
  app.add_option("--epsilon-cutoff", f.epsilon_cutoff, "Among those at least so probable; 0: all")->group(group);
  app.add_option("--eta-cutoff", f.eta_cutoff, "The same, less strict where the model is unsure; 0: all")->group(group);
  app.add_option("--seed", f.seed, "The same seed gives the same text; default: another one each time")->group(group);
}

void add_penalty_flags(CLI::App& app, GenerationFlags& f) {
  const char* group = "What is favoured and forbidden";
  app.add_option("--repetition-penalty", f.repetition_penalty, "Above 1: less of what was already there")->group(group);
  app.add_option("--presence-penalty", f.presence_penalty, "Above 0: less of what was already written")->group(group);
  app.add_option("--frequency-penalty", f.frequency_penalty, "Above 0: the less, the more often it was written")
      ->group(group);
  app.add_option("--no-repeat-ngram-size", f.no_repeat_ngram_size, "No sequence of so many tokens twice; 0: any")
      ->group(group);
  const auto ids = [&](const char* flag, std::vector<text::TokenId>& target, const char* help) {
    app.add_option(flag, target, std::string(help) + "; may be given several times, or with commas")
        ->delimiter(',')
        ->allow_extra_args(false)
        ->group(group);
  };
  ids("--suppress-tokens", f.suppress_tokens, "Never this token");
  ids("--begin-suppress-tokens", f.begin_suppress_tokens, "Not this token at the beginning");
  app.add_option("--bad-words-ids", f.bad_words_ids, "[[ID, ...], ...]: never these tokens after one another")
      ->group(group);
  app.add_option("--sequence-bias", f.sequence_bias, "[[[ID, ...], BIAS], ...]: added to the last one's logit")
      ->group(group);
  app.add_option("--forced-bos-token-id", f.forced_bos_token_id, "The second token of all")->group(group);
  ids("--forced-eos-token-id", f.forced_eos_token_ids, "The last token where the text would go on");
  app.add_option("--decoder-start-token-id", f.decoder_start_token_id,
                 "What the decoder of an encoder-decoder begins with")
      ->group(group);
}

void add_beam_flags(CLI::App& app, GenerationFlags& f) {
  const char* group = "Several texts at once";
  app.add_option("--num-beams", f.num_beams, "Beam search over so many texts")->group(group);
  app.add_option("--length-penalty", f.length_penalty,
                 "Beams compare by log-probability / length^this: above 0 longer ones win more often")
      ->group(group);
  app.add_option("--early-stopping", f.early_stopping,
                 "true: end with as many finished texts as beams; false: when better ones are unlikely; never: when "
                 "there can be none")
      ->check(CLI::IsMember({"true", "false", "never"}))
      ->group(group);
  app.add_flag_function(
         "--renormalize-logits,!--no-renormalize-logits", [&f](int64_t count) { f.renormalize_logits = count > 0; },
         "Beams: make log-probabilities of the scores again after the penalties")
      ->group(group);
  app.add_option("--num-return-sequences", f.num_return_sequences, "Continuations of each prompt")->group(group);
}

/// A flag that would have no influence is a mistake of its user.
void refuse_idle_flags(const GenerationFlags& f, const generate::GenerationConfig& config) {
  const std::pair<const char*, bool> of_sampling[] = {{"--temperature", f.temperature.has_value()},
                                                      {"--top-k", f.top_k.has_value()},
                                                      {"--top-p", f.top_p.has_value()},
                                                      {"--min-p", f.min_p.has_value()},
                                                      {"--typical-p", f.typical_p.has_value()},
                                                      {"--seed", f.seed.has_value()},
                                                      {"--epsilon-cutoff", f.epsilon_cutoff.has_value()},
                                                      {"--eta-cutoff", f.eta_cutoff.has_value()}};
  const std::pair<const char*, bool> of_beams[] = {{"--length-penalty", f.length_penalty.has_value()},
                                                   {"--early-stopping", f.early_stopping.has_value()},
                                                   {"--renormalize-logits", f.renormalize_logits.has_value()}};
  const auto refuse = [](const auto& flags, const char* without, const char* hint) {
    for (const auto& [flag, given] : flags)
      if (given)
        throw Error(Exit::usage, {.what = std::string(flag) + " has no effect without " + without, .hint = hint});
  };
  if (!config.do_sample) refuse(of_sampling, "sampling", "add --do-sample");
  if (config.num_beams == 1) refuse(of_beams, "beams", "add --num-beams");
  const auto refuse_both = [](bool given, const char* message) {
    if (given) throw Error(Exit::usage, {.what = message, .hint = "leave one out"});
  };
  refuse_both(f.min_length && f.min_new_tokens, "--min-length has no effect beside --min-new-tokens");
  refuse_both(f.max_length && f.max_new_tokens, "--max-length has no effect beside --max-new-tokens");
}

/// A value that is written as it stands in generation_config.json.
nlohmann::json parsed(const char* flag, const std::string& value) {
  auto json = nlohmann::json::parse(value, nullptr, /*allow_exceptions=*/false);
  if (json.is_discarded())
    throw Error(Exit::usage, {.what = std::string(flag) + " is not JSON",
                              .got = value,
                              .expected = "as in generation_config.json, for example [[5], [6, 7]]"});
  return json;
}

/// The settings whose flags hold JSON.
void apply_json(const GenerationFlags& f, generate::GenerationConfig& config) {
  nlohmann::json given = nlohmann::json::object();
  if (f.bad_words_ids) given["bad_words_ids"] = parsed("--bad-words-ids", *f.bad_words_ids);
  if (f.sequence_bias) given["sequence_bias"] = parsed("--sequence-bias", *f.sequence_bias);
  if (f.exponential_decay_length_penalty)
    given["exponential_decay_length_penalty"] =
        parsed("--exponential-decay-length-penalty", *f.exponential_decay_length_penalty);
  std::vector<std::string> ignored;
  try {
    const auto read = generate::config_from_hf(given, "the command line", ignored);
    if (f.bad_words_ids) config.bad_words_ids = read.bad_words_ids;
    if (f.sequence_bias) config.sequence_bias = read.sequence_bias;
    if (f.exponential_decay_length_penalty)
      config.exponential_decay_length_penalty = read.exponential_decay_length_penalty;
  } catch (const Error& error) {
    throw Error(Exit::usage, error.parts());
  }
}

}  // namespace

void add_generation_flags(CLI::App& app, GenerationFlags& flags) {
  add_length_flags(app, flags);
  add_sampling_flags(app, flags);
  add_penalty_flags(app, flags);
  add_beam_flags(app, flags);
}

void apply_flags(const GenerationFlags& f, generate::GenerationConfig& config) {
  const auto set = [](const auto& flag, auto& value) {
    if (flag) value = *flag;
  };
  const auto set_list = [](const auto& flag, auto& value) {
    if (!flag.empty()) value = flag;
  };
  // The model's own must not win over the user's.
  if (f.max_length && !f.max_new_tokens) config.max_new_tokens.reset();
  if (f.min_length && !f.min_new_tokens) config.min_new_tokens.reset();
  set(f.max_new_tokens, config.max_new_tokens);
  set(f.max_length, config.max_length);
  set(f.min_new_tokens, config.min_new_tokens);
  set(f.min_length, config.min_length);
  set_list(f.stop_strings, config.stop_strings);
  set_list(f.eos_token_ids, config.eos_token_ids);
  set(f.do_sample, config.do_sample);
  set(f.temperature, config.temperature);
  set(f.top_k, config.top_k);
  set(f.top_p, config.top_p);
  set(f.min_p, config.min_p);
  set(f.typical_p, config.typical_p);
  set(f.epsilon_cutoff, config.epsilon_cutoff);
  set(f.eta_cutoff, config.eta_cutoff);
  set(f.repetition_penalty, config.repetition_penalty);
  set(f.presence_penalty, config.presence_penalty);
  set(f.frequency_penalty, config.frequency_penalty);
  set(f.no_repeat_ngram_size, config.no_repeat_ngram_size);
  set_list(f.suppress_tokens, config.suppress_tokens);
  set_list(f.begin_suppress_tokens, config.begin_suppress_tokens);
  set(f.forced_bos_token_id, config.forced_bos_token_id);
  set_list(f.forced_eos_token_ids, config.forced_eos_token_ids);
  set(f.decoder_start_token_id, config.decoder_start_token_id);
  set(f.num_beams, config.num_beams);
  set(f.num_return_sequences, config.num_return_sequences);
  set(f.length_penalty, config.length_penalty);
  set(f.renormalize_logits, config.renormalize_logits);
  if (f.early_stopping)
    config.early_stopping = *f.early_stopping == "true"    ? generate::EarlyStopping::yes
                            : *f.early_stopping == "never" ? generate::EarlyStopping::never
                                                           : generate::EarlyStopping::no;
  apply_json(f, config);
  refuse_idle_flags(f, config);
  config.seed = f.seed.value_or(config.do_sample ? std::random_device{}() : 0);
  config.validate();
}

void check_flags(const GenerationFlags& flags, const nn::Model& model) {
  if (flags.decoder_start_token_id && !dynamic_cast<const nn::Seq2SeqModel*>(&model))
    throw Error(Exit::usage, {.what = "--decoder-start-token-id has no effect on " + std::string(model.kind()),
                              .expected = "an encoder-decoder",
                              .hint = "a decoder goes on with its prompt"});
}

}  // namespace llmtk
