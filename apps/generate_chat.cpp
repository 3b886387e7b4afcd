#include "generate_chat.h"

#include <signal.h>
#include <unistd.h>

#include <cstdio>
#include <iostream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <optional>
#include <sstream>

#include "core/error.h"
#include "core/log.h"
#include "core/utf8.h"
#include "generate/generate.h"
#include "generate_chat_line.h"
#include "io/json.h"
#include "text/chat_template.h"

namespace llmtk {
namespace {

using ChatJson = text::ChatInput::Json;

constexpr const char* kCommands =
    "/reset begins anew, /adapter NAME=WEIGHT ... switches (base: none, all: as at the start), /exit or Ctrl-D ends; "
    "Ctrl-C stops an answer";

volatile sig_atomic_t interrupt_count = 0;

/// What an interrupt throws out of the decode loop.
struct Interrupted {};

/// While it lives, Ctrl-C stops the answer instead of the program.
class StopOnInterrupt {
 public:
  StopOnInterrupt() {
    interrupt_count = 0;
    struct sigaction action {};
    action.sa_handler = [](int) { interrupt_count = interrupt_count + 1; };
    ::sigaction(SIGINT, &action, &before_);
  }
  ~StopOnInterrupt() { ::sigaction(SIGINT, &before_, nullptr); }
  StopOnInterrupt(const StopOnInterrupt&) = delete;
  StopOnInterrupt& operator=(const StopOnInterrupt&) = delete;

 private:
  struct sigaction before_ {};
};

void write(std::string_view text) {
  static const bool terminal = ::isatty(STDOUT_FILENO);
  const std::string shown = terminal ? printable(text) : "";
  if (terminal) text = shown;
  if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size() || std::fflush(stdout) != 0)
    throw Error(Exit::file, {.what = "cannot write the output", .where = "stdout"});
}

/// Something said, and its place for errors.
struct Turn {
  std::string text, where;
  bool typed = true;  // by somebody who may begin with a brace without meaning JSON
};

/// Turns from the command line, the terminal, or standard input.
class Turns {
 public:
  explicit Turns(const ChatOptions& options) : given_(options.turns), terminal_(in_terminal()) {}

  std::optional<Turn> next() {
    ++number_;
    if (!given_.empty()) {
      if (number_ > given_.size()) return std::nullopt;
      return Turn{given_[number_ - 1], "--prompt " + std::to_string(number_)};
    }
    const std::string where = "standard input:" + std::to_string(number_);
    if (terminal_) {
      auto line = read_terminal_line("> ", interrupted_);
      return line ? std::optional(Turn{std::move(*line), where}) : std::nullopt;
    }
    std::string line;
    if (!std::getline(std::cin, line)) return std::nullopt;
    if (line.ends_with('\r')) line.pop_back();
    return Turn{std::move(line), where, /*typed=*/false};
  }
  bool terminal() const { return terminal_ && given_.empty(); }
  bool interrupted() const { return interrupted_; }

 private:
  const std::vector<std::string>& given_;
  bool terminal_;
  bool interrupted_ = false;
  size_t number_ = 0;
};

class Conversation {
 public:
  Conversation(const ChatOptions& options, OpenModel open, OpenSpeculation speculation, text::ChatTemplate chat,
               generate::GenerationConfig config)
      : options_(options),
        open_(std::move(open)),
        speculation_(std::move(speculation)),
        template_(std::move(chat)),
        config_(std::move(config)),
        variables_(text::parse_template_variables(options.settings)) {
    reset();
  }

  void reset() {
    said_ = {};
    if (!options_.system.empty()) said_.messages.push_back({{"role", "system"}, {"content", options_.system}});
  }

  /// From now on the adapters of `words` answer; without words it says which there are. What was read with others is
  /// read again.
  void use_adapters(std::vector<std::string> words, const std::string& where) {
    if (!words.empty()) {
      const bool all = words == std::vector<std::string>{"all"};
      if (words == std::vector<std::string>{"base"}) words.clear();
      if (all ? open_.adapters.choose_all() : open_.adapters.choose(words, where)) prefix_ = {};
    }
    log::info("adapters, * those in use:\n" + open_.adapters.listing());
  }

