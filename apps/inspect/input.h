#pragma once
// What `inspect logits`, `hidden` and `attention` share: a model, and the texts that it reads.

#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "open_model.h"

namespace llmtk {

struct InputOptions {
  ModelOptions model;
  std::vector<std::string> prompts, ids;  ///< ids: "5,6,7"
  std::string prompts_file;
  std::vector<std::string> pairs;                ///< of encoders: a second text beside each of the texts
  std::vector<std::string> targets, target_ids;  ///< of encoder-decoders: what the decoder should write
  std::optional<bool> add_special_tokens;
  std::string padding_side;  ///< left or right; empty: as the kind of model is used
  int64_t batch_size = 8;
};

/// Adds the model's options and those of the texts.
void add_input_options(CLI::App& command, InputOptions& options);

/// One text.
struct Input {
  std::optional<std::string> text;  ///< none where ids were given
  std::string where;                ///< what errors call it
  std::vector<text::TokenId> ids;
  std::vector<text::TokenId> decoder_ids;    ///< of encoder-decoders: the start token, then the target without its end
  std::vector<text::TokenId> type_ids = {};  ///< of encoders with pairs: which of the two texts each token is of
};

struct OpenInputs {
  OpenModel open;
  std::vector<Input> inputs;
};
/// The model, and the texts as ids; bos where one is empty. Throws Error(data) where there is nothing, where the model
/// does not know an id, or cannot see so many; Error(usage) where no text is given, and for targets and pairs that do
/// not fit to the model or to the number of texts.
OpenInputs open_inputs(const InputOptions& options);

/// {"prompt", "ids", "tokens", "labels"}, of pairs "token_type_ids", and of encoder-decoders the same of what the
/// decoder reads.
nlohmann::ordered_json describe(const OpenModel& open, const Input& input);
/// Above the table of a text, where there are several.
void print_title(const Input& input, size_t number, size_t count);

}  // namespace llmtk
