// Reading tokenizer.json into an HfTokenizer: the sections are read by the other hf_read_*.cpp.

#include "text/hf_read.h"

#include <algorithm>

#include "core/error.h"
#include "core/file.h"
#include "core/log.h"
#include "io/model_folder.h"
#include "text/hf_write.h"

namespace llmtk::text {

std::vector<AddedToken> read_added_tokens(const Json& list, const std::string& where) {
  if (!list.is_array())
    throw Error(Exit::file,
                {.what = "added_tokens: wrong type", .where = where, .got = shown(list), .expected = "a list"});
  std::vector<AddedToken> tokens;
  for (size_t i = 0; i < list.size(); ++i) {
    const std::string path = "added_tokens[" + std::to_string(i) + "]";
    JsonObject object(list[i], where, path);
    AddedToken token;
    token.id = read_id(object.need("id"), where, path + ".id");
    token.content = object.string("content");
    token.single_word = object.flag("single_word", false);
    token.lstrip = object.flag("lstrip", false);
    token.rstrip = object.flag("rstrip", false);
    token.special = object.flag("special", false);
    token.normalized = object.flag("normalized", !token.special);
    object.finish();
    tokens.push_back(std::move(token));
  }
  return tokens;
}

void check_added_tokens(const std::vector<AddedToken>& added, const Vocabulary& vocabulary, const std::string& where) {
  for (const AddedToken& token : added) {
    const TokenId known = vocabulary.find(token.content);
    if (known == token.id || (known < 0 && !vocabulary.has(token.id))) continue;
    throw Error(Exit::file, {.what = "added_tokens disagree with the model's vocabulary",
                             .where = where,
                             .got = json_string(token.content) + " with id " + std::to_string(token.id),
                             .expected = known >= 0 ? "id " + std::to_string(known)
                                                    : "an id that is free, not that of " +
                                                          json_string(vocabulary.token(token.id))});
  }
}

namespace {

/// Of tokenizer_config.json or special_tokens_map.json.
void read_roles_of(const std::string& text, const std::string& where, HfTokenizer::Parts& parts) {
  const Json config = parse_json(text, where);
  JsonObject object(config, where, "");
  const auto role = [&](const char* key, TokenId& id, bool needed) {
    const Json* value = object.find(key);
    if (value && value->is_object()) {
      const auto content = value->find("content");
      value = content == value->end() ? nullptr : &*content;
    }
    if (!value) return;
    if (!value->is_string()) object.fail(std::string("wrong type of '") + key + "'", shown(*value), "a token");
    const std::string& token = value->get_ref<const std::string&>();
    TokenId found = parts.model->vocabulary().find(token);
    for (const AddedToken& added : parts.added)
      if (added.content == token) found = added.id;
    if (found < 0 && !token.empty() && needed)
      object.fail(std::string("the vocabulary lacks the ") + key, json_string(token), "a token of the tokenizer");
    id = found;
  };
  role("bos_token", parts.special.bos, true);
  role("eos_token", parts.special.eos, true);
  role("pad_token", parts.special.pad, true);
  role("unk_token", parts.special.unk, true);
  // Families that have no use for these name them as well.
  role("cls_token", parts.special.cls, false);
  role("sep_token", parts.special.sep, false);
  role("mask_token", parts.special.mask, false);
  // transformers leaves the text of byte-pair encoding alone whatever the file says, but for a key of its own.
  const char* const for_all = "clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output";
  if (parts.model->may_be_cleaned_up() || object.flag(for_all, false))
    parts.cleans_up_blanks = object.flag("clean_up_tokenization_spaces", parts.cleans_up_blanks);
}

}  // namespace

std::vector<KeptFile> read_files_beside(const fs::path& file) {
  std::vector<KeptFile> files;
  const fs::path folder = file.parent_path();
  for (const char* name :
       {"special_tokens_map.json", "tokenizer_config.json", "chat_template.jinja", "chat_template.json"})
    if (fs::exists(folder / name)) files.emplace_back(name, read_file(folder / name));
  for (const fs::path& path : io::named_template_files(folder))
    files.emplace_back(path.lexically_relative(folder).string(), read_file(path));
  return files;
}

void read_token_roles(const std::vector<KeptFile>& files, const fs::path& folder, HfTokenizer::Parts& parts) {
  for (const char* name : {"special_tokens_map.json", "tokenizer_config.json"})
    for (const auto& [file, text] : files)
      if (file == name) read_roles_of(text, (folder / file).string(), parts);
}

std::unique_ptr<HfTokenizer> parse_tokenizer_json(const std::string& json, const std::string& where,
                                                  std::vector<KeptFile> files) {
  const Json root = parse_json(json, where);
  JsonObject object(root, where, "");
  object.skip("version");
  for (const char* key : {"truncation", "padding"})
    if (object.find(key)) log::debug(where + ": '" + key + "' is left to the caller, who knows the lengths");
  HfTokenizer::Parts parts;
  bool byte_level = false;
  if (const Json* value = object.find("normalizer")) parts.normalizer = read_normalizer(*value, where);
  if (const Json* value = object.find("pre_tokenizer")) {
    auto reading = read_pre_tokenizer(*value, where);
    parts.pre_tokenizer = std::move(reading.pre_tokenizer);
    byte_level = reading.byte_level;
  }
  parts.model = read_model(object.need("model"), byte_level, where);
  if (const Json* value = object.find("added_tokens")) parts.added = read_added_tokens(*value, where);
  check_added_tokens(parts.added, parts.model->vocabulary(), where);
  if (const Json* value = object.find("post_processor")) parts.post_processor = read_post_processor(*value, where);
  if (const Json* value = object.find("decoder")) parts.decoder = read_decoder(*value, where);
  object.finish();
  parts.special.unk = parts.model->unk();
  read_token_roles(files, fs::path(where).parent_path(), parts);
  parts.files = std::move(files);
  return std::make_unique<HfTokenizer>(std::move(parts));
}

std::unique_ptr<HfTokenizer> read_tokenizer_json(const fs::path& file) {
  const std::string json = read_file(file);
  std::vector<KeptFile> files = read_files_beside(file);
  files.emplace_back("tokenizer.json", json);
  return parse_tokenizer_json(json, file.string(), std::move(files));
}

}  // namespace llmtk::text
