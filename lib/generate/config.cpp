#include "generate/config.h"

#include <cmath>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/file.h"
#include "core/log.h"

namespace llmtk::generate {
namespace {

using nlohmann::json;

[[noreturn]] void wrong_type(const std::string& where, const char* key, const json& value, const char* expected) {
  throw Error(
      Exit::file,
      {.what = std::string("wrong type for '") + key + "'", .where = where, .got = value.dump(), .expected = expected});
}

/// Reads `key` into `out` when it is there and not null, as transformers does.
template <class T>
void read(const json& object, const std::string& where, const char* key, T& out) {
  const auto it = object.find(key);
  if (it == object.end() || it->is_null()) return;
  if constexpr (std::is_same_v<T, bool>) {
    if (!it->is_boolean()) wrong_type(where, key, *it, "true or false");
    out = it->get<bool>();
  } else if constexpr (std::is_same_v<T, int64_t> || std::is_same_v<T, std::optional<int64_t>> ||
                       std::is_same_v<T, text::TokenId>) {
    if (!it->is_number_integer()) wrong_type(where, key, *it, "an integer");
    out = it->get<int64_t>();
  } else {
    if (!it->is_number()) wrong_type(where, key, *it, "a number");
    out = it->get<double>();
  }
}

/// One id or a list of ids.
void read_ids(const json& object, const std::string& where, const char* key, std::vector<text::TokenId>& out) {
  const auto it = object.find(key);
  if (it == object.end() || it->is_null()) return;
  const json list = it->is_array() ? *it : json::array({*it});
  out.clear();
  for (const auto& id : list) {
    if (!id.is_number_integer()) wrong_type(where, key, *it, "a token id or a list of token ids");
    out.push_back(id.get<text::TokenId>());
  }
}

void read_strings(const json& object, const std::string& where, const char* key, std::vector<std::string>& out) {
  const auto it = object.find(key);
  if (it == object.end() || it->is_null()) return;
  const json list = it->is_array() ? *it : json::array({*it});
  out.clear();
  for (const auto& text : list) {
    if (!text.is_string()) wrong_type(where, key, *it, "a string or a list of strings");
    out.push_back(text.get<std::string>());
  }
}

/// Settings of transformers that would change the text and that llmtk does not have, with the value that means "off".
const std::vector<std::pair<const char*, json>>& foreign_settings() {
  static const std::vector<std::pair<const char*, json>> settings = {{"num_beams", 1},
                                                                     {"no_repeat_ngram_size", 0},
                                                                     {"encoder_repetition_penalty", 1.0},
                                                                     {"min_length", 0},
                                                                     {"max_time", nullptr},
                                                                     {"top_h", nullptr},
                                                                     {"epsilon_cutoff", 0.0},
                                                                     {"eta_cutoff", 0.0},
                                                                     {"penalty_alpha", nullptr},
                                                                     {"bad_words_ids", nullptr},
                                                                     {"sequence_bias", nullptr},
                                                                     {"forced_bos_token_id", nullptr},
                                                                     {"forced_eos_token_id", nullptr},
                                                                     {"suppress_tokens", nullptr},
                                                                     {"begin_suppress_tokens", nullptr},
                                                                     {"exponential_decay_length_penalty", nullptr},
                                                                     {"guidance_scale", 1.0},
                                                                     {"token_healing", false},
                                                                     {"watermarking_config", nullptr}};
  return settings;
}

[[noreturn]] void out_of_range(const char* flag, const std::string& got, const char* expected, std::string hint = {}) {
  throw Error(
      Exit::usage,
      {.what = std::string(flag) + " is out of range", .got = got, .expected = expected, .hint = std::move(hint)});
}

std::string text_of(double value) { return json(value).dump(); }

json parse_file(const std::filesystem::path& path) {
  const auto object = json::parse(read_file(path), nullptr, /*allow_exceptions=*/false);
  if (!object.is_object())
    throw Error(Exit::file, {.what = "not a JSON object", .where = path.string(), .hint = "the file may be cut short"});
  return object;
}

}  // namespace

int64_t GenerationConfig::new_tokens_limit(int64_t prompt_tokens) const {
  if (max_new_tokens) return *max_new_tokens;
  if (max_length) return *max_length - prompt_tokens;
  return kDefaultNewTokens;
}

void GenerationConfig::validate() const {
  if (max_new_tokens && *max_new_tokens < 1)
    out_of_range("--max-new-tokens", std::to_string(*max_new_tokens), "at least 1");
  if (max_length && *max_length < 1) out_of_range("--max-length", std::to_string(*max_length), "at least 1");
  if (min_new_tokens < 0) out_of_range("--min-new-tokens", std::to_string(min_new_tokens), "at least 0");
  if (max_new_tokens && min_new_tokens > *max_new_tokens)
    out_of_range("--min-new-tokens", std::to_string(min_new_tokens), "at most --max-new-tokens");
  if (!(repetition_penalty > 0) || !std::isfinite(repetition_penalty))
    out_of_range("--repetition-penalty", text_of(repetition_penalty), "more than 0; 1 is none");
  // Configs of models that take the most probable token say temperature 0.
  if (!std::isfinite(temperature) || temperature < 0 || (do_sample && temperature == 0))
    out_of_range("--temperature", text_of(temperature), "more than 0",
                 "for the most probable token at every step use --no-do-sample");
  if (top_k < 0) out_of_range("--top-k", std::to_string(top_k), "at least 1, or 0 for all tokens");
  if (!(top_p >= 0 && top_p <= 1)) out_of_range("--top-p", text_of(top_p), "from 0 to 1");
  if (min_p && !(*min_p >= 0 && *min_p <= 1)) out_of_range("--min-p", text_of(*min_p), "from 0 to 1");
  if (!(typical_p > 0 && typical_p <= 1)) out_of_range("--typical-p", text_of(typical_p), "more than 0, at most 1");
  if (num_return_sequences < 1)
    out_of_range("--num-return-sequences", std::to_string(num_return_sequences), "at least 1");
  if (num_return_sequences > 1 && !do_sample)
    throw Error(Exit::usage, {.what = "--num-return-sequences above 1 without sampling gives the same text each time",
                              .got = std::to_string(num_return_sequences),
                              .hint = "add --do-sample"});
  for (const auto& stop : stop_strings)
    if (stop.empty()) throw Error(Exit::usage, {.what = "--stop is empty", .expected = "at least one character"});
}

GenerationConfig config_from_hf(const json& object, const std::string& where, std::vector<std::string>& ignored) {
  GenerationConfig config;
  read(object, where, "max_new_tokens", config.max_new_tokens);
  read(object, where, "max_length", config.max_length);
  read(object, where, "min_new_tokens", config.min_new_tokens);
  read(object, where, "do_sample", config.do_sample);
  read(object, where, "repetition_penalty", config.repetition_penalty);
  read(object, where, "temperature", config.temperature);
  read(object, where, "top_k", config.top_k);
  read(object, where, "top_p", config.top_p);
  read(object, where, "min_p", config.min_p);
  read(object, where, "typical_p", config.typical_p);
  read(object, where, "bos_token_id", config.bos_token_id);
  read(object, where, "num_return_sequences", config.num_return_sequences);
  read_ids(object, where, "eos_token_id", config.eos_token_ids);
  read_strings(object, where, "stop_strings", config.stop_strings);
  for (const auto& [key, off] : foreign_settings()) {
    const auto it = object.find(key);
    if (it != object.end() && !it->is_null() && *it != off) ignored.push_back(std::string(key) + "=" + it->dump());
  }
  return config;
}

GenerationConfig load_config(const std::filesystem::path& folder, const text::Tokenizer* tokenizer) {
  GenerationConfig config;
  std::vector<std::string> ignored;
  const auto path = folder / "generation_config.json";
  if (std::filesystem::exists(path)) config = config_from_hf(parse_file(path), path.string(), ignored);
  for (const auto& setting : ignored) log::warn(path.string() + ": " + setting + " is not supported and has no effect");

  const auto model_config = folder / "config.json";
  if ((config.eos_token_ids.empty() || config.bos_token_id < 0) && std::filesystem::exists(model_config)) {
    const json object = parse_file(model_config);
    if (config.eos_token_ids.empty()) read_ids(object, model_config.string(), "eos_token_id", config.eos_token_ids);
    if (config.bos_token_id < 0) read(object, model_config.string(), "bos_token_id", config.bos_token_id);
  }
  if (tokenizer) adopt_special_tokens(config, *tokenizer);
  return config;
}

void adopt_special_tokens(GenerationConfig& config, const text::Tokenizer& tokenizer) {
  const auto special = tokenizer.special_tokens();
  if (config.eos_token_ids.empty() && special.eos >= 0) config.eos_token_ids = {special.eos};
  if (config.bos_token_id < 0) config.bos_token_id = special.bos;
}

}  // namespace llmtk::generate