  /// Says it and answers. What is said stays unsaid where this throws.
  void answer(const Turn& turn, bool stop_on_interrupt) {
    text::ChatInput before = said_;
    try {
      say(turn);
      reply(turn.where, stop_on_interrupt);
    } catch (...) {
      said_ = std::move(before);
      prefix_ = {};
      throw;
    }
  }

 private:
  /// Plain text is the user's; a line of JSON is a message, or a whole conversation that takes the place of this one.
  void say(const Turn& turn) {
    const size_t begin = turn.text.find_first_not_of(" \t");
    const bool json = begin != std::string::npos && (turn.text[begin] == '{' || turn.text[begin] == '[');
    const bool valid = json && ChatJson::accept(turn.text);
    if (json && !valid && !turn.typed)
      throw Error(Exit::data, {.what = "not JSON",
                               .where = turn.where,
                               .got = std::string(cut_to_width(printable(turn.text), 60)),
                               .hint = R"(a text that begins so is written as {"role": "user", "content": "..."})"});
    if (!valid) {
      if (find_invalid_utf8(turn.text) != std::string_view::npos)
        throw Error(Exit::data, {.what = "the text is not UTF-8", .where = turn.where});
      said_.messages.push_back({{"role", "user"}, {"content", turn.text}});
      return;
    }
    const auto parsed = io::parse_json(turn.text, turn.where);  // within bounds
    if (parsed.is_object() && parsed.contains("role")) {
      said_.messages.push_back(parsed);
      return;
    }
    said_ = text::parse_chat(turn.text, turn.where);
  }

  void reply(const std::string& where, bool stop_on_interrupt) {
    text::ChatInput input = said_;
    input.add_generation_prompt = true;
    for (const auto& [name, value] : variables_) input.variables[name] = value;
    const std::string text = template_.render(input, where).text;
    // The template has put the special tokens there already.
    const auto ids = encode_text(*open_.tokenizer, text, /*add_special_tokens=*/false, where);
    std::string written;
    generate::Timings timings;
    generate::GenerateOptions generate_options{.places = {where},
                                               .cache_type = options_.cache_type,
                                               .prefix = &prefix_,
                                               .speculation = speculation_.speculation,
                                               .timings = &timings};
    const auto stop_if_interrupted = [&] {
      if (stop_on_interrupt && interrupt_count > 0) throw Interrupted();
    };
    generate_options.on_prefill = stop_if_interrupted;
    generate_options.on_text = [&](size_t, std::string_view piece) {
      if (!options_.json) write(piece);
      written += piece;
      stop_if_interrupted();
    };
    try {
      std::optional<StopOnInterrupt> handler;
      if (stop_on_interrupt) handler.emplace();
      const auto completion =
          generate::generate(*open_.model, *open_.tokenizer, {{ids}}, config_, generate_options).front();
      said_.messages.push_back({{"role", "assistant"}, {"content", completion.text}});
      if (options_.json) print(completion, ids.size(), timings);
    } catch (const Interrupted&) {
      prefix_ = {};
      said_.messages.push_back({{"role", "assistant"}, {"content", written}});
    }
    if (!options_.json) write("\n");
    ++turn_;
  }

  void print(const generate::Completion& completion, size_t prompt_tokens, const generate::Timings& timings) const {
    ChatJson row = {{"turn", turn_},
                    {"role", "assistant"},
                    {"content", completion.text},
                    {"ids", completion.ids},
                    {"prompt_tokens", prompt_tokens},
                    {"reused_tokens", prefix_.reused},
                    {"finish_reason", to_string(completion.finish_reason)}};
    if (speculation_.speculation) {
      row["proposed_tokens"] = timings.proposed;
      row["accepted_tokens"] = timings.accepted;
    }
    std::cout << row.dump(-1, ' ', false, ChatJson::error_handler_t::replace) << std::endl;
  }

