// llmtk generate: prompts -> tokens -> model -> text, streamed as it comes.

#include "generate/generate.h"

#include <c10/util/Exception.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <iostream>
#include <nlohmann/json.hpp>
#include <span>

#include "app.h"
#include "core/error.h"
#include "core/log.h"
#include "core/utf8.h"
#include "generate_chat.h"
#include "generate_fill_mask.h"
#include "generate_flags.h"
#include "generate_prompts.h"
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
    "  llmtk generate gpt2 --prompt Hello --do-sample --num-return-sequences 3\n"
    "  llmtk generate t5-small --prompt \"translate English to German: Good morning.\" --num-beams 4\n"
    "  llmtk generate bert-base-uncased --fill-mask --prompt \"Paris is the [MASK] of France.\"";

struct Options {
  CommonOptions common;
  ModelOptions model;
  GenerationFlags flags;
  ChatOptions chat;
  std::vector<std::string> prompts;
  std::string prompts_file;
  bool add_special_tokens = true;
  bool full_text = false;
  bool timings = false;
  bool fill_mask = false;
  int64_t batch_size = 8;
  SpeculationFlags speculation;
  nn::CacheType cache_type = nn::CacheType::plain;
};

void add_options(CLI::App& app, Options& o) {
  add_model_options(app, o.model);
  auto* prompt = app.add_option("-p,--prompt", o.prompts, "A text to go on with; may be given several times")
                     ->allow_extra_args(false);
  app.add_option(
         "--prompts-file", o.prompts_file,
         "One prompt a line, or JSON lines ({\"prompt\": ...} or {\"text\": ...}, and \"adapter\": the name of one "
         "that --adapter loaded) in a .jsonl file; -: standard input, where a line that begins with { is JSON. Without "
         "prompts, standard input as a whole is the prompt")
      ->excludes(prompt);
  app.add_flag("--add-special-tokens,!--no-add-special-tokens", o.add_special_tokens,
               "Whether the tokenizer puts its own special tokens (bos) around a prompt; default: yes");
  app.add_option("--batch-size", o.batch_size, "Sequences that run together")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 20))
      ->capture_default_str();
  app.add_flag("--return-full-text", o.full_text, "Print the prompt before its continuation");
  app.add_flag("--timings", o.timings, "Say on stderr where the time went");
  app.add_flag("--fill-mask", o.fill_mask,
               "What an encoder would write in place of each mask of a prompt: --top-k (5) candidates");
  add_common_options(app, o.common, kExamples);
  add_generation_flags(app, o.flags);
  add_speculation_flags(app, o.speculation);
  const std::map<std::string, nn::CacheType> cache_types = {{"auto", nn::CacheType::plain},
                                                            {"int8", nn::CacheType::int8}};
  app.add_option("--kv-cache-dtype", o.cache_type,
                 "Keys and values of what was read: auto (the model's dtype) or int8, half of bfloat16's memory")
      ->transform(CLI::CheckedTransformer(cache_types))
      ->option_text("TEXT [auto]")
      ->group("Speed and memory");
  add_chat_options(app, o.chat);
  app.footer("Defaults are those of the model's generation_config.json, else of transformers.\n\nExamples:\n" +
             std::string(kExamples));
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
  if (completion.score) json["score"] = *completion.score;
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
          {"decode_tokens_per_second", rate(t.decode_new_tokens, t.decode)},
          {"proposed_tokens", t.proposed},
          {"accepted_tokens", t.accepted}};
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
  const auto proposed = t["proposed_tokens"].get<int64_t>(), accepted = t["accepted_tokens"].get<int64_t>();
  if (proposed == 0) return;
  std::snprintf(text, sizeof text, "of %lld proposed tokens %lld were taken (%.0f %%)",
                static_cast<long long>(proposed), static_cast<long long>(accepted),
                100.0 * static_cast<double>(accepted) / static_cast<double>(proposed));
  log::info(text);
}

int run_chat(const Options& o, const generate::GenerationConfig& config) {
  ChatOptions chat = o.chat;
  chat.turns = o.prompts;
  chat.json = o.common.json;
  chat.speculation = o.speculation;
  chat.cache_type = o.cache_type;
  return llmtk::run_chat(chat, o.model, o.flags, config);
}

void add(generate::Timings& sum, const generate::Timings& more) {
  if (sum.prompt_tokens == 0) sum.first_token = more.first_token;
  sum.prefill += more.prefill;
  sum.decode += more.decode;
  sum.prompt_tokens += more.prompt_tokens;
  sum.prefill_new_tokens += more.prefill_new_tokens;
  sum.decode_new_tokens += more.decode_new_tokens;
  sum.proposed += more.proposed;
  sum.accepted += more.accepted;
}

