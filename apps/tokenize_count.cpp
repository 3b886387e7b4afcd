// llmtk tokenize count: how many tokens files come to.

#include <cstdio>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/log.h"
#include "text/corpus.h"
#include "text/tokenizer.h"
#include "tokenize.h"

namespace llmtk {
namespace {

struct CountOptions {
  std::string tokenizer, bad_lines = "stop";
  std::vector<std::filesystem::path> files;
  text::CorpusOptions corpus;
};

struct Counts {
  uint64_t documents = 0, bytes = 0, characters = 0, tokens = 0;
};

uint64_t count_characters(std::string_view text) {
  uint64_t n = 0;
  for (const char c : text) n += (static_cast<unsigned char>(c) & 0xC0) != 0x80;
  return n;
}

void print(const Counts& counts, const std::string& name, bool json) {
  const double per_token = counts.tokens ? static_cast<double>(counts.bytes) / static_cast<double>(counts.tokens) : 0;
  if (json) {
    std::cout << nlohmann::ordered_json{{"file", name},
                                        {"documents", counts.documents},
                                        {"bytes", counts.bytes},
                                        {"characters", counts.characters},
                                        {"tokens", counts.tokens},
                                        {"bytes_per_token", per_token}}
                     .dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace)
              << '\n';
    return;
  }
  char line[160];
  std::snprintf(line, sizeof line, "%12llu tokens %12llu characters %12llu bytes %6.2f bytes/token  ",
                static_cast<unsigned long long>(counts.tokens), static_cast<unsigned long long>(counts.characters),
                static_cast<unsigned long long>(counts.bytes), per_token);
  std::cout << line << name << '\n';
}

int count(const CountOptions& options, bool json) {
  text::CorpusOptions corpus = options.corpus;
  corpus.bad_line = text::parse_bad_line(options.bad_lines);
  const auto tokenizer = text::load_tokenizer(options.tokenizer);
  Counts total;
  std::vector<text::TokenId> ids;
  for (const auto& file : options.files) {
    Counts counts;
    const auto report = text::read_corpus({file}, corpus, [&](std::string_view text, const text::Place&) {
      ids.clear();
      tokenizer->encode(text, ids);
      counts.tokens += ids.size();
      counts.characters += count_characters(text);
    });
    counts.documents = report.documents, counts.bytes = report.bytes;
    if (!report.first_bad.empty())
      log::warn(std::to_string(report.skipped_lines) + " lines skipped, " + std::to_string(report.replaced_lines) +
                " mended; the first: " + report.first_bad);
    print(counts, file.string(), json);
    total.documents += counts.documents, total.bytes += counts.bytes;
    total.characters += counts.characters, total.tokens += counts.tokens;
  }
  if (options.files.size() > 1 && !json) print(total, "total", json);
  return 0;
}

}  // namespace

void add_count_command(CLI::App& app, TokenizeContext& context) {
  auto options = std::make_shared<CountOptions>();
  CLI::App* sub = app.add_subcommand("count", "How many tokens files come to");
  sub->add_option("-t,--tokenizer", options->tokenizer, "Model folder or tokenizer file")->required();
  sub->add_option("files", options->files, "Text files, .jsonl among them")->required();
  sub->add_option("--text-key", options->corpus.text_key, "Where a .jsonl row keeps its text")->capture_default_str();
  sub->add_option("--bad-lines", options->bad_lines, "Invalid UTF-8, broken rows: stop, skip or replace")
      ->capture_default_str();
  sub->footer("Examples:\n  llmtk tokenize count -t gpt2-folder corpus/*.txt rows.jsonl");
  sub->callback([&context, options] { context.run = [&context, options] { return count(*options, context.common.json); }; });
}

}  // namespace llmtk
