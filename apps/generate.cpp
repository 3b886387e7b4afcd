// llmtk generate: prompts -> tokens -> model -> text, streamed as it comes.

#include "generate/generate.h"

#include <c10/util/Exception.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>
#include <optional>
#include <random>

#include "app.h"
#include "core/error.h"
#include "core/file.h"
#include "core/log.h"
#include "core/utf8.h"
#include "io/model_folder.h"
#include "open_model.h"

using namespace llmtk;
using Json = nlohmann::ordered_json;
using Clock = std::chrono::steady_clock;

namespace {

constexpr const char* kExamples =
    "  llmtk generate gpt2 --prompt \"Once upon a time\" --max-new-tokens 50\n"
    "  llmtk generate runs/poems --prompt 床前明月光 --do-sample --top-p 0.9 --temperature 0.8 --seed 1\n"
    "  llmtk generate gpt2 --prompts-file prompts.txt --batch-size 16 --json > answers.jsonl\n"
    "  echo -n \"The capital of France is\" | llmtk generate gpt2 --stop-strings . --device cpu\n"
    "  llmtk generate gpt2 --prompt Hello --do-sample --num-return-sequences 3";

/// The flags that set a value of the config; what was not given leaves the model's generation_config.json in force.
struct Flags {
  std::optional<int64_t> max_new_tokens, max_length, min_new_tokens, top_k, num_return_sequences;
  std::optional<double> temperature, top_p, min_p, typical_p, repetition_penalty;
  std::optional<bool> do_sample;
  std::optional<uint64_t> seed;
  std::vector<std::string> stop_strings;
  std::vector<text::TokenId> eos_token_ids;
};

struct Options {
  CommonOptions common;
  ModelOptions model;
  Flags flags;
  std::vector<std::string> prompts;
  std::string prompts_file;
  bool add_special_tokens = true;
  bool full_text = false;
  bool timings = false;
  int64_t batch_size = 8;
};

struct Prompt {
  std::string text, where;
};

void add_options(CLI::App& app, Options& o) {
  add_model_options(app, o.model);
  auto* prompt = app.add_option("-p,--prompt", o.prompts, "A text to go on with; may be given several times")
                     ->allow_extra_args(false);
  app.add_option(
         "--prompts-file", o.prompts_file,
         "One prompt a line, or JSON lines ({\"prompt\": ...} or {\"text\": ...}) in a .jsonl file; -: standard "
         "input, where a line that begins with { is JSON. Without prompts, standard input as a whole is the prompt")
      ->excludes(prompt);
  app.add_flag("--add-special-tokens,!--no-add-special-tokens", o.add_special_tokens,
               "Whether the tokenizer puts its own special tokens (bos) around a prompt; default: yes");
  app.add_option("--batch-size", o.batch_size, "Sequences that run together")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 20))
      ->capture_default_str();
  app.add_flag("--return-full-text", o.full_text, "Print the prompt before its continuation");
  app.add_flag("--timings", o.timings, "Say on stderr where the time went");
  add_common_options(app, o.common, kExamples);

  Flags& f = o.flags;
  const char* how_long = "How long";
  app.add_option("--max-new-tokens", f.max_new_tokens,
                 "Tokens to write at most; 20 where neither this nor "
                 "--max-length nor the model says anything")
      ->group(how_long);
  app.add_option("--max-length", f.max_length, "Prompt and continuation together, in tokens")->group(how_long);
  app.add_option("--min-new-tokens", f.min_new_tokens, "No end of sequence before so many")->group(how_long);
  app.add_option("--stop-strings,--stop", f.stop_strings, "End where this is written; may be given several times")
      ->allow_extra_args(false)
      ->group(how_long);
  app.add_option("--eos-token-id", f.eos_token_ids, "End at this token; may be given several times")
      ->allow_extra_args(false)
      ->group(how_long);
  const char* which = "Which token comes next";
  // Not bound to the member: CLI11 would set it to false where the flag is not given, over the model's own setting.
  app.add_flag_function(
         "--do-sample,!--no-do-sample", [&f](int64_t count) { f.do_sample = count > 0; },
         "Draw the next token; otherwise the most probable one comes")
      ->group(which);
  app.add_option("--temperature", f.temperature, "Below 1: safer, above 1: wilder")->group(which);
  app.add_option("--top-k", f.top_k, "Among the k most probable; 0: all")->group(which);
  app.add_option("--top-p", f.top_p, "Among the most probable that together have this probability")->group(which);
  app.add_option("--min-p", f.min_p, "Among those at least so many times as probable as the best")->group(which);
  app.add_option("--typical-p", f.typical_p, "Locally typical sampling")->group(which);
  app.add_option("--repetition-penalty", f.repetition_penalty, "Above 1: less of what was already there")->group(which);
  app.add_option("--num-return-sequences", f.num_return_sequences, "Continuations of each prompt")->group(which);
  app.add_option("--seed", f.seed, "The same seed gives the same text; default: another one each time")->group(which);
  app.footer("Defaults are those of the model's generation_config.json, else of transformers.\n\nExamples:\n" +
             std::string(kExamples));
}

