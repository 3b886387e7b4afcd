// llmtk tokenize render: conversations as the text, and the tokens, that a model is given.

#include <unistd.h>

#include <iostream>
#include <iterator>
#include <memory>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/file.h"
#include "core/log.h"
#include "core/utf8.h"
#include "io/json.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"
#include "tokenize.h"

namespace llmtk {
namespace {

using ChatJson = text::ChatInput::Json;

struct RenderOptions {
  std::string tokenizer, template_file, template_name, tools, documents;
  std::vector<std::string> files, settings;
  bool add_generation_prompt = false, continue_final_message = false, ids = false, json = false;
};

/// One conversation and where it stands.
struct Conversation {
  std::string json, where;
};

/// The items of a list of conversations; of anything else the whole.
std::vector<Conversation> conversations_of_text(const std::string& text, const std::string& name) {
  const auto json = io::parse_json<ChatJson>(text, name);
  const bool several = json.is_array() && !json.empty() &&
                       (json.front().is_array() || (json.front().is_object() && json.front().contains("messages")));
  if (!several) return {{text, name}};
  std::vector<Conversation> all;
  for (size_t i = 0; i < json.size(); ++i) all.push_back({json[i].dump(), name + "[" + std::to_string(i) + "]"});
  return all;
}

std::vector<Conversation> conversations_of_lines(const std::string& text, const std::string& name) {
  std::vector<Conversation> all;
  size_t number = 0;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    std::string line = text.substr(begin, end - begin);
    begin = end + 1;
    ++number;
    if (line.find_first_not_of(" \t\r") != std::string::npos)
      all.push_back({std::move(line), name + ":" + std::to_string(number)});
  }
  return all;
}

std::vector<Conversation> read_conversations(const std::vector<std::string>& files) {
  std::vector<Conversation> all;
  const auto append = [&](std::vector<Conversation> more) {
    std::move(more.begin(), more.end(), std::back_inserter(all));
  };
  for (const std::string& file : files) {
    const bool lines = fs::path(file).extension() == ".jsonl";
    append(lines ? conversations_of_lines(read_file(file), file) : conversations_of_text(read_file(file), file));
  }
  if (files.empty()) {
    if (::isatty(STDIN_FILENO)) log::info("reading from standard input; end with Ctrl-D");
    const std::string text{std::istreambuf_iterator<char>(std::cin), {}};
    const bool lines = !ChatJson::accept(text) && ChatJson::accept(text.substr(0, text.find('\n')));
    append(lines ? conversations_of_lines(text, "stdin") : conversations_of_text(text, "stdin"));
  }
  if (all.empty()) throw Error(Exit::data, {.what = "no conversations", .where = files.empty() ? "stdin" : files[0]});
  return all;
}

ChatJson read_list(const std::string& file, const std::string& flag) {
  ChatJson list = io::read_json(file);
  if (!list.is_array())
    throw Error(Exit::data, {.what = flag + " takes a JSON list", .where = file, .got = list.type_name()});
  return list;
}

/// Places in characters, as transformers counts them.
ChatJson in_characters(const std::vector<text::jinja::Span>& spans, std::string_view text) {
  ChatJson list = ChatJson::array();
  for (const auto& [begin, end] : spans) {
    const size_t first = count_code_points(text.substr(0, begin));
    list.push_back({first, first + count_code_points(text.substr(begin, end - begin))});
  }
  return list;
}

void print(const text::jinja::Rendered& rendered, const text::Tokenizer* tokenizer, const RenderOptions& options,
           const std::string& where) {
  std::vector<text::TokenId> ids;
  if (tokenizer && (options.ids || options.json)) tokenizer->encode(rendered.text, ids);
  if (options.json) {
    ChatJson row = {{"text", rendered.text}, {"generations", in_characters(rendered.generations, rendered.text)}};
    if (tokenizer) {
      row["count"] = ids.size();
      row["ids"] = ids;
      if (!rendered.generations.empty())
        row["mask"] =
            text::mask_of_spans(text::token_spans(*tokenizer, rendered.text, ids, where), rendered.generations);
    }
    std::cout << row.dump() << '\n';
  } else if (options.ids) {
    for (size_t i = 0; i < ids.size(); ++i) std::cout << (i ? " " : "") << ids[i];
    std::cout << '\n';
  } else {
    std::cout << rendered.text << (rendered.text.ends_with('\n') ? "" : "\n");
  }
}

int render(const RenderOptions& options) {
  if (options.tokenizer.empty() && (options.template_file.empty() || options.ids))
    throw Error(Exit::usage, {.what = "render needs a model",
                              .hint = "-t MODEL; or --template FILE alone for the text without ids"});
  const auto settings = text::parse_template_variables(options.settings);
  std::unique_ptr<text::Tokenizer> tokenizer;
  if (!options.tokenizer.empty()) tokenizer = text::load_tokenizer(options.tokenizer);
  const text::ChatTemplate chat = text::open_chat_template(options.tokenizer, options.template_file, tokenizer.get());
  const auto conversations = read_conversations(options.files);
  for (const auto& [json, where] : conversations) {
    text::ChatInput input = text::parse_chat(json, where);
    for (const auto& [name, value] : settings) input.variables[name] = value;
    if (!options.tools.empty()) input.tools = read_list(options.tools, "--tools");
    if (!options.documents.empty()) input.documents = read_list(options.documents, "--documents");
    input.add_generation_prompt = options.add_generation_prompt;
    input.continue_final_message = options.continue_final_message;
    input.template_name = options.template_name;
    const auto rendered = chat.render(input, where);
    if (conversations.size() > 1 && !options.json && !options.ids) std::cout << "=== " << where << '\n';
    print(rendered, tokenizer.get(), options, where);
  }
  return 0;
}

}  // namespace

