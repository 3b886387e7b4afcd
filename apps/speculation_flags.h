#pragma once
// The flags that have tokens proposed to a model instead of writing them one by one, and the draft model that proposes.

#include <CLI/CLI.hpp>
#include <cstdint>
#include <optional>
#include <string>

#include "generate/generate.h"
#include "open_model.h"

namespace llmtk {

struct SpeculationFlags {
  std::string assistant_model;
  std::optional<int64_t> num_assistant_tokens, prompt_lookup_num_tokens, max_matching_ngram_size;
};

void add_speculation_flags(CLI::App& app, SpeculationFlags& flags);

/// Who proposes, as the flags say; it lives as long as it is used.
struct OpenSpeculation {
  std::optional<OpenModel> draft;
  std::optional<generate::Speculation> speculation;
};

/// Throws Error(usage) for flags that contradict each other or have no effect, and for a draft model that is no decoder
/// or whose vocabulary is not that of `tokenizer`; its device, dtype and threads are those of `model`.
OpenSpeculation open_speculation(const SpeculationFlags& flags, const ModelOptions& model,
                                 const text::Tokenizer& tokenizer);

}  // namespace llmtk
