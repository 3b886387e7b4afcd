// What the subcommands of llmtk tokenize do alike: the flags about input, bad lines.

#include "core/log.h"
#include "core/processors.h"
#include "tokenize.h"

namespace llmtk {

const char* const kInputsHelp = "Text files (.txt, .jsonl, .json, .csv, .tsv), folders of them, or patterns";

void add_tokenizer_option(CLI::App& sub, std::string& tokenizer) {
  sub.add_option("-t,--tokenizer", tokenizer, "Model folder, tokenizer file, or a name in the local Hugging Face cache")
      ->required();
}

void ReadFlags::add_to(CLI::App& sub) {
  sub.add_option("--text-field", text_field,
                 "The key that holds the text in rows of JSON, or the column of a .csv or .tsv file")
      ->capture_default_str();
  sub.add_option("--document", document, "What one document of a plain text file is: file, line, blank_line")
      ->check(CLI::IsMember({"file", "line", "blank_line"}))
      ->capture_default_str();
  sub.add_option("--bad-lines", bad_lines, "Invalid UTF-8, broken rows: stop, skip or replace")
      ->check(CLI::IsMember({"stop", "skip", "replace"}))
      ->capture_default_str();
}

data::ReadOptions ReadFlags::options() const {
  data::ReadOptions options;
  options.text_field = text_field;
  options.document = data::parse_document_unit(document);
  options.on_bad_line = data::parse_bad_line(bad_lines);
  return options;
}

void BadLineReport::add(const data::ParsedBlock& block) {
  constexpr uint64_t kShown = 5;
  skipped_ += block.skipped;
  replaced_ += block.replaced;
  for (const auto& complaint : block.complaints)
    if (shown_++ < kShown) log::warn(complaint);
}

void BadLineReport::finish() const {
  if (skipped_ + replaced_ > 0)
    log::warn(std::to_string(skipped_) + " bad lines left out, " + std::to_string(replaced_) + " mended");
}

int thread_count(int asked) { return asked > 0 ? asked : usable_processors(); }

}  // namespace llmtk