/// A flag that would have no influence is a mistake of its user.
void refuse_idle_flags(const Flags& f, const generate::GenerationConfig& config) {
  if (config.do_sample) return;
  const std::pair<const char*, bool> idle[] = {{"--temperature", f.temperature.has_value()},
                                               {"--top-k", f.top_k.has_value()},
                                               {"--top-p", f.top_p.has_value()},
                                               {"--min-p", f.min_p.has_value()},
                                               {"--typical-p", f.typical_p.has_value()},
                                               {"--seed", f.seed.has_value()}};
  for (const auto& [flag, given] : idle)
    if (given)
      throw Error(Exit::usage,
                  {.what = std::string(flag) + " has no effect without sampling", .hint = "add --do-sample"});
}

void apply(const Flags& f, generate::GenerationConfig& config) {
  const auto set = [](const auto& flag, auto& value) {
    if (flag) value = *flag;
  };
  if (f.max_length && !f.max_new_tokens) config.max_new_tokens.reset();  // the model's own must not win over the user's
  set(f.max_new_tokens, config.max_new_tokens);
  set(f.max_length, config.max_length);
  set(f.min_new_tokens, config.min_new_tokens);
  set(f.do_sample, config.do_sample);
  set(f.temperature, config.temperature);
  set(f.top_k, config.top_k);
  set(f.top_p, config.top_p);
  set(f.min_p, config.min_p);
  set(f.typical_p, config.typical_p);
  set(f.repetition_penalty, config.repetition_penalty);
  set(f.num_return_sequences, config.num_return_sequences);
  if (!f.stop_strings.empty()) config.stop_strings = f.stop_strings;
  if (!f.eos_token_ids.empty()) config.eos_token_ids = f.eos_token_ids;
  refuse_idle_flags(f, config);
  config.seed = f.seed.value_or(config.do_sample ? std::random_device{}() : 0);
  config.validate();
}

std::string prompt_of_json(const std::string& line, const std::string& where) {
  const auto row = Json::parse(line, nullptr, /*allow_exceptions=*/false);
  for (const char* key : {"prompt", "text"})
    if (row.is_object() && row.contains(key) && row[key].is_string()) return row[key].get<std::string>();
  throw Error(Exit::data,
              {.what = "a row without a prompt",
               .where = where,
               .got = row.is_discarded() ? "not JSON" : std::string(cut_to_width(line, 60)),
               .expected = R"({"prompt": "..."} or {"text": "..."})",
               .hint = "a prompt that itself begins with { goes in a .txt file, or as a JSON string in such a row"});
}

enum class Lines { plain, json, either };  // either: JSON where a line begins with {

