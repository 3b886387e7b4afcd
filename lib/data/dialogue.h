#pragma once
// Conversations to ids, and which of them are trained on.

#include <map>
#include <string>
#include <vector>

#include "data/encoded_rows.h"
#include "data/schema.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace llmtk::data {

enum class TrainOn {
  answers,     ///< what the assistant says, its end included
  all,         ///< every token
  generation,  ///< what stands in the template's {% generation %} blocks
};

/// Turns rows into ids for a decoder. One object serves all threads.
///
/// With a chat template the rendered text is tokenized without adding special tokens. An answer is what a generation
/// block of the template holds; where it has none, the text from where the template asks for an answer (the generation
/// prompt) to where the message ends, blanks behind its last special token left out. A token that holds a part of an
/// answer is trained on.
///
/// Without one, the form is Stanford Alpaca's, each answer ended by the tokenizer's end of text:
///   Below is an instruction that describes a task. Write a response that appropriately completes the request.
///
///   ### Instruction:
///   {instruction}
///
///   ### Response:
///   {answer}
/// with an "### Input:" between where there is an input ("..., paired with an input that provides further context"), a
/// system text in place of the first line, and further turns behind a blank line.
class DialogueEncoder {
 public:
  /// chat_template: null for Alpaca's form. Refers to both. variables: of the template, over the rows' own ones.
  DialogueEncoder(const text::Tokenizer& tokenizer, const text::ChatTemplate* chat_template, TrainOn train_on,
                  std::map<std::string, text::ChatInput::Json> variables);

  /// All throw Error(data) naming `where`.
  EncodedRow dialogue(const Dialogue& dialogue, const std::string& where) const;
  /// A text and its continuation, as one text, with the tokenizer's begin and end of text.
  EncodedRow continuation(const Continuation& pair, const std::string& where) const;
  /// All of a text is trained on.
  EncodedRow document(const std::string& text, const std::string& where) const;

 private:
  using Spans = std::vector<text::jinja::Span>;
  EncodedRow rendered(const Dialogue& dialogue, const std::string& where) const;
  Spans answers(const text::ChatInput& input, const Dialogue& dialogue, const std::string& text,
                const std::string& where) const;
  text::jinja::Span answer(const text::ChatInput& input, size_t message, const std::string& text,
                           const std::string& where) const;
  EncodedRow alpaca(const Dialogue& dialogue, const std::string& where) const;
  void append(EncodedRow& row, const std::string& text, const Spans& spans, const std::string& where) const;
  void append_end(EncodedRow& row) const;
  std::vector<TokenSpan> tokens_of(const std::string& text, const std::vector<text::TokenId>& ids, const Spans& spans,
                                   const std::string& where) const;
  void drop_blanks(TokenSpan& span, const std::vector<text::TokenId>& ids) const;

  const text::Tokenizer& tokenizer_;
  const text::ChatTemplate* template_;
  TrainOn train_on_;
  std::map<std::string, text::ChatInput::Json> variables_;
};

}  // namespace llmtk::data
