#include "text/older_config.h"

#include <algorithm>

#include "core/error.h"
#include "core/file.h"
#include "text/hf_read.h"
#include "text/hf_write.h"

namespace llmtk::text {

OlderConfig::OlderConfig(const fs::path& vocabulary)
    : files(read_files_beside(vocabulary)), folder(vocabulary.parent_path()), config(Json::object()) {
  for (const char* name : {"special_tokens_map.json", "tokenizer_config.json"}) {
    const Json read = json_of(name);
    for (const auto& [key, value] : read.items()) config[key] = value;
  }
}

Json OlderConfig::json_of(const std::string& name) const {
  if (!fs::exists(folder / name)) return Json::object();
  Json read = parse_json(read_file(folder / name), (folder / name).string());
  if (!read.is_object())
    throw Error(Exit::file,
                {.what = "wrong type", .where = (folder / name).string(), .got = shown(read), .expected = "an object"});
  return read;
}

JsonObject OlderConfig::object() const { return {config, (folder / "tokenizer_config.json").string(), ""}; }

bool OlderConfig::is_of(std::string_view tokenizer_class, std::string_view model_type) const {
  JsonObject named = object();
  if (named.find("tokenizer_class")) return named.string("tokenizer_class").starts_with(tokenizer_class);
  return json_of("config.json").value("model_type", Json()) == model_type;
}

namespace {

AddedToken read_older_token(const Json& value, const OlderConfig& config, const std::string& path, bool special) {
  if (value.is_string()) return {.content = value.get<std::string>(), .special = special};
  JsonObject object(value, config.object().where(), path);
  AddedToken token{.content = object.string("content")};
  token.single_word = object.flag("single_word", false);
  token.lstrip = object.flag("lstrip", false);
  token.rstrip = object.flag("rstrip", false);
  token.special = object.flag("special", special);
  token.normalized = object.flag("normalized", !token.special);
  object.skip("__type");
  object.finish();
  return token;
}

}  // namespace

AddedTokenReader::AddedTokenReader(OlderConfig& config, size_t size, std::function<TokenId(std::string_view)> find)
    : config_(config), find_(std::move(find)), next_(static_cast<TokenId>(size)) {
  JsonObject object = config.object();
  if (const Json* listed = object.find("added_tokens_decoder")) {
    JsonObject(*listed, object.where(), "added_tokens_decoder");  // is an object
    for (const auto& [id, value] : listed->items()) {
      const std::string path = "added_tokens_decoder." + id;
      const bool is_number = !id.empty() && id.size() < 9 && id.find_first_not_of("0123456789") == id.npos;
      if (!is_number) object.fail(path + ": not a token's id");
      AddedToken token = read_older_token(value, config, path, false);
      token.id = read_id(std::stoi(id), object.where(), path);
      add(std::move(token));
    }
  }
  const Json added = config.json_of("added_tokens.json");
  for (const auto& [content, value] : added.items()) {
    const TokenId id = read_id(value, (config.folder / "added_tokens.json").string(), json_string(content));
    if (!known(content)) add({.id = id, .content = content, .normalized = true});
  }
}

std::optional<AddedToken> AddedTokenReader::role(const char* key, const char* otherwise) {
  JsonObject object = config_.object();
  const Json* value = object.find(key);
  if (!value && (!otherwise || config_.config.contains(key))) return std::nullopt;
  AddedToken token =
      value ? read_older_token(*value, config_, key, true) : AddedToken{.content = otherwise, .special = true};
  if (!value) config_.config[key] = otherwise;
  if (const AddedToken* listed = known(token.content)) return *listed;
  return add(std::move(token));
}

AddedToken AddedTokenReader::needed_role(const char* key, const char* otherwise) {
  auto token = role(key, otherwise);
  if (!token) config_.object().fail(std::string("the key '") + key + "' is null", {}, "a token");
  return *token;
}

void AddedTokenReader::add_special(const std::string& content) {
  if (!known(content)) add({.content = content, .special = true});
}

const AddedToken* AddedTokenReader::known(const std::string& content) const {
  const auto found = places_.find(content);
  return found == places_.end() ? nullptr : &tokens_[found->second];
}

const AddedToken& AddedTokenReader::add(AddedToken token) {
  if (token.id < 0) token.id = find_(token.content);
  if (token.id < 0) token.id = next_;
  next_ = std::max(next_, token.id + 1);
  places_.emplace(token.content, tokens_.size());
  return tokens_.emplace_back(std::move(token));
}

}  // namespace llmtk::text
