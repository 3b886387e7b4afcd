// llmtk tokenize encode, decode: texts from the command line, files or stdin.

#include <charconv>
#include <iostream>
#include <iterator>
#include <memory>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/log.h"
#include "text/corpus.h"
#include "text/tokenizer.h"
#include "tokenize.h"

namespace llmtk {
namespace {

using Json = nlohmann::ordered_json;

std::string read_stdin() { return {std::istreambuf_iterator<char>(std::cin), {}}; }

struct EncodeOptions {
  std::string tokenizer, show = "ids", bad_lines = "stop";
  std::vector<std::string> texts;
  std::vector<std::filesystem::path> files;
  text::CorpusOptions corpus;
  bool add_special_tokens = false;
};

void print_encoded(const text::Tokenizer& tokenizer, const EncodeOptions& options, bool json, std::string_view text) {
  std::vector<text::TokenId> ids;
  tokenizer.encode(text, ids, options.add_special_tokens);
  if (json) {
    Json row = {{"count", ids.size()}, {"ids", ids}};
    Json& tokens = row["tokens"] = Json::array();
    for (const auto id : ids) tokens.push_back(tokenizer.id_to_token(id));
    std::cout << row.dump(-1, ' ', false, Json::error_handler_t::replace) << '\n';
    return;
  }
  std::string line;
  for (const auto id : ids) {
    if (!line.empty()) line += ' ';
    line += options.show == "ids" ? std::to_string(id) : tokenizer.id_to_token(id);
  }
  std::cout << line << '\n';
}

int encode(const EncodeOptions& options, bool json) {
  text::CorpusOptions corpus = options.corpus;
  corpus.bad_line = text::parse_bad_line(options.bad_lines);
  const auto tokenizer = text::load_tokenizer(options.tokenizer);
  text::CorpusReport report;
  for (size_t i = 0; i < options.texts.size(); ++i) {
    std::string text = options.texts[i];
    if (text::check_text(text, "argument " + std::to_string(i + 1), corpus.bad_line, report))
      print_encoded(*tokenizer, options, json, text);
  }
  if (!options.files.empty()) {
    const auto read = text::read_corpus(options.files, corpus, [&](std::string_view text, const text::Place&) {
      print_encoded(*tokenizer, options, json, text);
    });
    report.skipped_lines += read.skipped_lines, report.replaced_lines += read.replaced_lines;
    if (report.first_bad.empty()) report.first_bad = read.first_bad;
  }
  if (options.texts.empty() && options.files.empty()) {
    std::string text = read_stdin();
    if (text::check_text(text, "stdin", corpus.bad_line, report)) {
      if (!corpus.lines) print_encoded(*tokenizer, options, json, text);
      for (size_t at = 0; corpus.lines && at < text.size();) {
        const size_t end = std::min(text.find('\n', at), text.size());
        print_encoded(*tokenizer, options, json, std::string_view(text).substr(at, end - at));
        at = end + 1;
      }
    }
  }
  if (!report.first_bad.empty())
    log::warn("bad lines: " + std::to_string(report.skipped_lines) + " skipped, " +
              std::to_string(report.replaced_lines) + " mended; the first: " + report.first_bad);
  return 0;
}

struct DecodeOptions {
  std::string tokenizer;
  std::vector<std::string> ids;
  bool skip_special_tokens = false;
};

/// Ids in decimal, with blanks or commas between them, brackets around them if one likes.
std::vector<text::TokenId> parse_ids(std::string_view line, const std::string& where, size_t vocab_size) {
  std::vector<text::TokenId> ids;
  constexpr std::string_view kBetween = " \t\r\n,[]";
  for (size_t at = 0; (at = line.find_first_not_of(kBetween, at)) != line.npos;) {
    const size_t end = std::min(line.find_first_of(kBetween, at), line.size());
    const std::string_view word = line.substr(at, end - at);
    text::TokenId id = -1;
    const auto parsed = std::from_chars(word.data(), word.data() + word.size(), id);
    if (parsed.ec != std::errc() || parsed.ptr != word.data() + word.size() || id < 0 ||
        static_cast<size_t>(id) >= vocab_size)
      throw Error(Exit::data, {.what = "not a token's id",
                               .where = where,
                               .got = "'" + std::string(word.substr(0, 40)) + "'",
                               .expected = "a whole number from 0 to " + std::to_string(vocab_size - 1)});
    ids.push_back(id);
    at = end;
  }
  return ids;
}

int decode(const DecodeOptions& options, bool json) {
  const auto tokenizer = text::load_tokenizer(options.tokenizer);
  const auto print = [&](const std::vector<text::TokenId>& ids) {
    const std::string text = tokenizer->decode(ids, options.skip_special_tokens);
    if (json)
      std::cout << Json{{"count", ids.size()}, {"text", text}}.dump() << '\n';
    else
      std::cout << text << '\n';
  };
  if (!options.ids.empty()) {
    std::string line;
    for (const std::string& part : options.ids) line += part + " ";
    print(parse_ids(line, "arguments", tokenizer->vocab_size()));
    return 0;
  }
  std::string line;
  for (size_t number = 1; std::getline(std::cin, line); ++number) {
    const std::string where = "stdin:" + std::to_string(number);
    if (!line.starts_with('{')) {
      print(parse_ids(line, where, tokenizer->vocab_size()));
      continue;
    }
    const auto row = nlohmann::json::parse(line, nullptr, false);
    if (row.is_discarded() || !row.contains("ids") || !row["ids"].is_array())
      throw Error(Exit::data, {.what = "not a row of ids", .where = where, .expected = R"({"ids": [1, 2, 3]})"});
    print(parse_ids(row["ids"].dump(), where, tokenizer->vocab_size()));
  }
  return 0;
}

}  // namespace

void add_encode_command(CLI::App& app, TokenizeContext& context) {
  auto options = std::make_shared<EncodeOptions>();
  CLI::App* sub = app.add_subcommand("encode", "Ids (or tokens) of texts, one line each");
  sub->add_option("-t,--tokenizer", options->tokenizer, "Model folder or tokenizer file")->required();
  sub->add_option("text", options->texts, "Texts; without texts and files, stdin is one text");
  sub->add_option("-f,--file", options->files, "Files: a .jsonl row is a text, any other file is one");
  sub->add_option("--text-key", options->corpus.text_key, "Where a .jsonl row keeps its text")->capture_default_str();
  sub->add_flag("--lines", options->corpus.lines, "Every line of a file or of stdin is a text");
  sub->add_option("--show", options->show, "ids or tokens (--json gives both)")
      ->check(CLI::IsMember({"ids", "tokens"}))
      ->capture_default_str();
  sub->add_flag("--add-special-tokens", options->add_special_tokens, "With what the post-processor adds (bos, eos)");
  sub->add_option("--bad-lines", options->bad_lines, "Invalid UTF-8, broken rows: stop, skip or replace")
      ->capture_default_str();
  sub->footer(
      "Examples:\n"
      "  llmtk tokenize encode -t gpt2-folder \"Hello, 世界\"\n"
      "  llmtk tokenize encode -t gpt2-folder --show tokens \"Hello, 世界\"\n"
      "  llmtk tokenize encode -t gpt2-folder --json -f rows.jsonl");
  sub->callback([&context, options] { context.run = [&context, options] { return encode(*options, context.common.json); }; });
}

void add_decode_command(CLI::App& app, TokenizeContext& context) {
  auto options = std::make_shared<DecodeOptions>();
  CLI::App* sub = app.add_subcommand("decode", "The text of ids");
  sub->add_option("-t,--tokenizer", options->tokenizer, "Model folder or tokenizer file")->required();
  sub->add_option("ids", options->ids, "Ids; without any, every line of stdin is a list of ids or {\"ids\": [...]}");
  sub->add_flag("--skip-special-tokens", options->skip_special_tokens, "Without special tokens");
  sub->footer(
      "Examples:\n"
      "  llmtk tokenize decode -t gpt2-folder 15496 995\n"
      "  llmtk tokenize encode -t gpt2-folder --json \"Hello\" | llmtk tokenize decode -t gpt2-folder");
  sub->callback([&context, options] { context.run = [&context, options] { return decode(*options, context.common.json); }; });
}

}  // namespace llmtk