std::vector<Prompt> read_lines(std::istream& in, const std::string& name, Lines kind) {
  std::vector<Prompt> prompts;
  int64_t number = 0;
  for (std::string line; std::getline(in, line);) {
    ++number;
    if (!line.empty() && line.back() == '\r') line.pop_back();
    if (line.find_first_not_of(" \t") == std::string::npos) continue;
    const std::string where = name + ":" + std::to_string(number);
    const bool json = kind == Lines::json || (kind == Lines::either && line.starts_with('{'));
    prompts.push_back({json ? prompt_of_json(line, where) : line, where});
  }
  if (prompts.empty()) throw Error(Exit::data, {.what = "no prompts", .where = name, .expected = "one a line"});
  return prompts;
}

/// A terminal says nothing of its own while a program waits for input.
void say_what_is_awaited(const std::string& what) {
  if (::isatty(STDIN_FILENO)) log::info("reading " + what + " from standard input; end with Ctrl-D");
}

std::vector<Prompt> read_prompts(const Options& o) {
  std::vector<Prompt> prompts;
  for (size_t i = 0; i < o.prompts.size(); ++i) prompts.push_back({o.prompts[i], "--prompt " + std::to_string(i + 1)});
  if (!prompts.empty()) return prompts;
  if (o.prompts_file == "-") {
    say_what_is_awaited("prompts, one a line");
    return read_lines(std::cin, "standard input", Lines::either);
  }
  if (!o.prompts_file.empty()) {
    std::ifstream file(o.prompts_file, std::ios::binary);
    if (!file || fs::is_directory(o.prompts_file))
      throw Error(Exit::file, {.what = "cannot read the prompts", .where = o.prompts_file});
    return read_lines(file, o.prompts_file,
                      fs::path(o.prompts_file).extension() == ".jsonl" ? Lines::json : Lines::plain);
  }
  say_what_is_awaited("the prompt");
  return {{std::string(std::istreambuf_iterator<char>(std::cin), {}), "standard input"}};
}

/// Continuations on stdout in order: that of the first unfinished row as it comes, the rows behind it held until then.
class Printer {
 public:
  Printer(const Options& options, const std::vector<Prompt>& prompts, int64_t sequences)
      : options_(options),
        prompts_(prompts),
        sequences_(static_cast<size_t>(sequences)),
        several_(prompts.size() * sequences_ > 1) {}

  void text(size_t row, std::string_view piece) {
    if (row == shown_) return show(piece);
    if (held_.size() <= row) held_.resize(row + 1);
    held_[row] += piece;
  }
  void finish_row() {
    show("\n");
    ++shown_;
    titled_ = false;
    if (shown_ < held_.size() && !held_[shown_].empty()) show(std::exchange(held_[shown_], {}));
  }

 private:
  /// Under its title, which waits for the first piece: an error comes alone.
  void show(std::string_view piece) {
    if (!std::exchange(titled_, true)) title(shown_);
    write(piece);
  }
  void title(size_t row) {
    const Prompt& prompt = prompts_[row / sequences_];
    if (several_) {
      write((row ? "\n=== " : "=== ") + std::string(cut_to_width(one_line(prompt.text), 60)));
      if (sequences_ > 1) write(" (" + std::to_string(row % sequences_ + 1) + ")");
      write("\n");
    }
    if (options_.full_text) write(prompt.text);
  }
  /// To a terminal without what would move its cursor; to a file or a pipe as it is.
  static void write(std::string_view text) {
    static const bool terminal = ::isatty(STDOUT_FILENO);
    const std::string shown = terminal ? printable(text) : "";
    if (terminal) text = shown;
    if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size() || std::fflush(stdout) != 0)
      throw Error(Exit::file, {.what = "cannot write the output", .where = "stdout"});
  }

  const Options& options_;
  const std::vector<Prompt>& prompts_;
  size_t sequences_;
  bool several_;
  size_t shown_ = 0;  // the first row that is not finished
  bool titled_ = false;
  std::vector<std::string> held_;
};

void print_json(const Json& json) {
  std::cout << json.dump(-1, ' ', false, Json::error_handler_t::replace) << std::endl;
}

