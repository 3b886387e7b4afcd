#include "data/row_encoder.h"

#include <algorithm>

namespace llmtk::data {
namespace {

/// Puts `second` behind `first`, as a text of its own.
void join(Draft& first, const Draft& second) {
  EncodedRow& row = first.row;
  const EncodedRow& other = second.row;
  row.second = static_cast<uint32_t>(row.ids.size());
  row.ids.insert(row.ids.end(), other.ids.begin(), other.ids.end());
  for (const auto [begin, end] : other.trained) row.trained.push_back({begin + row.second, end + row.second});
  row.cut += other.cut;
  row.answer_cut |= other.answer_cut;
  row.untrained_eos |= other.untrained_eos;
  first.dropped |= second.dropped;
}

/// Leaves of a row the tokens [begin, end).
void cut_to(EncodedRow& row, size_t begin, size_t end) {
  const uint64_t before = row.num_trained(LabelKind::next);
  row.cut = static_cast<uint32_t>(row.ids.size() - (end - begin));
  row.ids.erase(row.ids.begin() + static_cast<std::ptrdiff_t>(end), row.ids.end());
  row.ids.erase(row.ids.begin(), row.ids.begin() + static_cast<std::ptrdiff_t>(begin));
  const auto moved = [&](uint32_t at) { return static_cast<uint32_t>(std::clamp<size_t>(at, begin, end) - begin); };
  for (TokenSpan& span : row.trained) span = {moved(span.begin), moved(span.end)};
  std::erase_if(row.trained, [](const TokenSpan& span) { return span.begin >= span.end; });
  row.answer_cut = row.num_trained(LabelKind::next) < before;
}

}  // namespace

nlohmann::ordered_json number_in(const nlohmann::ordered_json& text) {
  if (!text.is_string()) return text;
  auto value = nlohmann::ordered_json::parse(text.get_ref<const std::string&>(), nullptr, /*allow_exceptions=*/false);
  return value.is_number() ? value : text;
}

Draft RowEncoder::encode(const nlohmann::ordered_json& json, const std::string& where) const {
  const Fields row(json, settings_.columns, where);
  Draft draft;
  switch (settings_.objective) {
    case Objective::causal_lm:
      draft.row = decoder_row(row);
      fit(draft, where);
      break;
    case Objective::preference:
    case Objective::unpaired_preference:
      if (settings_.format == Format::preference) {
        draft = pair_row(row);
      } else {
        const RatedAnswer rated = read_unpaired_preference(row);
        draft = answer_row(rated.answer, where);
        draft.row.values = {rated.wanted ? 1.0f : 0.0f};
      }
      break;
    case Objective::seq2seq:
      draft = target_row(row);
      break;
    case Objective::token_classification:
      draft = words_row(row);
      break;
    case Objective::masked_lm:
    case Objective::sequence_classification:
      draft = text_row(row);
      break;
  }
  const auto bos = tokenizer_.special_tokens().bos;
  const auto& ids = draft.row.ids;
  draft.row.doubled_bos = bos >= 0 && ids.size() > 1 && ids[0] == bos && ids[1] == bos;
  return draft;
}

std::vector<text::TokenId> RowEncoder::ids_of(const std::string& text) const {
  std::vector<text::TokenId> ids;
  tokenizer_.encode(text, ids);
  return ids;
}

bool RowEncoder::too_long(Draft& draft, size_t tokens, size_t most, const char* setting,
                          const std::string& where) const {
  if (tokens <= most) return false;
  if (settings_.truncation == "error")
    throw TooLong(Exit::data, {.what = std::string("the row is longer than ") + setting,
                               .where = where,
                               .got = std::to_string(tokens) + " tokens",
                               .expected = "at most " + std::to_string(most),
                               .hint = "raise it, shorten the row, or set data.truncation to truncate or drop"});
  draft.dropped = settings_.truncation == "drop";
  return true;
}

// --- decoders ---

EncodedRow RowEncoder::decoder_row(const Fields& row) const {
  const bool need_answer = settings_.train_on != TrainOn::all;
  switch (settings_.format) {
    case Format::text: {
      const std::string& text = row.text("text");
      if (text.empty()) row.fail("an empty text");
      return dialogues_->document(text, row.where());
    }
    case Format::alpaca:
      return dialogues_->dialogue(read_alpaca(row), row.where());
    case Format::sharegpt:
      return dialogues_->dialogue(read_sharegpt(row, need_answer), row.where());
    case Format::messages:
      return dialogues_->dialogue(read_messages(row, need_answer), row.where());
    case Format::prompt_completion:
      return is_conversational(row) ? dialogues_->dialogue(read_prompt_of_messages(row), row.where())
                                    : dialogues_->continuation(read_prompt_completion(row), row.where());
    default:
      return dialogues_->continuation(read_input_output(row), row.where());
  }
}

EncodedRow RowEncoder::encode_answer(const Answer& answer, const std::string& where) const {
  return answer.dialogue ? dialogues_->dialogue(*answer.dialogue, where)
                         : dialogues_->continuation(answer.texts, where);
}

Draft RowEncoder::answer_row(const Answer& answer, const std::string& where) const {
  Draft draft{.row = encode_answer(answer, where)};
  fit(draft, where);
  return draft;
}

Draft RowEncoder::pair_row(const Fields& row) const {
  const Preference pair = read_preference(row);
  Draft draft = answer_row(pair.chosen, row.where());
  join(draft, answer_row(pair.rejected, row.where()));
  if (settings_.margins) draft.row.values = {static_cast<float>(pair.margin.value_or(0))};
  return draft;
}

void RowEncoder::fit(Draft& draft, const std::string& where) const {
  EncodedRow& row = draft.row;
  const size_t tokens = row.ids.size(), most = settings_.max_length;
  if (too_long(draft, tokens, most, "data.max_length", where) && !draft.dropped)
    cut_to(row, settings_.cut_left ? tokens - most : 0, settings_.cut_left ? tokens : most);
  const auto end = tokenizer_.special_tokens().eos;
  row.untrained_eos = !row.answer_cut && end >= 0 && std::ranges::none_of(row.trained, [&](const TokenSpan& span) {
    return std::find(row.ids.begin() + std::max(span.begin, 1u), row.ids.begin() + span.end, end) !=
           row.ids.begin() + span.end;
  });
}

// --- encoders and encoder-decoders ---

Draft RowEncoder::target_row(const Fields& row) const {
  const Continuation pair = settings_.format == Format::alpaca              ? read_alpaca_pair(row)
                            : settings_.format == Format::prompt_completion ? read_prompt_completion(row)
                                                                            : read_input_output(row);
  Draft draft;
  const auto end = tokenizer_.special_tokens().eos;
  const auto encode = [&](const std::string& text, size_t most, const char* setting) {
    const auto ids = ids_of(text);
    auto input = encoder_input(tokenizer_, ids, nullptr, true, most);
    const size_t whole = input.truncated ? tokenizer_.post_process(ids, nullptr).ids.size() : 0;
    if (input.truncated && too_long(draft, whole, most, setting, row.where()))
      draft.row.cut += static_cast<uint32_t>(whole - input.encoding.ids.size());
    return std::make_pair(std::move(input.encoding.ids), input.truncated);
  };
  draft.row.ids = encode(settings_.source_prefix + pair.prompt, settings_.max_length, "data.max_length").first;
  std::tie(draft.row.labels, draft.row.answer_cut) =
      encode(pair.completion, settings_.max_target_length, "data.max_target_length");
  // A target ends whatever the post-processor does.
  if (end >= 0 && (draft.row.labels.empty() || draft.row.labels.back() != end)) {
    if (draft.row.labels.size() >= settings_.max_target_length) draft.row.labels.pop_back();
    draft.row.labels.push_back(end);
  }
  return draft;
}

Draft RowEncoder::text_row(const Fields& row) const {
  Draft draft;
  const bool labelled = settings_.objective == Objective::sequence_classification;
  if (labelled) draft.label = settings_.of_table ? number_in(row.need("label")) : row.need("label");
  auto ids = ids_of(row.text("text"));
  std::optional<std::vector<text::TokenId>> pair;
  if (labelled && row.has("text_pair")) pair = ids_of(row.text("text_pair"));
  const size_t whole = tokenizer_.post_process(ids, pair ? &*pair : nullptr).ids.size();
  if (ids.empty()) row.fail("a text without tokens");
  too_long(draft, whole, settings_.max_length, "data.max_length", row.where());
  auto input = encoder_input(tokenizer_, std::move(ids), pair ? &*pair : nullptr, true, settings_.max_length);
  draft.row.ids = std::move(input.encoding.ids);
  draft.row.cut = static_cast<uint32_t>(whole - draft.row.ids.size());
  const auto& types = input.encoding.type_ids;
  const auto second = std::ranges::find(types, 1);
  if (settings_.token_types && second != types.end()) draft.row.second = static_cast<uint32_t>(second - types.begin());
  return draft;
}

Draft RowEncoder::words_row(const Fields& row) const {
  const auto &words = row.need("tokens"), &tags = row.need("tags");
  const auto is_text = [](const auto& word) { return word.is_string(); };
  if (!words.is_array() || words.empty() || !std::ranges::all_of(words, is_text))
    row.fail("the row's words '" + row.name_of("tokens") + "'", words.dump(), "a list of texts");
  if (!tags.is_array() || tags.size() != words.size())
    row.fail("not as many tags '" + row.name_of("tags") + "' as words",
             tags.is_array() ? std::to_string(tags.size()) : tags.dump(), std::to_string(words.size()));
  Draft draft{.label = tags};
  std::vector<std::vector<text::TokenId>> ids;
  size_t whole = tokenizer_.post_process({}, nullptr).ids.size();
  for (const auto& word : words) {
    ids.push_back(ids_of(word.get_ref<const std::string&>()));
    whole += ids.back().size();
  }
  too_long(draft, whole, settings_.max_length, "data.max_length", row.where());
  WordsInput input = encoder_input(tokenizer_, ids, true, settings_.max_length);
  draft.row.ids = std::move(input.input.encoding.ids);
  draft.row.cut = static_cast<uint32_t>(whole - draft.row.ids.size());
  draft.row.words_cut = static_cast<uint32_t>(std::ranges::count(input.places, -1));
  draft.places = std::move(input.places);
  return draft;
}

}  // namespace llmtk::data
