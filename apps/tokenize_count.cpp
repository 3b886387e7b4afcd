// llmtk tokenize count: how many tokens files come to.

#include <chrono>
#include <cstdio>
#include <ctime>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "core/log.h"
#include "core/utf8.h"
#include "data/files.h"
#include "data/ordered_map.h"
#include "text/tokenizer.h"
#include "tokenize.h"

namespace llmtk {
namespace {

using Json = nlohmann::ordered_json;

struct CountOptions {
  std::string tokenizer;
  std::vector<std::string> inputs;
  ReadFlags read;
  int threads = 1;
};

struct Counts {
  uint64_t documents = 0, bytes = 0, characters = 0, tokens = 0;
  double encode_seconds = 0;  // of processor time, all threads

  void add(const Counts& other) {
    documents += other.documents, bytes += other.bytes, characters += other.characters, tokens += other.tokens;
    encode_seconds += other.encode_seconds;
  }
  double bytes_per_token() const { return tokens ? static_cast<double>(bytes) / static_cast<double>(tokens) : 0; }
};

struct CountedBlock {
  size_t file = 0;
  Counts counts;
  data::ParsedBlock block;  // its documents are gone
};

double thread_seconds() {
  timespec now{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

CountedBlock count_block(const data::Block& block, const data::SourceFile& file, const data::ReadOptions& read,
                         const text::Tokenizer& tokenizer) {
  CountedBlock out{.file = block.begin.file, .counts = {}, .block = data::parse_block(block, file, read)};
  thread_local std::vector<text::TokenId> ids;
  const double begin = thread_seconds();
  for (const auto& document : out.block.documents) {
    ids.clear();
    tokenizer.encode(document.text, ids);
    out.counts.tokens += ids.size();
  }
  out.counts.encode_seconds = thread_seconds() - begin;
  for (const auto& document : out.block.documents) {
    out.counts.bytes += document.text.size();
    out.counts.characters += count_code_points(document.text);
  }
  out.counts.documents = out.block.documents.size();
  if (out.block.continues && out.counts.documents > 0) --out.counts.documents;  // counted where it began
  out.block.documents.clear();
  return out;
}

Json as_json(const Counts& counts, const std::string& name) {
  return {{"file", name},
          {"documents", counts.documents},
          {"bytes", counts.bytes},
          {"characters", counts.characters},
          {"tokens", counts.tokens},
          {"bytes_per_token", counts.bytes_per_token()}};
}

void print(const Json& row) { std::cout << row.dump(-1, ' ', false, Json::error_handler_t::replace) << '\n'; }

void print(const Counts& counts, const std::string& name) {
  char line[160];
  std::snprintf(line, sizeof line, "%12llu tokens %12llu characters %12llu bytes %6.2f bytes/token  ",
                static_cast<unsigned long long>(counts.tokens), static_cast<unsigned long long>(counts.characters),
                static_cast<unsigned long long>(counts.bytes), counts.bytes_per_token());
  std::cout << line << name << '\n';
}

int count(const CountOptions& options, bool json) {
  const data::ReadOptions read = options.read.options();
  const auto tokenizer = text::load_tokenizer(options.tokenizer);
  data::BlockReader reader(data::find_text_files(options.inputs), read);
  const auto& files = reader.files();
  const int threads = thread_count(options.threads);
  const auto begin = std::chrono::steady_clock::now();
  std::vector<Counts> counts(files.size());
  size_t printed = 0;
  const auto print_before = [&](size_t end) {
    for (; printed < end; ++printed) {
      const std::string name = files[printed].path.string();
      json ? print(as_json(counts[printed], name)) : print(counts[printed], name);
    }
  };
  BadLineReport bad;
  data::ordered_map<data::Block, CountedBlock>(
      threads, [&](data::Block& block) { return reader.next(block); },
      [&](data::Block& block) { return count_block(block, files[block.begin.file], read, *tokenizer); },
      [&](CountedBlock& part) {
        print_before(part.file);
        counts[part.file].add(part.counts);
        bad.add(part.block);
      });
  print_before(files.size());
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  bad.finish();
  Counts total;
  for (const Counts& one : counts) total.add(one);
  if (json) {
    Json row = as_json(total, "");
    row["file"] = nullptr;
    row["files"] = files.size();
    row["threads"] = threads;
    row["seconds"] = seconds;
    row["encode_seconds"] = total.encode_seconds;
    print(row);
  } else if (files.size() > 1) {
    print(total, "total");
  }
  return 0;
}

}  // namespace

void add_count_command(CLI::App& app, TokenizeContext& context) {
  auto options = std::make_shared<CountOptions>();
  CLI::App* sub = app.add_subcommand("count", "How many tokens files come to");
  add_tokenizer_option(*sub, options->tokenizer);
  sub->add_option("inputs", options->inputs, kInputsHelp)->required();
  options->read.add_to(*sub);
  sub->add_option("--threads", options->threads, "0: one for each core")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  sub->footer(
      "With --json a row for each file, then one for all with \"file\": null and the times: seconds by the clock,\n"
      "encode_seconds of processor time in the tokenizer alone.\n\n"
      "Examples:\n"
      "  llmtk tokenize count -t gpt2-folder corpus/*.txt rows.jsonl");
  sub->callback(
      [&context, options] { context.run = [&context, options] { return count(*options, context.common.json); }; });
}

}  // namespace llmtk