/// Everything that is to be written, in the order of the prompts: those that stand together and use the same adapters
/// run together.
class Writer {
 public:
  Writer(const Options& options, const std::vector<Prompt>& prompts, const generate::GenerationConfig& config,
         const std::optional<generate::Speculation>& speculation)
      : options_(options),
        prompts_(prompts),
        config_(config),
        speculation_(speculation),
        printer_(options, prompts, config.num_return_sequences) {}

  generate::Timings write(OpenModel& open) {
    encode(open);
    for (size_t begin = 0, end = 0; begin < prompts_.size(); begin = end) {
      while (end < prompts_.size() && prompts_[end].adapters == prompts_[begin].adapters) ++end;
      const Prompt& first = prompts_[begin];
      if (first.adapters) open.adapters.choose(*first.adapters, first.where);
      if (!first.adapters) open.adapters.choose_all();
      write(open, begin, end - begin);
    }
    return timings_;
  }

 private:
  void encode(const OpenModel& open) {
    for (const Prompt& prompt : prompts_)
      ids_.push_back(encode_text(*open.tokenizer, prompt.text, options_.add_special_tokens, prompt.where));
  }

  void write(OpenModel& open, size_t begin, size_t count) {
    generate::Timings timings;
    generate::GenerateOptions options{.batch_size = options_.batch_size,
                                      .first_prompt = begin,
                                      .logprobs = options_.common.json,
                                      .cache_type = options_.cache_type,
                                      .speculation = speculation_,
                                      .timings = &timings};
    for (size_t i = 0; i < count; ++i) options.places.push_back(prompts_[begin + i].where);
    const size_t first_row = begin * static_cast<size_t>(config_.num_return_sequences);
    if (options_.common.json) {
      options.on_completion = [&](const generate::Completion& completion) {
        const size_t at = completion.prompt;
        print_json(to_json(completion, prompts_[at], ids_[at], *open.tokenizer));
      };
    } else {
      options.on_text = [&](size_t row, std::string_view piece) { printer_.text(first_row + row, piece); };
      options.on_completion = [&](const generate::Completion&) { printer_.finish_row(); };
    }
    generate::generate(*open.model, *open.tokenizer, std::span(ids_).subspan(begin, count), config_, options);
    add(timings_, timings);
  }

  const Options& options_;
  const std::vector<Prompt>& prompts_;
  const generate::GenerationConfig& config_;
  const std::optional<generate::Speculation> speculation_;
  Printer printer_;
  std::vector<std::vector<text::TokenId>> ids_;  // of each prompt
  generate::Timings timings_;
};

int run(const Options& o) {
  // The flags first: standard input and a large model take their time.
  auto config = generate::load_config(io::find_model(o.model.model), nullptr);
  apply_flags(o.flags, config);
  if (o.chat.chat) return run_chat(o, config);
  const auto prompts = read_prompts(o.prompts, o.prompts_file);
  const auto start = Clock::now();
  OpenModel open = open_model(o.model);
  check_flags(o.flags, *open.model);
  const OpenSpeculation speculation = open_speculation(o.speculation, o.model, *open.tokenizer);
  generate::adopt_special_tokens(config, *open.tokenizer);
  const double load_seconds = std::chrono::duration<double>(Clock::now() - start).count();
  Json summary;
  try {
    summary = to_json(Writer(o, prompts, config, speculation.speculation).write(open), load_seconds);
  } catch (const c10::OutOfMemoryError&) {
    throw Error(Exit::runtime, {.what = "out of memory on " + o.model.device,
                                .hint = "lower --batch-size or --max-new-tokens, or use --dtype bfloat16"});
  }
  if (o.common.json) {
    Json last = {{"timings", summary}};
    if (config.do_sample) last["seed"] = config.seed;
    print_json(last);
  }
  if (o.timings) log_timings(summary);
  if (config.do_sample && !o.flags.seed) log::debug("drawn with --seed " + std::to_string(config.seed));
  return 0;
}

int run_fill_mask(const CLI::App& app, const Options& o) {
  refuse_flags_beside_fill_mask(app);
  const FillMaskOptions options{
      .model = o.model, .top_k = o.flags.top_k.value_or(5), .batch_size = o.batch_size, .json = o.common.json};
  const auto prompts = read_prompts(o.prompts, o.prompts_file);
  refuse_adapters(prompts, "with --fill-mask");
  return fill_masks(options, prompts);
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Writes text with a model", "llmtk generate");
  Options options;
  add_options(app, options);
  return run_app(app, options.common, argc, argv, [&] {
    check_chat_options(app, options.chat);
    if (options.common.json) refuse_idle(app, {"--return-full-text"}, "with --json, which holds the prompt");
    return options.fill_mask ? run_fill_mask(app, options) : run(options);
  });
}
