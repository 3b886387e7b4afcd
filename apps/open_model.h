#pragma once
// What `generate` and `inspect` share: naming a model on the command line, and opening it with its tokenizer.

#include <CLI/CLI.hpp>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "adapters.h"
#include "nn/model.h"
#include "text/tokenizer.h"

namespace llmtk {

struct ModelOptions {
  std::string model;      ///< a folder, a GGUF file, or a name in the local Hugging Face cache
  std::string tokenizer;  ///< empty: the model's own
  std::string device = "auto";
  std::string dtype = "auto";
  int threads = 0;
  std::vector<std::string> adapters;  ///< DIR, or DIR=WEIGHT
};

/// Adds MODEL (or --model), --tokenizer, --device, --dtype, --threads and --adapter.
void add_model_options(CLI::App& app, ModelOptions& options);

struct OpenModel {
  std::filesystem::path folder;
  std::shared_ptr<nn::Model> model;  ///< in eval mode, without gradients
  AdapterSwitch adapters;
  std::unique_ptr<text::Tokenizer> tokenizer;
};

/// Sets the process up for computing, then reads weights and tokenizer side by side. Throws Error(file, usage).
OpenModel open_model(const ModelOptions& options);

/// The tokenizer alone.
std::unique_ptr<text::Tokenizer> open_tokenizer(const ModelOptions& options, const std::filesystem::path& model_folder);

/// Ids of `text`. Throws Error(data) naming `where` when it is not UTF-8.
std::vector<text::TokenId> encode_text(const text::Tokenizer& tokenizer, const std::string& text,
                                       bool add_special_tokens, const std::string& where);

}  // namespace llmtk
