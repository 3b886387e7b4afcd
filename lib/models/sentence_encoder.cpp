#include "models/sentence_encoder.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/gather.h>

#include <algorithm>
#include <limits>
#include <utility>

#include "core/error.h"
#include "core/log.h"
#include "io/json.h"

namespace llmtk::models {

namespace fs = std::filesystem;

namespace {

struct PoolingName {
  Pooling pooling;
  const char *name, *flag;  // in words, and as a key of older pooling configs
};
constexpr PoolingName kPoolings[] = {
    {Pooling::cls, "cls", "pooling_mode_cls_token"},
    {Pooling::max, "max", "pooling_mode_max_tokens"},
    {Pooling::mean, "mean", "pooling_mode_mean_tokens"},
    {Pooling::mean_sqrt_len, "mean_sqrt_len_tokens", "pooling_mode_mean_sqrt_len_tokens"},
    {Pooling::weighted_mean, "weightedmean", "pooling_mode_weightedmean_tokens"},
    {Pooling::last_token, "lasttoken", "pooling_mode_lasttoken"},
};

/// Flags, or the names themselves under "pooling_mode".
std::vector<Pooling> read_modes(io::ObjectReader& config, const io::Json& json) {
  std::vector<Pooling> poolings;
  for (const PoolingName& known : kPoolings)
    if (config.boolean_or(known.flag, false)) poolings.push_back(known.pooling);
  const auto named = json.find("pooling_mode");
  config.ignore({"pooling_mode"});
  if (named != json.end() && !named->is_null()) {
    poolings.clear();
    for (const io::Json& name : named->is_array() ? *named : io::Json::array({*named})) {
      const auto pooling = name.is_string() ? parse_pooling(name.get<std::string>()) : std::nullopt;
      if (!pooling) config.fail("pooling_mode", kPoolingNames);
      poolings.push_back(*pooling);
    }
    std::ranges::sort(poolings);
  }
  if (poolings.empty()) config.fail("pooling_mode", kPoolingNames);
  return poolings;
}

void warn_of_unread(const io::ObjectReader& config) {
  for (const std::string& key : config.unread())
    log::warn(config.where() + ": key '" + key + "' is not known to this program; it has no effect");
}

void read_pooling(const fs::path& folder, SentenceEncoder& encoder) {
  const fs::path file = folder / "config.json";
  const io::Json json = io::read_json(file);
  io::ObjectReader config(json, file.string());
  encoder.pooling = read_modes(config, json);
  encoder.include_prompt = config.boolean_or("include_prompt", true);
  config.ignore({"word_embedding_dimension", "embedding_dimension"});
  warn_of_unread(config);
}

void read_transformer(const fs::path& folder, SentenceEncoder& encoder) {
  encoder.transformer = folder;
  const fs::path file = folder / "sentence_bert_config.json";
  if (!fs::exists(file)) return;
  const io::Json json = io::read_json(file);
  io::ObjectReader config(json, file.string());
  if (config.has("max_seq_length")) encoder.max_seq_length = config.integer("max_seq_length");
  config.ignore({"max_seq_length"});  // it may be there as null
  config.only("do_lower_case", false, "a tokenizer that makes letters small says so in its own files");
  warn_of_unread(config);
}

void read_prompts(const fs::path& folder, SentenceEncoder& encoder) {
  const fs::path file = folder / "config_sentence_transformers.json";
  if (!fs::exists(file)) return;
  const io::Json json = io::read_json(file);
  io::ObjectReader config(json, file.string());
  encoder.default_prompt_name = config.string_or("default_prompt_name", "");
  const auto prompts = json.find("prompts");
  if (prompts == json.end() || !prompts->is_object()) return;
  for (const auto& [name, prompt] : prompts->items()) {
    if (!prompt.is_string()) config.fail("prompts", "an object: names to texts");
    encoder.prompts[name] = prompt.get<std::string>();
  }
  if (!encoder.default_prompt_name.empty() && !encoder.prompts.contains(encoder.default_prompt_name))
    config.fail("default_prompt_name", "a name among the prompts");
}

/// A module's own folder: below the model's, wherever a hostile file would like it to be.
fs::path folder_of(const fs::path& folder, io::ObjectReader& module) {
  const fs::path path = module.string_or("path", "");
  if (path.is_absolute() || std::ranges::find(path, fs::path("..")) != path.end())
    module.fail("path", "a folder below the model's");
  return path.empty() ? folder : folder / path;
}

}  // namespace

std::optional<Pooling> parse_pooling(std::string_view name) {
  for (const PoolingName& known : kPoolings)
    if (name == known.name) return known.pooling;
  return std::nullopt;
}

SentenceEncoder read_sentence_encoder(const fs::path& folder) {
  SentenceEncoder encoder{.transformer = folder};
  const fs::path file = folder / "modules.json";
  if (!fs::exists(file)) return encoder;
  const io::Json modules = io::read_json(file);
  if (!modules.is_array() || modules.empty())
    throw Error(Exit::file, {.what = "not a list of modules", .where = file.string()});
  for (const io::Json& json : modules) {
    io::ObjectReader module(json, file.string());
    const std::string type = module.string("type");
    const std::string name = type.substr(type.rfind('.') + 1);
    if (name == "Transformer")
      read_transformer(folder_of(folder, module), encoder);
    else if (name == "Pooling")
      read_pooling(folder_of(folder, module), encoder);
    else if (name == "Normalize")
      encoder.normalize = true;
    else
      module.fail("type", "a module Transformer, Pooling or Normalize");
  }
  if (encoder.pooling.empty())
    throw Error(Exit::file, {.what = "no module makes one vector of the tokens'",
                             .where = file.string(),
                             .expected = "a module of type Pooling"});
  read_prompts(folder, encoder);
  return encoder;
}

at::Tensor pool(const at::Tensor& hidden, const at::Tensor& attention_mask, const std::vector<Pooling>& poolings) {
  const at::Tensor x = hidden.to(c10::kFloat);
  const at::Tensor real = attention_mask.unsqueeze(2);                           // [B, T, 1] bool
  const at::Tensor number = attention_mask.sum(1, /*keepdim=*/true);             // [B, 1]
  const at::Tensor counted = attention_mask.cumsum(1);                           // [B, T]: 1, 2, ... at real tokens
  const auto sum = [&] { return x.masked_fill(real.logical_not(), 0).sum(1); };  // [B, H]
  const auto at_count = [&](const at::Tensor& count) {  // the token that is the count-th of its row
    const at::Tensor here = counted.eq(count).logical_and(attention_mask).unsqueeze(2);
    return x.masked_fill(here.logical_not(), 0).sum(1);
  };
  std::vector<at::Tensor> parts;
  for (const Pooling pooling : poolings) switch (pooling) {
      case Pooling::cls:
        parts.push_back(at_count(number.clamp_max(1)));
        break;
      case Pooling::max:
        parts.push_back(x.masked_fill(real.logical_not(), -std::numeric_limits<float>::infinity()).amax(1));
        break;
      case Pooling::mean:
        parts.push_back(sum() / number);
        break;
      case Pooling::mean_sqrt_len:
        parts.push_back(sum() / number.to(c10::kFloat).sqrt());
        break;
      case Pooling::weighted_mean: {
        const at::Tensor weights = (counted * attention_mask).to(c10::kFloat).unsqueeze(2);  // [B, T, 1]
        parts.push_back((x.masked_fill(real.logical_not(), 0) * weights).sum(1) / weights.sum(1));
        break;
      }
      case Pooling::last_token:
        parts.push_back(at_count(number));
        break;
    }
  return parts.size() == 1 ? parts[0] : at::cat(parts, 1);
}

at::Tensor normalized(const at::Tensor& x) { return x / x.norm(2, 1, /*keepdim=*/true).clamp_min(1e-12); }

}  // namespace llmtk::models