void add_render_command(CLI::App& app, TokenizeContext& context) {
  auto options = std::make_shared<RenderOptions>();
  CLI::App* sub = app.add_subcommand("render", "Conversations as text, by the model's chat template");
  sub->add_option(
      "-t,--tokenizer", options->tokenizer,
      "Model folder, or a name in the local Hugging Face cache; not needed with --template and without --ids");
  sub->add_option("files", options->files,
                  "Conversations: a .json file holds one or a list of them, a .jsonl file one a line; without files "
                  "standard input. One is a list of messages, or an object with \"messages\" and perhaps \"tools\", "
                  "\"documents\", \"chat_template_kwargs\"");
  auto* continued = sub->add_flag("--continue-final-message", options->continue_final_message,
                                  "Leave the last message open, for the model to go on with");
  sub->add_flag("--add-generation-prompt", options->add_generation_prompt,
                "End with what an answer of the model begins with")
      ->excludes(continued);
  sub->add_option("--tools", options->tools, "JSON file: the list of tools that the model may call");
  sub->add_option("--documents", options->documents, "JSON file: the list of documents to answer from");
  auto* file = sub->add_option("--template", options->template_file, "A Jinja file instead of the model's template");
  sub->add_option("--template-name", options->template_name,
                  "Which of the model's templates; default: what the tools say")
      ->excludes(file);
  sub->add_option("--set", options->settings, "A variable of the template, as enable_thinking=false; several times")
      ->allow_extra_args(false);
  sub->add_flag("--ids", options->ids, "Ids instead of the text");
  sub->footer(
      "With --json a line for each conversation: its text, ids, and of {% generation %} blocks the places (in\n"
      "characters) and a mask over the ids.\n\n"
      "Examples:\n"
      "  llmtk tokenize render -t my-model chats.jsonl\n"
      "  llmtk tokenize render -t my-model --add-generation-prompt --ids <<< '[{\"role\": \"user\", \"content\": "
      "\"Hi\"}]'\n"
      "  llmtk tokenize render -t my-model --json --tools tools.json --set enable_thinking=false chats.jsonl");
  sub->callback([&context, options, sub] {
    context.run = [&context, options, sub] {
      options->json = context.common.json;
      if (options->json) refuse_idle(*sub, {"--ids"}, "with --json, which holds them");
      return render(*options);
    };
  });
}

}  // namespace llmtk
