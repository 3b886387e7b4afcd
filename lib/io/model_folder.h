#pragma once
// A model folder as Hugging Face lays it out: config.json, weights in one safetensors file or in shards with an index,
// generation_config.json, and the tokenizer's files.

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "io/json.h"
#include "io/safetensors.h"

namespace llmtk::io {

inline constexpr const char* kWeightsFile = "model.safetensors";
inline constexpr const char* kWeightsIndex = "model.safetensors.index.json";

/// The weights of a folder (or one file), however many files they lie in. Maps the files; copies nothing.
class WeightFiles {
 public:
  /// `path`: a folder with model.safetensors or model.safetensors.index.json, or a .safetensors file.
  /// Throws Error(file): nothing there, pickled weights only (with the line that converts them), a shard that is
  /// missing, a tensor that the index and the shards do not agree about.
  explicit WeightFiles(const fs::path& path);

  struct Entry {
    std::shared_ptr<const SafetensorsFile> file;
    const TensorInfo* tensor;
  };
  /// Sorted by name.
  const std::map<std::string, Entry>& tensors() const { return tensors_; }
  const std::vector<std::shared_ptr<const SafetensorsFile>>& files() const { return files_; }

 private:
  void add(std::shared_ptr<const SafetensorsFile> file);
  std::map<std::string, Entry> tensors_;
  std::vector<std::shared_ptr<const SafetensorsFile>> files_;
};

/// Where a model named on the command line or in a config lies: a folder or a .gguf file as it is, else a name ("gpt2",
/// "HuggingFaceTB/SmolLM2-135M") looked up in the local Hugging Face cache (HF_HUB_CACHE, HF_HOME, else
/// ~/.cache/huggingface). Throws Error(file) that says how to get it. Nothing is ever downloaded.
fs::path find_model(const std::string& path_or_name);

/// config.json of a model folder. Throws Error(file) when it is not there.
Json read_model_config(const fs::path& folder);

/// What a tokenizer is kept in beside a model: any of these.
inline constexpr const char* kTokenizerFiles[] = {"tokenizer.json",
                                                  "tokenizer_config.json",
                                                  "special_tokens_map.json",
                                                  "added_tokens.json",
                                                  "vocab.json",
                                                  "merges.txt",
                                                  "vocab.txt",
                                                  "tokenizer.model",
                                                  "spiece.model",
                                                  "sentencepiece.bpe.model",
                                                  "chat_template.jinja",
                                                  "chat_template.json"};

/// The named chat templates of a folder: additional_chat_templates/*.jinja, sorted.
std::vector<fs::path> named_template_files(const fs::path& folder);

/// Which files travel: all, or all but the tokenizer's and its chat templates.
enum class Companions { all, but_tokenizer };
/// Copies the files that belong to a model beside its weights and config: tokenizer, chat templates, a sentence
/// encoder's pooling and (unless the target has one) generation_config.json. Files that the source lacks are left out.
void copy_companion_files(const fs::path& from, const fs::path& to, Companions which = Companions::all);

}  // namespace llmtk::io
