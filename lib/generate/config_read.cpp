// Reading generation_config.json.

#include <limits>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/file.h"
#include "core/log.h"
#include "generate/config.h"
#include "text/gguf_read.h"

namespace llmtk::generate {
namespace {

using nlohmann::json;
using text::TokenId;

/// One object of settings. What is not there, or null, leaves a setting as it is, as in transformers.
class Reader {
 public:
  Reader(const json& object, const std::string& where) : object_(object), where_(where) {}

  void read(const char* key, bool& out) const {
    if (const json* value = find(key)) out = boolean(key, *value);
  }
  template <class T>
  requires std::is_same_v<T, int64_t> || std::is_same_v<T, TokenId>
  void read(const char* key, T& out) const {
    if (const json* value = find(key)) out = integer<T>(key, *value);
  }
  void read(const char* key, double& out) const {
    if (const json* value = find(key)) out = number(key, *value);
  }
  template <class T>
  void read(const char* key, std::optional<T>& out) const {
    if (!find(key)) return;
    out.emplace();
    read(key, *out);
  }
  /// One id or a list of ids.
  void read(const char* key, std::vector<TokenId>& out) const {
    if (const json* value = find(key)) out = ids(key, listed(*value), "a token id or a list of token ids");
  }
  void read(const char* key, std::vector<std::string>& out) const {
    const json* value = find(key);
    if (!value) return;
    out.clear();
    for (const auto& text : listed(*value)) {
      if (!text.is_string()) wrong(key, *value, "a string or a list of strings");
      out.push_back(text.get<std::string>());
    }
  }
  void read(const char* key, std::vector<std::vector<TokenId>>& out) const {
    constexpr const char* kExpected = "a list of lists of token ids, none empty";
    const json* value = find(key);
    if (!value) return;
    out.clear();
    for (const auto& word : array(key, *value, kExpected))
      out.push_back(ids(key, array(key, word, kExpected), kExpected));
    for (const auto& word : out)
      if (word.empty()) wrong(key, *value, kExpected);
  }
  void read(const char* key, std::vector<SequenceBias>& out) const {
    constexpr const char* kExpected = "a list of [[token ids], bias]";
    const json* value = find(key);
    if (!value) return;
    out.clear();
    for (const auto& pair : array(key, *value, kExpected)) {
      if (!pair.is_array() || pair.size() != 2 || !pair[0].is_array() || pair[0].empty() || !pair[1].is_number())
        wrong(key, *value, kExpected);
      SequenceBias biased{ids(key, pair[0], kExpected), pair[1].get<double>()};
      std::erase_if(out,
                    [&](const SequenceBias& earlier) { return earlier.ids == biased.ids; });  // the last one counts
      out.push_back(std::move(biased));
    }
  }
  void read(const char* key, LengthDecay& out) const {
    const json* value = find(key);
    if (!value) return;
    if (!value->is_array() || value->size() != 2 || !value->at(0).is_number_integer() || !value->at(1).is_number())
      wrong(key, *value, "[tokens after which it starts, factor]");
    out = {value->at(0).get<int64_t>(), value->at(1).get<double>()};
  }
  void read(const char* key, EarlyStopping& out) const {
    const json* value = find(key);
    if (!value) return;
    if (value->is_boolean())
      out = value->get<bool>() ? EarlyStopping::yes : EarlyStopping::no;
    else if (*value == "never")
      out = EarlyStopping::never;
    else
      wrong(key, *value, R"(true, false or "never")");
  }

  const json* find(const char* key) const {
    const auto it = object_.find(key);
    return it == object_.end() || it->is_null() ? nullptr : &*it;
  }

 private:
  [[noreturn]] void wrong(const char* key, const json& value, const char* expected) const {
    throw Error(Exit::file, {.what = std::string("wrong type for '") + key + "'",
                             .where = where_,
                             .got = value.dump(),
                             .expected = expected});
  }
  bool boolean(const char* key, const json& value) const {
    if (!value.is_boolean()) wrong(key, value, "true or false");
    return value.get<bool>();
  }
  template <class T>
  T integer(const char* key, const json& value) const {
    const auto fits = [](int64_t n) {
      return n >= std::numeric_limits<T>::min() && n <= std::numeric_limits<T>::max();
    };
    if (!value.is_number_integer() || !fits(value.get<int64_t>())) wrong(key, value, "an integer");
    return static_cast<T>(value.get<int64_t>());
  }
  double number(const char* key, const json& value) const {
    if (!value.is_number()) wrong(key, value, "a number");
    return value.get<double>();
  }
  static json listed(const json& value) { return value.is_array() ? value : json::array({value}); }
  const json& array(const char* key, const json& value, const char* expected) const {
    if (!value.is_array()) wrong(key, value, expected);
    return value;
  }
  std::vector<TokenId> ids(const char* key, const json& list, const char* expected) const {
    std::vector<TokenId> out;
    for (const auto& id : list) {
      if (!id.is_number_integer()) wrong(key, list, expected);
      out.push_back(integer<TokenId>(key, id));
    }
    return out;
  }