  const ChatOptions& options_;
  OpenModel open_;
  OpenSpeculation speculation_;
  text::ChatTemplate template_;
  generate::GenerationConfig config_;
  std::map<std::string, ChatJson> variables_;
  text::ChatInput said_;  // the conversation so far
  generate::Prefix prefix_;
  size_t turn_ = 0;
};

/// What is written apart by blanks.
std::vector<std::string> words_of(const std::string& text) {
  std::istringstream in(text);
  return {std::istream_iterator<std::string>(in), {}};
}

/// A command rather than something said. Anything else that begins with a slash is said.
enum class Command { none, reset, adapter, exit, help };
Command command_of(const std::string& text) {
  if (text == "/reset") return Command::reset;
  if (text == "/adapter" || text.starts_with("/adapter ")) return Command::adapter;
  if (text == "/exit" || text == "/quit") return Command::exit;
  return text == "/help" ? Command::help : Command::none;
}

void obey(Command command, const Turn& turn, Conversation& conversation) {
  if (command == Command::reset) conversation.reset();
  if (command == Command::help) log::info(kCommands);
  if (command != Command::adapter) return;
  auto words = words_of(turn.text);
  words.erase(words.begin());
  conversation.use_adapters(std::move(words), turn.where);
}

}  // namespace

void add_chat_options(CLI::App& app, ChatOptions& options) {
  const char* group = "Chat";
  app.add_flag(
         "--chat", options.chat,
         "A conversation: every line of standard input (or every --prompt) is a turn, or a JSON list of messages "
         "that begins another one; /reset begins anew, /adapter NAME switches between those of --adapter, /exit ends")
      ->group(group);
  app.add_option("--system", options.system, "What the model is told before the conversation")->group(group);
  app.add_option("--template", options.template_file, "A Jinja file instead of the model's chat template")
      ->group(group);
  app.add_option("--set", options.settings,
                 "A variable of the chat template, as enable_thinking=false; may be given several times")
      ->allow_extra_args(false)
      ->group(group);
}

void check_chat_options(const CLI::App& app, const ChatOptions& options) {
  if (!options.chat) return refuse_idle(app, {"--system", "--template", "--set"}, "without --chat");
  refuse_idle(app,
              {"--fill-mask", "--prompts-file", "--add-special-tokens", "--batch-size", "--return-full-text",
               "--timings", "--num-beams", "--num-return-sequences"},
              "with --chat");
}

int run_chat(const ChatOptions& options, const ModelOptions& model, const GenerationFlags& flags,
             generate::GenerationConfig config) {
  OpenModel open = open_model(model);
  check_flags(flags, *open.model);
  if (config.num_beams > 1 || config.num_return_sequences > 1)
    throw Error(Exit::usage, {.what = "a conversation goes one way",
                              .where = open.folder.string(),
                              .got = "num_beams or num_return_sequences above 1 in generation_config.json",
                              .expected = "1 for --chat"});
  generate::adopt_special_tokens(config, *open.tokenizer);
  if (!config.max_new_tokens && !config.max_length) config.max_new_tokens = open.model->max_positions();
  text::ChatTemplate chat =
      text::open_chat_template(model.tokenizer.empty() ? open.folder : std::filesystem::path(model.tokenizer),
                               options.template_file, open.tokenizer.get());
  OpenSpeculation speculation = open_speculation(options.speculation, model, *open.tokenizer);
  Conversation conversation(options, std::move(open), std::move(speculation), std::move(chat), std::move(config));
  Turns turns(options);
  if (turns.terminal()) log::info(kCommands);
  while (const auto turn = turns.next()) {
    if (turn->text.find_first_not_of(" \t") == std::string::npos) continue;
    const Command command = command_of(turn->text);
    if (command == Command::exit) break;
    try {
      if (command == Command::none)
        conversation.answer(*turn, turns.terminal());
      else
        obey(command, *turn, conversation);
    } catch (const Error& e) {
      const bool said = command == Command::none;
      if (!turns.terminal() || e.exit() != (said ? Exit::data : Exit::usage)) throw;
      log::error(e.what() + std::string(said ? "; /reset begins anew" : ""));
    }
  }
  constexpr int kInterrupted = 130;
  return turns.interrupted() ? kInterrupted : 0;
}

}  // namespace llmtk
