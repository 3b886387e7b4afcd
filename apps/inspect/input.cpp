#include "inspect/input.h"

#include <charconv>
#include <iostream>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/utf8.h"
#include "generate/config.h"
#include "generate/decoder.h"
#include "generate_prompts.h"
#include "inspect/inspect.h"
#include "inspect/labels.h"
#include "nn/encoder_model.h"
#include "nn/seq2seq_model.h"

namespace llmtk {
namespace {

using text::TokenId;

std::vector<TokenId> parse_ids(const char* flag, const std::string& list) {
  std::vector<TokenId> ids;
  const char *at = list.data(), *end = list.data() + list.size();
  while (at < end) {
    TokenId id = 0;
    const auto [rest, error] = std::from_chars(at, end, id);
    if (error != std::errc() || (rest != end && *rest != ','))
      throw Error(
          Exit::usage,
          {.what = std::string(flag) + " is no list of token ids", .got = "'" + list + "'", .expected = "5,6,7"});
    ids.push_back(id);
    at = rest == end ? rest : rest + 1;
  }
  return ids;
}

void check(const std::vector<TokenId>& ids, const OpenModel& open, const std::string& where) {
  for (const auto id : ids)
    if (id < 0 || id >= open.model->vocab_size())
      throw Error(Exit::data, {.what = "an id that the model does not know",
                               .where = where,
                               .got = std::to_string(id),
                               .expected = "less than vocab_size " + std::to_string(open.model->vocab_size()),
                               .hint = "the tokenizer may not belong to this model"});
  if (static_cast<int64_t>(ids.size()) > open.model->max_positions())
    throw Error(Exit::data, {.what = "the text is longer than the model can see",
                             .where = where,
                             .got = std::to_string(ids.size()) + " tokens",
                             .expected = "at most " + std::to_string(open.model->max_positions())});
}

std::vector<Input> read_texts(const OpenModel& open, const InputOptions& options,
                              const generate::GenerationConfig& config) {
  std::vector<Input> inputs;
  for (size_t i = 0; i < options.ids.size(); ++i)
    inputs.push_back({std::nullopt, "--ids " + std::to_string(i + 1), parse_ids("--ids", options.ids[i]), {}});
  if (inputs.empty()) {
    const auto prompts = read_prompts(options.prompts, options.prompts_file);
    refuse_adapters(prompts, "with inspect");
    for (const Prompt& prompt : prompts)
      inputs.push_back(
          {prompt.text,
           prompt.where,
           encode_text(*open.tokenizer, prompt.text, options.add_special_tokens.value_or(true), prompt.where),
           {}});
  }
  for (Input& input : inputs) {
    if (input.ids.empty() && config.bos_token_id >= 0) input.ids = {config.bos_token_id};
    if (input.ids.empty())
      throw Error(Exit::data,
                  {.what = "the text is empty, and the model has no token to begin with", .where = input.where});
    check(input.ids, open, input.where);
  }
  return inputs;
}

/// The texts with a second one beside each, as the tokenizer puts two together.
void add_pairs(std::vector<Input>& inputs, const OpenModel& open, const InputOptions& options) {
  if (!dynamic_cast<const nn::EncoderModel*>(open.model.get()) && open.model->num_labels() == 0)
    throw Error(Exit::usage, {.what = "only encoders and classifiers read pairs of texts", .got = open.model->kind()});
  if (options.pairs.size() != inputs.size())
    throw Error(Exit::usage, {.what = "not as many second texts as texts",
                              .got = std::to_string(options.pairs.size()),
                              .expected = std::to_string(inputs.size()) + ", or none"});
  const auto types = open.model->config().value("type_vocab_size", TokenId{1});
  for (size_t i = 0; i < inputs.size(); ++i) {
    Input& input = inputs[i];
    const auto encode = [&](const std::string& text) {
      return encode_text(*open.tokenizer, text, /*add_special_tokens=*/false, input.where);
    };
    const auto first = encode(*input.text), second = encode(options.pairs[i]);
    const auto encoding = open.tokenizer->post_process(first, &second, options.add_special_tokens.value_or(true));
    input.ids = encoding.ids;
    // RoBERTa knows one type alone, whatever its tokenizer says; transformers does not give it those.
    input.type_ids = encoding.type_ids;
    if (types == 1) input.type_ids.assign(encoding.ids.size(), 0);
    if (!dynamic_cast<const nn::EncoderModel*>(open.model.get())) input.type_ids.clear();
    check(input.ids, open, input.where);
  }
}

/// What the decoder reads while it is trained to write a target: everything one token later.
void add_decoder_ids(std::vector<Input>& inputs, const OpenModel& open, const InputOptions& options,
                     const nn::Seq2SeqModel& model, const generate::GenerationConfig& config) {
  const size_t given = options.targets.size() + options.target_ids.size();
  if (given != 0 && given != inputs.size())
    throw Error(Exit::usage, {.what = "not as many targets as texts",
                              .got = std::to_string(given),
                              .expected = std::to_string(inputs.size()) + ", or none"});
  for (size_t i = 0; i < inputs.size(); ++i) {
    Input& input = inputs[i];
    input.decoder_ids = {generate::start_token(model, config)};
    if (given == 0) continue;
    const std::string where = "target " + std::to_string(i + 1);
    const auto target = options.targets.empty() ? parse_ids("--target-ids", options.target_ids[i])
                                                : encode_text(*open.tokenizer, options.targets[i],
                                                              options.add_special_tokens.value_or(true), where);
    check(target, open, where);
    if (!target.empty()) input.decoder_ids.insert(input.decoder_ids.end(), target.begin(), target.end() - 1);
  }
}

}  // namespace

void add_input_options(CLI::App& command, InputOptions& options) {
  add_model_options(command, options.model);
  auto* prompt =
      command.add_option("-p,--prompt", options.prompts, "A text; may be given several times")->allow_extra_args(false);
  auto* file =
      command.add_option("--prompts-file", options.prompts_file, "One text a line, or JSON lines; -: standard input")
          ->excludes(prompt);
  auto* pair = command
                   .add_option("--text-pair", options.pairs,
                               "Encoders: a second text beside each text, as the tokenizer puts two together")
                   ->allow_extra_args(false);
  command.add_option("--ids", options.ids, "Token ids instead of a text: 5,6,7; may be given several times")
      ->allow_extra_args(false)
      ->excludes(prompt)
      ->excludes(file)
      ->excludes(pair);
  auto* target =
      command
          .add_option("--target", options.targets,
                      "Encoder-decoders: what the decoder is to write, one for each text; default: nothing yet")
          ->allow_extra_args(false);
  command.add_option("--target-ids", options.target_ids, "The same as token ids")
      ->allow_extra_args(false)
      ->excludes(target);
  // Not bound to the member: CLI11 would set it where the flag is not given.
  command.add_flag_function(
      "--add-special-tokens,!--no-add-special-tokens",
      [&options](int64_t count) { options.add_special_tokens = count > 0; },
      "Whether the tokenizer puts its own special tokens (bos) around the text; default: yes");
  command.add_option("--batch-size", options.batch_size, "Texts that run together")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 20))
      ->capture_default_str();
  command
      .add_option("--padding-side", options.padding_side,
                  "Where shorter texts are padded: left (default of decoders) or right (of all others)")
      ->check(CLI::IsMember({"left", "right"}));
}

