#include "data/encoder_input.h"

#include <algorithm>

namespace llmtk::data {

EncoderInput encoder_input(const text::Tokenizer& tokenizer, std::vector<text::TokenId> text,
                           std::vector<text::TokenId>* pair, bool add_special_tokens, size_t most) {
  EncoderInput input{.encoding = tokenizer.post_process(text, pair, add_special_tokens)};
  input.truncated = input.encoding.ids.size() > most;
  if (!input.truncated) return input;
  const size_t special = input.encoding.ids.size() - text.size() - (pair ? pair->size() : 0);
  const size_t room = most - std::min(special, most);
  if (!pair) {
    text.resize(room);
  } else {
    auto &shorter = text.size() <= pair->size() ? text : *pair, &longer = &shorter == &text ? *pair : text;
    shorter.resize(std::min(shorter.size(), room / 2));
    longer.resize(room - shorter.size());
  }
  input.encoding = tokenizer.post_process(text, pair, add_special_tokens);
  return input;
}

WordsInput encoder_input(const text::Tokenizer& tokenizer, const std::vector<std::vector<text::TokenId>>& words,
                         bool add_special_tokens, size_t most) {
  WordsInput out;
  std::vector<text::TokenId> ids;
  for (const auto& word : words) {
    out.places.push_back(word.empty() ? -1 : static_cast<int64_t>(ids.size()));
    ids.insert(ids.end(), word.begin(), word.end());
  }
  const auto before = add_special_tokens ? static_cast<int64_t>(tokenizer.prefix().size()) : 0;
  const auto special = static_cast<int64_t>(tokenizer.post_process({}, nullptr, add_special_tokens).ids.size());
  out.input = encoder_input(tokenizer, std::move(ids), nullptr, add_special_tokens, most);
  const int64_t seen = static_cast<int64_t>(out.input.encoding.ids.size()) - special;
  for (int64_t& place : out.places) place = place < 0 || place >= seen ? -1 : place + before;
  return out;
}

}  // namespace llmtk::data
