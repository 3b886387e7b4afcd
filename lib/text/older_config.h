#pragma once
// What stands beside a vocabulary that is older than tokenizer.json (vocab.json, vocab.txt, a sentencepiece model):
// tokenizer_config.json, special_tokens_map.json, added_tokens.json, and config.json for the family.

#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "text/added_tokens.h"
#include "text/hf_tokenizer.h"
#include "text/json_reader.h"

namespace llmtk::text {

struct OlderConfig {
  /// Reads what is there. Throws Error(file).
  explicit OlderConfig(const std::filesystem::path& vocabulary);

  /// An object; empty where the file is not there.
  Json json_of(const std::string& name) const;
  JsonObject object() const;
  /// Whether the tokenizer's class begins with that name; where none is named, whether the model is of that type.
  bool is_of(std::string_view tokenizer_class, std::string_view model_type) const;

  std::vector<KeptFile> files;
  std::filesystem::path folder;
  Json config;  ///< tokenizer_config.json, and what special_tokens_map.json says beyond it
};

/// The tokens that are found in the text itself, as transformers finds them: those listed with their ids, then those
/// with a role. A token that the vocabulary lacks is appended to it.
class AddedTokenReader {
 public:
  /// `find`: the id of a token of the vocabulary, which has `size` ids; -1 for none.
  AddedTokenReader(OlderConfig& config, size_t size, std::function<TokenId(std::string_view)> find);

  /// The token with a role: as the config says, or else `otherwise` (null: none). The config then says it too.
  std::optional<AddedToken> role(const char* key, const char* otherwise);
  /// The same, and Error(file) where there is none.
  AddedToken needed_role(const char* key, const char* otherwise);
  /// One that the family has whatever the files say; nothing where it is known already.
  void add_special(const std::string& content);

  const std::vector<AddedToken>& tokens() const { return tokens_; }

 private:
  const AddedToken* known(const std::string& content) const;
  const AddedToken& add(AddedToken token);

  OlderConfig& config_;
  std::function<TokenId(std::string_view)> find_;
  TokenId next_;
  std::vector<AddedToken> tokens_;
  std::unordered_map<std::string, size_t> places_;  // in tokens_, by content
};

}  // namespace llmtk::text