Json to_json(const generate::Completion& completion, const Prompt& prompt, const std::vector<text::TokenId>& prompt_ids,
             const text::Tokenizer& tokenizer) {
  Json json = {{"prompt_index", completion.prompt}, {"sequence", completion.sequence}, {"prompt", prompt.text},
               {"prompt_ids", prompt_ids},          {"text", completion.text},         {"ids", completion.ids}};
  Json& tokens = json["tokens"] = Json::array();
  for (const auto id : completion.ids) tokens.push_back(tokenizer.id_to_token(id));
  json["logprobs"] = completion.logprobs;
  json["finish_reason"] = to_string(completion.finish_reason);
  if (completion.finish_reason == generate::FinishReason::stop_string) json["stop_string"] = completion.stop_string;
  return json;
}

double rate(int64_t tokens, double seconds) { return seconds > 0 ? static_cast<double>(tokens) / seconds : 0; }

Json to_json(const generate::Timings& t, double load_seconds) {
  return {{"load_seconds", load_seconds},
          {"first_token_seconds", t.first_token},
          {"prefill_seconds", t.prefill},
          {"decode_seconds", t.decode},
          {"prompt_tokens", t.prompt_tokens},
          {"new_tokens", t.prefill_new_tokens + t.decode_new_tokens},
          {"prefill_tokens_per_second", rate(t.prompt_tokens, t.prefill)},
          {"decode_tokens_per_second", rate(t.decode_new_tokens, t.decode)}};
}

void log_timings(const Json& t) {
  char text[256];
  std::snprintf(
      text, sizeof text,
      "load %.2f s, first token %.3f s, prompt %lld tokens (%.0f tokens/s), written %lld tokens (%.1f tokens/s)",
      t["load_seconds"].get<double>(), t["first_token_seconds"].get<double>(), t["prompt_tokens"].get<long long>(),
      t["prefill_tokens_per_second"].get<double>(), t["new_tokens"].get<long long>(),
      t["decode_tokens_per_second"].get<double>());
  log::info(text);
}

int run(const Options& o) {
  // The flags first: standard input and a large model take their time.
  auto config = generate::load_config(io::find_model(o.model.model), nullptr);
  apply(o.flags, config);
  const auto prompts = read_prompts(o);
  const auto start = Clock::now();
  const OpenModel open = open_model(o.model);
  generate::adopt_special_tokens(config, *open.tokenizer);
  generate::Timings timings;
  generate::GenerateOptions options{.batch_size = o.batch_size, .logprobs = o.common.json, .timings = &timings};
  std::vector<std::vector<text::TokenId>> ids;
  for (const Prompt& prompt : prompts) {
    ids.push_back(encode_text(*open.tokenizer, prompt.text, o.add_special_tokens, prompt.where));
    options.places.push_back(prompt.where);
  }
  const double load_seconds = std::chrono::duration<double>(Clock::now() - start).count();

  Printer printer(o, prompts, config.num_return_sequences);
  if (o.common.json) {
    options.on_completion = [&](const generate::Completion& completion) {
      print_json(to_json(completion, prompts[completion.prompt], ids[completion.prompt], *open.tokenizer));
    };
  } else {
    options.on_text = [&](size_t row, std::string_view piece) { printer.text(row, piece); };
    options.on_completion = [&](const generate::Completion&) { printer.finish_row(); };
  }
  try {
    generate::generate(*open.model, *open.tokenizer, ids, config, options);
  } catch (const c10::OutOfMemoryError&) {
    throw Error(Exit::runtime, {.what = "out of memory on " + o.model.device,
                                .hint = "lower --batch-size or --max-new-tokens, or use --dtype bfloat16"});
  }
  const Json summary = to_json(timings, load_seconds);
  if (o.common.json) {
    Json last = {{"timings", summary}};
    if (config.do_sample) last["seed"] = config.seed;
    print_json(last);
  }
  if (o.timings) log_timings(summary);
  if (config.do_sample && !o.flags.seed) log::debug("drawn with --seed " + std::to_string(config.seed));
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Writes text with a model", "llmtk generate");
  Options options;
  add_options(app, options);
  return run_app(app, options.common, argc, argv, [&] { return run(options); });
}