  const json& object_;
  const std::string& where_;
};

/// Settings of transformers that would change the text and that llmtk does not have, with the value that means "off".
const std::vector<std::pair<const char*, json>>& foreign_settings() {
  static const std::vector<std::pair<const char*, json>> settings = {{"encoder_repetition_penalty", 1.0},
                                                                     {"encoder_no_repeat_ngram_size", 0},
                                                                     {"remove_invalid_values", false},
                                                                     {"max_time", nullptr},
                                                                     {"top_h", nullptr},
                                                                     {"penalty_alpha", nullptr},
                                                                     {"dola_layers", nullptr},
                                                                     {"num_beam_groups", 1},
                                                                     {"diversity_penalty", 0.0},
                                                                     {"constraints", nullptr},
                                                                     {"force_words_ids", nullptr},
                                                                     {"guidance_scale", 1.0},
                                                                     {"token_healing", false},
                                                                     {"watermarking_config", nullptr}};
  return settings;
}

json parse_file(const std::filesystem::path& path) {
  const auto object = json::parse(read_file(path), nullptr, /*allow_exceptions=*/false);
  if (!object.is_object())
    throw Error(Exit::file, {.what = "not a JSON object", .where = path.string(), .hint = "the file may be cut short"});
  return object;
}

}  // namespace

GenerationConfig config_from_hf(const json& object, const std::string& where, std::vector<std::string>& ignored) {
  GenerationConfig config;
  const Reader reader(object, where);
  reader.read("max_new_tokens", config.max_new_tokens);
  reader.read("max_length", config.max_length);
  reader.read("min_new_tokens", config.min_new_tokens);
  reader.read("min_length", config.min_length);
  reader.read("exponential_decay_length_penalty", config.exponential_decay_length_penalty);
  reader.read("do_sample", config.do_sample);
  reader.read("repetition_penalty", config.repetition_penalty);
  reader.read("presence_penalty", config.presence_penalty);
  reader.read("frequency_penalty", config.frequency_penalty);
  reader.read("no_repeat_ngram_size", config.no_repeat_ngram_size);
  reader.read("sequence_bias", config.sequence_bias);
  reader.read("bad_words_ids", config.bad_words_ids);
  reader.read("suppress_tokens", config.suppress_tokens);
  reader.read("begin_suppress_tokens", config.begin_suppress_tokens);
  reader.read("forced_bos_token_id", config.forced_bos_token_id);
  reader.read("forced_eos_token_id", config.forced_eos_token_ids);
  reader.read("temperature", config.temperature);
  reader.read("top_k", config.top_k);
  reader.read("top_p", config.top_p);
  reader.read("min_p", config.min_p);
  reader.read("typical_p", config.typical_p);
  reader.read("epsilon_cutoff", config.epsilon_cutoff);
  reader.read("eta_cutoff", config.eta_cutoff);
  reader.read("num_beams", config.num_beams);
  reader.read("length_penalty", config.length_penalty);
  reader.read("early_stopping", config.early_stopping);
  reader.read("renormalize_logits", config.renormalize_logits);
  reader.read("bos_token_id", config.bos_token_id);
  reader.read("decoder_start_token_id", config.decoder_start_token_id);
  reader.read("num_return_sequences", config.num_return_sequences);
  reader.read("eos_token_id", config.eos_token_ids);
  reader.read("stop_strings", config.stop_strings);
  for (const auto& [key, off] : foreign_settings())
    if (const json* value = reader.find(key); value && *value != off)
      ignored.push_back(std::string(key) + "=" + value->dump());
  return config;
}

GenerationConfig load_config(const std::filesystem::path& folder, const text::Tokenizer* tokenizer) {
  GenerationConfig config;
  config.eos_token_ids = text::gguf_end_tokens(folder);
  std::vector<std::string> ignored;
  const auto model_config = folder / "config.json";
  // Old folders have it all in config.json.
  const auto own = folder / "generation_config.json";
  const auto path = std::filesystem::exists(own) ? own : model_config;
  if (std::filesystem::exists(path)) config = config_from_hf(parse_file(path), path.string(), ignored);
  for (const auto& setting : ignored) log::warn(path.string() + ": " + setting + " is not supported and has no effect");

  if ((config.eos_token_ids.empty() || config.bos_token_id < 0) && std::filesystem::exists(model_config)) {
    const json object = parse_file(model_config);
    const std::string where = model_config.string();
    const Reader reader(object, where);
    if (config.eos_token_ids.empty()) reader.read("eos_token_id", config.eos_token_ids);
    if (config.bos_token_id < 0) reader.read("bos_token_id", config.bos_token_id);
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
