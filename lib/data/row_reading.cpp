#include "data/row_reading.h"

#include <algorithm>
#include <thread>

#include "data/rows.h"

namespace llmtk::data {
namespace {

constexpr size_t kMaxRowBytes = 8u << 20;  // far more tokens than any model sees

const std::vector<Format>& formats_of(Objective objective) {
  static const std::vector<Format> kOf[] = {{Format::messages, Format::sharegpt, Format::prompt_completion,
                                             Format::alpaca, Format::input_output, Format::text},
                                            {Format::text},
                                            {Format::prompt_completion, Format::alpaca, Format::input_output},
                                            {Format::classification},
                                            {Format::tagging},
                                            {Format::preference},
                                            {Format::preference, Format::unpaired_preference}};
  return kOf[static_cast<size_t>(objective)];
}

void add_messages(const Dialogue& dialogue, std::vector<std::string>& out) {
  for (const auto& message : dialogue.chat.messages)
    if (const auto content = message.find("content"); content != message.end() && content->is_string())
      out.push_back(content->get<std::string>());
}

void add_answer(const Answer& answer, std::vector<std::string>& out) {
  if (answer.dialogue) return add_messages(*answer.dialogue, out);
  out.push_back(answer.texts.prompt);
  out.push_back(answer.texts.completion);
}

/// What a row says, labels and tags aside.
std::vector<std::string> texts_of(Format format, const Fields& row) {
  std::vector<std::string> out;
  const auto add = [&](Continuation pair) { out = {std::move(pair.prompt), std::move(pair.completion)}; };
  switch (format) {
    case Format::text:
    case Format::classification:
      out.push_back(row.text("text"));
      if (row.has("text_pair")) out.push_back(row.text("text_pair"));
      break;
    case Format::tagging:
      for (const auto& word : row.need("tokens"))
        if (word.is_string()) out.push_back(word.get<std::string>());
      break;
    case Format::input_output:
      add(read_input_output(row));
      break;
    case Format::prompt_completion:
      if (is_conversational(row))
        add_messages(read_prompt_of_messages(row), out);
      else
        add(read_prompt_completion(row));
      break;
    case Format::alpaca:
      add_messages(read_alpaca(row), out);
      break;
    case Format::sharegpt:
      add_messages(read_sharegpt(row, /*need_answer=*/false), out);
      break;
    case Format::preference: {
      const Preference pair = read_preference(row);
      add_answer(pair.chosen, out);
      add_answer(pair.rejected, out);
      break;
    }
    case Format::unpaired_preference:
      add_answer(read_unpaired_preference(row).answer, out);
      break;
    case Format::messages:
      add_messages(read_messages(row, /*need_answer=*/false), out);
      break;
  }
  return out;
}

}  // namespace

ReadOptions row_options(const FinetuneSourceConfig& source, const std::string& on_bad_line) {
  return {.document = parse_document_unit(source.document),
          .on_bad_line = parse_bad_line(on_bad_line),
          .max_line_bytes = kMaxRowBytes,
          .block_bytes = 256u << 10,
          .piece_bytes = kMaxRowBytes};
}

int row_threads(const FinetuneDataConfig& config) {
  if (config.preprocessing_num_workers > 0) return static_cast<int>(config.preprocessing_num_workers);
  return static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
}

Format format_of(const FinetuneSourceConfig& source, Objective objective, const Fields& first) {
  const auto& possible = formats_of(objective);
  if (source.format == "auto") return possible.size() == 1 ? possible[0] : detect_format(first, possible);
  const Format format = parse_format(source.format);
  if (std::ranges::find(possible, format) != possible.end()) return format;
  std::string expected;
  for (const Format each : possible) expected += (expected.empty() ? "" : ", ") + to_string(each);
  throw Error(Exit::usage, {.what = "format: the objective " + to_string(objective) + " does not take such rows",
                            .where = source.path,
                            .got = source.format,
                            .expected = expected});
}

std::vector<std::string> texts_of_rows(const FinetuneDataConfig& config, Objective objective) {
  using Texts = std::vector<std::string>;
  Texts all;
  for (const auto& source : config.train) {
    if (TokenizedRows::is_tokenized(source.path))
      throw Error(Exit::usage, {.what = "a tokenizer is learnt from text, and this is tokenized already",
                                .where = source.path,
                                .hint = "name the tokenizer it was made with in tokenizer.name_or_path"});
    uint64_t taken = 0;
    const std::function<Texts(JsonRow&, size_t, const std::string&)> work = [&](JsonRow& row, size_t,
                                                                                const std::string& where) {
      const Fields fields(row.json, source.columns, where);
      Texts texts = texts_of(format_of(source, objective, fields), fields);
      if (!texts.empty()) texts[0].insert(0, config.source_prefix);
      return texts;
    };
    const std::function<bool(Texts&)> take = [&](Texts& texts) {
      std::ranges::move(texts, std::back_inserter(all));
      return source.max_samples == 0 || ++taken < static_cast<uint64_t>(source.max_samples);
    };
    read_rows<Texts>(find_text_files({source.path}), row_options(source, config.on_bad_line), row_threads(config), work,
                     take);
  }
  return all;
}

}  // namespace llmtk::data
