// llmtk tokenize encode, decode: texts from the command line, files or stdin.

#include <unistd.h>

#include <charconv>
#include <fstream>
#include <iostream>
#include <iterator>
#include <memory>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/log.h"
#include "core/utf8.h"
#include "data/files.h"
#include "data/ordered_map.h"
#include "text/tokenizer.h"
#include "text/unicode.h"
#include "tokenize.h"

namespace llmtk {
namespace {

using Json = nlohmann::ordered_json;

struct EncodeOptions {
  std::string tokenizer, show = "ids", pair_field;
  std::vector<std::string> texts, files;
  ReadFlags read;
  bool add_special_tokens = false, json = false;
  int threads = 1;
};

/// One line of output for the ids of a text; `type_ids` where they are asked for.
std::string line_of(const text::Tokenizer& tokenizer, const EncodeOptions& options,
                    const std::vector<text::TokenId>& ids, const std::vector<text::TokenId>* type_ids = nullptr) {
  if (options.json) {
    Json row = {{"count", ids.size()}, {"ids", ids}};
    if (type_ids) row["type_ids"] = *type_ids;
    Json& tokens = row["tokens"] = Json::array();
    for (const auto id : ids) tokens.push_back(tokenizer.id_to_token(id));
    return row.dump(-1, ' ', false, Json::error_handler_t::replace) + '\n';
  }
  std::string line;
  for (const auto id : ids) {
    if (!line.empty()) line += ' ';
    line += options.show == "ids" ? std::to_string(id) : tokenizer.id_to_token(id);
  }
  return line + '\n';
}

std::string encoded_line(const text::Tokenizer& tokenizer, const EncodeOptions& options, std::string_view text) {
  std::vector<text::TokenId> ids;
  tokenizer.encode(text, ids, options.add_special_tokens);
  return line_of(tokenizer, options, ids);
}

/// A document's line of output; or, where it reaches into other blocks, what this block holds of its text.
struct EncodedPart {
  std::string text;
  bool encoded = true, begins = true, ends = true;
};

struct EncodedBlock {
  std::vector<EncodedPart> parts;
  data::ParsedBlock block;  // its documents are gone
};

EncodedBlock encode_block(data::ParsedBlock parsed, const text::Tokenizer& tokenizer, const EncodeOptions& options) {
  EncodedBlock out;
  for (size_t i = 0; i < parsed.documents.size(); ++i) {
    std::string& text = parsed.documents[i].text;
    const bool begins = i > 0 || !parsed.continues;
    const bool ends = i + 1 < parsed.documents.size() || !parsed.open;
    if (begins && ends)
      out.parts.push_back({.text = encoded_line(tokenizer, options, text)});
    else
      out.parts.push_back({.text = std::move(text), .encoded = false, .begins = begins, .ends = ends});
  }
  parsed.documents.clear();
  out.block = std::move(parsed);
  return out;
}

void encode_files(const text::Tokenizer& tokenizer, const EncodeOptions& options, const data::ReadOptions& read,
                  BadLineReport& bad) {
  data::BlockReader reader(data::find_text_files(options.files), read);
  std::string open_text;  // of a document that the next block goes on with
  bool open = false;
  data::ordered_map<data::Block, EncodedBlock>(
      thread_count(options.threads), [&](data::Block& block) { return reader.next(block); },
      [&](data::Block& block) {
        return encode_block(data::parse_block(block, reader.files()[block.begin.file], read), tokenizer, options);
      },
      [&](EncodedBlock& encoded) {
        bad.add(encoded.block);
        for (const EncodedPart& part : encoded.parts) {
          if (part.encoded) {
            if (!(std::cout << part.text))
              throw Error(Exit::file, {.what = "cannot write the output", .where = "stdout"});
            continue;
          }
          if (!part.begins && !open && part.text.empty()) continue;  // what it would go on with was left out
          open_text += part.text;
          open = !part.ends;
          if (open) continue;
          std::cout << encoded_line(tokenizer, options, open_text);
          open_text.clear();
        }
      });
}

/// A program that waits for what is typed looks hung.
void say_if_typed() {
  if (::isatty(STDIN_FILENO)) log::info("reading from standard input; end with Ctrl-D");
}

/// Standard input is one text (or its lines), treated as a file of it would be.
void encode_stdin(const text::Tokenizer& tokenizer, const EncodeOptions& options, const data::ReadOptions& read,
                  BadLineReport& bad) {
  say_if_typed();
  data::Block block;
  block.bytes.assign(std::istreambuf_iterator<char>(std::cin), {});
  const data::SourceFile source{"stdin", block.bytes.size(), data::FileKind::text};
  const EncodedBlock encoded = encode_block(data::parse_block(block, source, read), tokenizer, options);
  for (const EncodedPart& part : encoded.parts) std::cout << part.text;
  bad.add(encoded.block);
}

/// Texts of the command line are taken to the byte.
void encode_arguments(const text::Tokenizer& tokenizer, const EncodeOptions& options, const data::ReadOptions& read,
                      BadLineReport& bad) {
  for (size_t i = 0; i < options.texts.size(); ++i) {
    std::string text = options.texts[i];
    if (const size_t at = find_invalid_utf8(text); at != text.npos) {
      const Error error(Exit::data, {.what = "not UTF-8: byte " + std::to_string(at + 1) + " of the text",
                                     .where = "argument " + std::to_string(i + 1),
                                     .hint = "--bad-lines replace puts U+FFFD for what is not UTF-8"});
      if (read.on_bad_line == data::BadLine::stop) throw error;
      data::ParsedBlock report;
      report.complaints = {error.what()};
      const bool replace = read.on_bad_line == data::BadLine::replace;
      ++(replace ? report.replaced : report.skipped);
      bad.add(report);
      if (!replace) continue;
      text = text::replace_invalid_utf8(text);
    }
    std::cout << encoded_line(tokenizer, options, text);
  }
}

/// Rows with two texts, a line of JSON each.
void encode_pairs(const text::Tokenizer& tokenizer, const EncodeOptions& options, std::istream& rows,
                  const std::string& name) {
  std::string line;
  for (size_t number = 1; std::getline(rows, line); ++number) {
    const auto fail = [&](const std::string& what, const std::string& expected) {
      throw Error(Exit::data, {.what = what, .where = name + ":" + std::to_string(number), .expected = expected});
    };
    if (line.find_first_not_of(" \t\r") == line.npos) continue;
    const auto row = nlohmann::json::parse(line, nullptr, false);
    if (!row.is_object()) fail("not a row of JSON", "an object a line");
    const auto text_of = [&](const std::string& key) {
      const auto found = row.find(key);
      if (found == row.end() || !found->is_string()) fail("a row without the text '" + key + "'", "a string");
      return found->get<std::string>();
    };
    const text::Encoding encoding = tokenizer.encode_pair(text_of(options.read.text_field), text_of(options.pair_field),
                                                          options.add_special_tokens);
    std::cout << line_of(tokenizer, options, encoding.ids, &encoding.type_ids);
  }
}

void encode_pairs(const text::Tokenizer& tokenizer, const EncodeOptions& options) {
  if (!options.texts.empty())
    throw Error(Exit::usage, {.what = "--pair-field names a key of rows; the command line has texts",
                              .expected = "-f FILE.jsonl, or rows on standard input"});
  if (options.files.empty()) {
    say_if_typed();
    encode_pairs(tokenizer, options, std::cin, "stdin");
    return;
  }
  for (const data::SourceFile& file : data::find_text_files(options.files)) {
    if (file.kind != data::FileKind::jsonl)
      throw Error(Exit::usage, {.what = "pairs of texts are rows of JSON lines",
                                .where = file.path.string(),
                                .expected = "a .jsonl or .ndjson file"});
    std::ifstream rows(file.path);
    if (!rows) throw Error(Exit::file, {.what = "cannot open the file", .where = file.path.string()});
    encode_pairs(tokenizer, options, rows, file.path.string());
  }
}

void refuse_idle_flags(const CLI::App& app, const EncodeOptions& options) {
  if (options.json) refuse_idle(app, {"--show"}, "with --json, which gives ids and tokens");
  if (!options.pair_field.empty()) {
    refuse_idle(app, {"--bad-lines", "--threads", "--document"}, "with --pair-field");
  } else if (options.files.empty()) {
    refuse_idle(app, {"--text-field", "--threads"}, "without files");
    if (!options.texts.empty()) refuse_idle(app, {"--document"}, "on texts of the command line");
  }
}

int encode(const EncodeOptions& options) {
  if (!options.pair_field.empty()) {
    encode_pairs(*text::load_tokenizer(options.tokenizer), options);
    return 0;
  }
  data::ReadOptions read = options.read.options();
  read.keep_empty = true;  // a line of output for every row
  const auto tokenizer = text::load_tokenizer(options.tokenizer);
  BadLineReport bad;
  encode_arguments(*tokenizer, options, read, bad);
  if (!options.files.empty()) encode_files(*tokenizer, options, read, bad);
  if (options.texts.empty() && options.files.empty()) encode_stdin(*tokenizer, options, read, bad);
  bad.finish();
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
  say_if_typed();
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
  add_tokenizer_option(*sub, options->tokenizer);
  sub->add_option("text", options->texts, "Texts; without texts and files, stdin is one text");
  sub->add_option("-f,--file", options->files,
                  "Files, folders or patterns: a row of .jsonl, .json, .csv or .tsv is a text");
  options->read.add_to(*sub);
  sub->add_option("--threads", options->threads, "0: one for each core")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  sub->add_option("--show", options->show, "ids or tokens (--json gives both)")
      ->check(CLI::IsMember({"ids", "tokens"}))
      ->capture_default_str();
  sub->add_flag("--add-special-tokens", options->add_special_tokens, "With what the post-processor adds (bos, eos)");
  sub->add_option("--pair-field", options->pair_field,
                  "The key of a second text in rows of .jsonl: the two are encoded together, and --json shows their\n"
                  "type_ids (token_type_ids)");
  sub->footer(
      "Examples:\n"
      "  llmtk tokenize encode -t gpt2-folder \"Hello, 世界\"\n"
      "  llmtk tokenize encode -t gpt2-folder --show tokens \"Hello, 世界\"\n"
      "  llmtk tokenize encode -t gpt2-folder --json -f rows.jsonl\n"
      "  llmtk tokenize encode -t bert-folder --json -f pairs.jsonl --pair-field text_pair --add-special-tokens");
  sub->callback([&context, options, sub] {
    context.run = [&context, options, sub] {
      options->json = context.common.json;
      refuse_idle_flags(*sub, *options);
      return encode(*options);
    };
  });
}

void add_decode_command(CLI::App& app, TokenizeContext& context) {
  auto options = std::make_shared<DecodeOptions>();
  CLI::App* sub = app.add_subcommand("decode", "The text of ids");
  add_tokenizer_option(*sub, options->tokenizer);
  sub->add_option("ids", options->ids, "Ids; without any, every line of stdin is a list of ids or {\"ids\": [...]}");
  sub->add_flag("--skip-special-tokens", options->skip_special_tokens, "Without special tokens");
  sub->footer(
      "Examples:\n"
      "  llmtk tokenize decode -t gpt2-folder 15496 995\n"
      "  llmtk tokenize encode -t gpt2-folder --json \"Hello\" | llmtk tokenize decode -t gpt2-folder");
  sub->callback(
      [&context, options] { context.run = [&context, options] { return decode(*options, context.common.json); }; });
}

}  // namespace llmtk
