#pragma once
// The parts of `llmtk tokenize`: each subcommand is added by a function of its own file.

#include <functional>
#include <string>

#include "app.h"
#include "data/reader.h"

namespace llmtk {

/// What the subcommands share: the common options, and the subcommand that the command line chose.
struct TokenizeContext {
  CommonOptions common;
  std::function<int()> run;
};

/// What the subcommands say of the files they read.
extern const char* const kInputsHelp;

void add_tokenizer_option(CLI::App& sub, std::string& tokenizer);

/// How text is read, the same in every subcommand that reads files.
struct ReadFlags {
  std::string text_field = "text", document = "file", bad_lines = "stop";

  void add_to(CLI::App& sub);
  data::ReadOptions options() const;
};

/// Counts bad lines over the blocks of a run and warns of the first few.
class BadLineReport {
 public:
  void add(const data::ParsedBlock& block);
  void finish() const;

 private:
  uint64_t skipped_ = 0, replaced_ = 0, shown_ = 0;
};

/// The number of threads that `--threads N` asks for; 0: one for each core.
int thread_count(int asked);

void add_encode_command(CLI::App& app, TokenizeContext& context);
void add_decode_command(CLI::App& app, TokenizeContext& context);
void add_count_command(CLI::App& app, TokenizeContext& context);
void add_render_command(CLI::App& app, TokenizeContext& context);
void add_train_command(CLI::App& app, TokenizeContext& context);
void add_shard_command(CLI::App& app, TokenizeContext& context);

}  // namespace llmtk