OpenInputs open_inputs(const InputOptions& options) {
  if (options.prompts.empty() && options.prompts_file.empty() && options.ids.empty())
    throw Error(Exit::usage, {.what = "there is no text", .expected = "--prompt, --prompts-file or --ids"});
  if (!options.ids.empty() && options.targets.empty() && options.add_special_tokens)
    throw Error(Exit::usage, {.what = "--add-special-tokens has no effect on --ids",
                              .hint = "give the ids of special tokens among the others"});
  OpenInputs opened{open_model(options.model), {}};
  const OpenModel& open = opened.open;
  const auto config = generate::load_config(open.folder, open.tokenizer.get());
  opened.inputs = read_texts(open, options, config);
  if (!options.pairs.empty()) add_pairs(opened.inputs, open, options);
  if (const auto* seq2seq = dynamic_cast<const nn::Seq2SeqModel*>(open.model.get()))
    add_decoder_ids(opened.inputs, open, options, *seq2seq, config);
  else if (!options.targets.empty() || !options.target_ids.empty())
    throw Error(Exit::usage, {.what = "only an encoder-decoder has targets", .got = open.model->kind()});
  return opened;
}

Json describe(const OpenModel& open, const Input& input) {
  Json json = Json::object();
  if (input.text) json["prompt"] = *input.text;
  const auto add = [&](const std::string& prefix, const std::vector<TokenId>& ids) {
    json[prefix + "ids"] = ids;
    Json& tokens = json[prefix + "tokens"] = Json::array();
    for (const auto id : ids) tokens.push_back(open.tokenizer->id_to_token(id));
    json[prefix + "labels"] = token_labels(*open.tokenizer, ids);
  };
  add("", input.ids);
  if (!input.type_ids.empty()) json["token_type_ids"] = input.type_ids;
  if (!input.decoder_ids.empty()) add("decoder_", input.decoder_ids);
  return json;
}

void print_title(const Input& input, size_t number, size_t count) {
  if (count == 1) return;
  const std::string title = input.text ? std::string(cut_to_width(one_line(*input.text), 60)) : input.where;
  std::cout << (number ? "\n=== " : "=== ") << title << "\n";
}

}  // namespace llmtk
