#pragma once
// The parts of reading tokenizer.json: each reads one section of it, strictly. `where` names the file in errors, `path`
// the place in it.

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "text/bpe.h"
#include "text/hf_tokenizer.h"
#include "text/json_reader.h"

namespace llmtk::text {

Normalizer read_normalizer(const Json& value, const std::string& where);

struct PreTokenizerReading {
  PreTokenizer pre_tokenizer;
  bool byte_level = false;  ///< whether the model's tokens spell bytes
};
PreTokenizerReading read_pre_tokenizer(const Json& value, const std::string& where);

/// `byte_level`: what read_pre_tokenizer() found.
std::unique_ptr<TokenModel> read_model(const Json& value, bool byte_level, const std::string& where);

PostProcessor read_post_processor(const Json& value, const std::string& where);
Decoder read_decoder(const Json& value, const std::string& where);

/// The list `added_tokens`.
std::vector<AddedToken> read_added_tokens(const Json& list, const std::string& where);
/// Error(file) where an added token has the id of another of the vocabulary.
void check_added_tokens(const std::vector<AddedToken>& added, const Vocabulary& vocabulary, const std::string& where);

/// An object of tokens and ids. `path` may be empty: of a vocab.json the object is all.
Vocabulary read_vocab(const Json& object, const std::string& where, const std::string& path);
/// "a b" of a list of merges.
std::pair<std::string_view, std::string_view> split_merge(std::string_view line, const std::string& where,
                                                          const std::string& path);
BpeModel::Merge find_merge_tokens(const Vocabulary& vocabulary, std::string_view left, std::string_view right,
                                  const std::string& where, const std::string& path);

/// What the pre-tokenizer and the decoder of the name Metaspace share. Files older than prepend_scheme have
/// add_prefix_space.
std::pair<std::string, PrependScheme> read_metaspace(JsonObject& object);

/// The files beside tokenizer.json, vocab.json or vocab.txt that are kept with it, those of them that are there.
std::vector<KeptFile> read_files_beside(const std::filesystem::path& file);
/// Roles of tokens and clean_up_tokenization_spaces, as special_tokens_map.json and tokenizer_config.json among `files`
/// say. Needs parts.model and parts.added.
void read_token_roles(const std::vector<KeptFile>& files, const std::filesystem::path& folder,
                      HfTokenizer::Parts& parts);

/// Sections in sections: no deeper than any real file has them.
constexpr int kMaxSectionDepth = 8;

}  // namespace llmtk::text
