#pragma once
// One row of a fine-tuning source to ids and labels. For data/finetuning.cpp.

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "core/error.h"
#include "data/dialogue.h"
#include "data/encoder_input.h"
#include "data/finetuning.h"
#include "data/schema.h"

namespace llmtk::data {

/// What a row longer than it may be is: never a bad row that is passed over.
struct TooLong : Error {
  using Error::Error;
};

/// A number that stands as a text in a table; everything else as it is.
nlohmann::ordered_json number_in(const nlohmann::ordered_json& text);

struct RowSettings {
  Objective objective = Objective::causal_lm;
  Format format = Format::text;
  std::map<std::string, std::string> columns;
  bool of_table = false;  ///< every field is a text
  TrainOn train_on = TrainOn::answers;
  size_t max_length = 0, max_target_length = 0;
  std::string truncation;
  bool cut_left = false;
  std::string source_prefix;
  bool token_types = false;
  bool margins = false;  ///< preference: a row's value is its margin, 0 where it has none
};

/// A row whose labels are not classes yet.
struct Draft {
  EncodedRow row;
  nlohmann::ordered_json label;  ///< of a text; for words a list
  std::vector<int64_t> places;   ///< of the words
  bool dropped = false;          ///< longer than it may be
};

/// One object serves all threads.
class RowEncoder {
 public:
  /// dialogues: of causal_lm, else null. Refers to it and to the tokenizer.
  RowEncoder(RowSettings settings, const text::Tokenizer& tokenizer, const DialogueEncoder* dialogues)
      : settings_(std::move(settings)), tokenizer_(tokenizer), dialogues_(dialogues) {}
  /// Throws Error(data) naming `where` for a row that is not as its format has it, TooLong as data.truncation says.
  Draft encode(const nlohmann::ordered_json& row, const std::string& where) const;

 private:
  EncodedRow decoder_row(const Fields& row) const;
  EncodedRow encode_answer(const Answer& answer, const std::string& where) const;
  Draft answer_row(const Answer& answer, const std::string& where) const;
  Draft pair_row(const Fields& row) const;
  void fit(Draft& draft, const std::string& where) const;
  Draft target_row(const Fields& row) const;
  Draft text_row(const Fields& row) const;
  Draft words_row(const Fields& row) const;
  bool too_long(Draft& draft, size_t tokens, size_t most, const char* setting, const std::string& where) const;
  std::vector<text::TokenId> ids_of(const std::string& text) const;

  RowSettings settings_;
  const text::Tokenizer& tokenizer_;
  const DialogueEncoder* dialogues_;
};

}  // namespace llmtk::data
