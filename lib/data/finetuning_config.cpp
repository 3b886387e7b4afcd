// The rules of the section, its words, and what is counted.

#include <algorithm>

#include "core/error.h"
#include "data/finetuning.h"

namespace llmtk::data {
namespace {

constexpr const char* kObjectives[] = {
    "causal_lm",  "masked_lm",          "seq2seq", "sequence_classification", "token_classification",
    "preference", "unpaired_preference"};

}  // namespace

Objective parse_objective(std::string_view name) {
  const auto* found = std::ranges::find(kObjectives, name);
  if (found == std::end(kObjectives))
    throw Error(Exit::usage, {.what = "unknown objective",
                              .got = "'" + std::string(name) + "'",
                              .expected = "causal_lm, masked_lm, seq2seq, sequence_classification, "
                                          "token_classification, preference, unpaired_preference"});
  return static_cast<Objective>(found - kObjectives);
}

std::string to_string(Objective objective) { return kObjectives[static_cast<int>(objective)]; }

void FinetuneDataConfig::validate(config::Problems& problems) const {
  if (!validation.empty() && validation_fraction > 0)
    problems.add("validation_fraction", {.what = "given together with data.validation", .expected = "one of the two"});
  for (size_t i = 0; i < validation.size(); ++i)
    for (const auto& [key, given] :
         {std::pair("weight", validation[i].weight != 0), std::pair("max_epochs", validation[i].max_epochs != 0)})
      if (given)
        problems.add("validation." + std::to_string(i) + "." + key,
                     {.what = "has no effect: an evaluation sees every row once", .hint = "leave it out"});
  const bool weighted = std::ranges::any_of(train, [](const auto& source) { return source.weight > 0; });
  for (size_t i = 0; i < train.size(); ++i)
    if (weighted && train[i].weight == 0)
      problems.add("train." + std::to_string(i) + ".weight",
                   {.what = "0, while other sources have weights",
                    .expected = "a weight above 0 for every source, or for none"});
  if (truncation_side != "right" && truncation != "truncate")
    problems.add("truncation_side", {.what = "has no effect with truncation: " + truncation, .hint = "leave it out"});
  if (packing && group_by_length)
    problems.add("group_by_length", {.what = "has no effect with packing: packed rows are about as long as each other",
                                     .hint = "leave one of the two out"});
  if (chat_template == "alpaca" && !chat_template_kwargs.empty())
    problems.add("chat_template_kwargs",
                 {.what = "has no effect with chat_template: alpaca, which has no variables", .hint = "leave it out"});
  if (chat_template == "alpaca" && train_on == "generation")
    problems.add("train_on",
                 {.what = "chat_template: alpaca marks nothing by {% generation %}", .expected = "answers or all"});
  if (!chat_template_kwargs.is_object())
    problems.add("chat_template_kwargs", {.what = "not names with values", .expected = "{enable_thinking: false}"});
}

// --- statistics ---

void FinetuneStatistics::count(const Example& row) {
  ++rows;
  tokens += row.input_ids.size();
  trained_tokens += num_asked(row);
  longest = std::max<uint64_t>(longest, row.input_ids.size());
}

void FinetuneStatistics::count(const EncodedRow& notes) {
  cut += notes.cut > 0;
  cut_tokens += notes.cut;
  answers_cut += notes.answer_cut;
  doubled_bos += notes.doubled_bos;
  untrained_eos += notes.untrained_eos;
  words_cut += notes.words_cut;
}

FinetuneStatistics& FinetuneStatistics::operator+=(const FinetuneStatistics& other) {
  for (const auto part :
       {&FinetuneStatistics::rows, &FinetuneStatistics::tokens, &FinetuneStatistics::trained_tokens,
        &FinetuneStatistics::skipped, &FinetuneStatistics::dropped, &FinetuneStatistics::cut,
        &FinetuneStatistics::cut_tokens, &FinetuneStatistics::answers_cut, &FinetuneStatistics::untrained,
        &FinetuneStatistics::doubled_bos, &FinetuneStatistics::untrained_eos, &FinetuneStatistics::words_cut})
    this->*part += other.*part;
  longest = std::max(longest, other.longest);
  return *this;
}

nlohmann::ordered_json FinetuneStatistics::json() const {
  return {{"rows", rows},
          {"tokens", tokens},
          {"trained_tokens", trained_tokens},
          {"longest", longest},
          {"skipped", skipped},
          {"dropped", dropped},
          {"cut", cut},
          {"cut_tokens", cut_tokens},
          {"answers_cut", answers_cut},
          {"untrained", untrained},
          {"doubled_bos", doubled_bos},
          {"untrained_eos", untrained_eos},
          {"words_cut", words_cut}};
}

}  // namespace llmtk::data
