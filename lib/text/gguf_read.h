#pragma once
// The vocabulary inside a GGUF file: byte-level BPE ("gpt2") and sentencepiece's BPE ("llama").

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "io/gguf.h"
#include "text/hf_tokenizer.h"

namespace llmtk::text {

/// What kind of token an id is: tokenizer.ggml.token_type.
enum class GgufKind : int32_t { normal = 1, unknown = 2, control = 3, user_defined = 4, unused = 5, byte = 6 };

/// The vocabulary as a model folder's files: tokenizer.json, tokenizer_config.json and, where the file has a template,
/// chat_template.jinja. Throws Error(file) naming the key for a vocabulary that this program cannot read.
std::vector<KeptFile> gguf_tokenizer_files(const io::GgufFile& file);
/// The tokenizer that those files describe.
std::unique_ptr<HfTokenizer> read_gguf_tokenizer(const io::GgufFile& file);

/// The chat template in a GGUF file.
std::optional<std::string> gguf_chat_template(const io::GgufFile& file);

/// Ids that end a text, where `path` is a GGUF file; none for everything else.
std::vector<TokenId> gguf_end_tokens(const std::filesystem::path& path);

/// The merges of a sentencepiece BPE: every way to put two pieces together to a third, the highest score first.
struct ScoredPiece {
  std::string_view text;
  float score = 0;
  bool mergeable = false;  ///< whether it takes part: not control, unknown or byte pieces
};
std::vector<std::pair<TokenId, TokenId>> merges_of_scores(const std::vector<ScoredPiece>& pieces);

}  // namespace llmtk::text
