#pragma once
// The vocabulary inside a GGUF file: byte-level BPE ("gpt2") and sentencepiece's BPE ("llama").

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "io/gguf.h"
#include "text/hf_tokenizer.h"

namespace llmtk::text {

/// What kind of token an id is: tokenizer.ggml.token_type.
enum class GgufKind : int32_t { normal = 1, unknown = 2, control = 3, user_defined = 4, unused = 5, byte = 6 };

/// The vocabulary as a model folder's files: tokenizer.json, tokenizer_config.json and, where the file has templates,
/// chat_template.jinja and additional_chat_templates/NAME.jinja. Throws Error(file) naming the key for a vocabulary that this program cannot read.
std::vector<KeptFile> gguf_tokenizer_files(const io::GgufFile& file);
/// The tokenizer that those files describe.
std::unique_ptr<HfTokenizer> read_gguf_tokenizer(const io::GgufFile& file);

/// The chat templates in a GGUF file by name, "default" first. Throws Error(file) for a name that could be no file's.
std::vector<std::pair<std::string, std::string>> gguf_chat_templates(const io::GgufFile& file);
/// The key of a template: tokenizer.chat_template, with the name behind it for all but the default.
std::string gguf_template_key(const std::string& name);
/// Whether a template may be called so: letters of ASCII, digits and "_", as the package `gguf` writes them; and "-".
bool is_template_name(std::string_view name);

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
