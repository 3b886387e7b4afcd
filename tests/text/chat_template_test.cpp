// Where a folder's chat template is found, what it is given, and what errors say.

#include "text/chat_template.h"

#include "core/error.h"
#include "core/file.h"
#include "test.h"
#include "text/hf_tokenizer.h"

using namespace llmtk;
using namespace llmtk::text;

namespace {

ChatInput chat(const std::string& json = R"([{"role": "user", "content": "Hi"}])") { return parse_chat(json, "row:1"); }

std::string render(const fs::path& folder, const ChatInput& input = chat()) {
  return open_chat_template(folder, "", nullptr).render(input, "row:1").text;
}

template <class Run>
Error error_of(const Run& run) {
  try {
    run();
  } catch (const Error& e) {
    return e;
  }
  FAIL("no error");
  throw;  // not reached
}

}  // namespace

TEST_CASE("a template is found where transformers finds it") {
  test::TemporaryFolder folder;
  const auto write = [&](const std::string& name, const std::string& text) {
    fs::create_directories((folder / name).parent_path());
    write_file_atomic(folder / name, text);
  };
  CHECK(error_of([&] { render(folder.path()); }).parts().what == "the model has no chat template");
  write("tokenizer_config.json", R"({"bos_token": {"content": "<s>"}, "eos_token": "</s>", "pad_token": null,
                                    "chat_template": "config {{ bos_token }}{{ eos_token }}{{ pad_token is defined }}"})");
  CHECK(render(folder.path()) == "config <s></s>False");
  write("special_tokens_map.json", R"({"eos_token": "<end>"})");
  CHECK(render(folder.path()) == "config <s><end>False");
  write("chat_template.json", R"({"chat_template": "json"})");
  CHECK(render(folder.path()) == "json");
  write("chat_template.jinja", "jinja {{ messages[0].content }}\n");
  CHECK(render(folder.path()) == "jinja Hi");
  write("additional_chat_templates/tool_use.jinja", "tools {{ tools | length }}");
  CHECK(render(folder.path()) == "jinja Hi");
  ChatInput with_tools = chat();
  with_tools.tools = ChatInput::Json::array({{{"type", "function"}}});
  CHECK(render(folder.path(), with_tools) == "tools 1");
  with_tools.template_name = "default";
  CHECK(render(folder.path(), with_tools) == "jinja Hi");
  with_tools.template_name = "rag";
  const Error error = error_of([&] { render(folder.path(), with_tools); });
  CHECK(error.exit() == Exit::usage);
  CHECK(error.parts().expected == "default, tool_use");
}

TEST_CASE("a list of named templates in the config") {
  test::TemporaryFolder folder;
  write_file_atomic(
      folder / "tokenizer_config.json",
      R"({"chat_template": [{"name": "default", "template": "d"}, {"name": "tool_use", "template": "t"}]})");
  CHECK(render(folder.path()) == "d");
  ChatInput with_tools = chat(R"({"messages": [{"role": "user", "content": "x"}], "tools": []})");
  CHECK(render(folder.path(), with_tools) == "t");
}

TEST_CASE("errors of a template name its file, those of messages the conversation's place") {
  test::TemporaryFolder folder;
  write_file_atomic(folder / "chat_template.jinja", "{{ messages[0].content.x.y }}{{ raise_exception('no') }}");
  const Error of_template = error_of([&] { render(folder.path()); });
  CHECK(of_template.exit() == Exit::file);
  CHECK(of_template.parts().where == (folder / "chat_template.jinja").string() + ":1:25");
  write_file_atomic(folder / "chat_template.jinja", "\n{{ raise_exception('no') }}");
  const Error of_messages = error_of([&] { render(folder.path()); });
  CHECK(of_messages.exit() == Exit::data);
  CHECK(of_messages.parts().where == "row:1");
  CHECK(of_messages.parts().hint == "raised at " + (folder / "chat_template.jinja").string() + ":2:19");
}

TEST_CASE("a conversation is a list of messages, alone or in an object") {
  CHECK(chat(R"({"messages": [{"role": "user"}], "id": 7, "chat_template_kwargs": {"a": [1]}})").variables.at("a") ==
        ChatInput::Json::array({1}));
  const std::pair<const char*, const char*> wrong[] = {
      {"[]", "a conversation without messages"},
      {"{}", "a conversation without messages"},
      {"3", "the messages are not a list"},
      {R"(["a"])", "message 1 is not an object"},
      {R"([{"role": "user", "role": "x"}])", "the key 'role' stands there twice"},
      {R"([{"n": 123456789012345678901234567890}])", "a whole number of more than 64 bits"},
      {R"([{"n": 18446744073709551615}])", "a whole number of more than 64 bits"},
      {R"({"messages": [{}], "tools": {}})", "'tools' is not a list"}};
  for (const auto& [json, what] : wrong) {
    CAPTURE(json);
    const Error error = error_of([&json = json] { chat(json); });
    CHECK(error.exit() == Exit::data);
    CHECK(error.parts().where.substr(0, 5) == "row:1");
    if (std::string(what).find("twice") == std::string::npos) CHECK(error.parts().what == what);
  }
}

TEST_CASE("the last message is left open") {
  const ChatTemplate made("{% for m in messages %}[{{ m.content | trim }}]{% endfor %}", "t", {});
  ChatInput input = chat(R"([{"role": "user", "content": "a"}, {"role": "assistant", "content": "Sure,  "}])");
  input.continue_final_message = true;
  CHECK(made.render(input, "row:1").text == "[a][Sure,");
  input.add_generation_prompt = true;
  CHECK(error_of([&] { made.render(input, "row:1"); }).exit() == Exit::usage);
  input.add_generation_prompt = false;
  const ChatTemplate drops("{{ messages[0].content }}", "t", {});
  CHECK(error_of([&] { drops.render(input, "row:1"); }).exit() == Exit::data);
}

TEST_CASE("variables of the command line") {
  const auto variables = parse_template_variables({"a=true", "b=\"x=y\"", "c=[1]"});
  CHECK(variables.at("a") == true);
  CHECK(variables.at("b") == "x=y");
  for (const char* wrong : {"a", "=1", "a=text", "a="})
    CHECK(error_of([&] { parse_template_variables({wrong}); }).exit() == Exit::usage);
}

TEST_CASE("tokens find their bytes") {
  const auto tokenizer = parse_tokenizer_json(
      R"({"added_tokens": [{"id": 0, "content": "<s>", "special": true, "rstrip": true}],
          "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": true, "use_regex": true}, "decoder": {"type": "ByteLevel"},
          "model": {"type": "BPE", "vocab": {"<s>": 0, "a": 1, "b": 2, "Ġ": 3, "ab": 4, "ä": 5, "¸": 6, "ĸ": 7}, "merges": [["a", "b"]]}})",
      "test", {});
  const std::string text = "ab<s>  a世";
  std::vector<TokenId> ids;
  tokenizer->encode(text, ids, false);
  const auto spans = token_spans(*tokenizer, text, ids, "row:1");
  REQUIRE(spans.size() == ids.size());
  CHECK(spans.back().end == text.size());
  std::string joined;
  for (size_t i = 0; i < spans.size(); ++i) joined += text.substr(spans[i].begin, spans[i].end - spans[i].begin);
  CHECK(joined == "ab<s> a世");  // one of the blanks is what the tokenizer puts before a word
  const auto mask = mask_of_spans(spans, {{2, 5}, {7, 8}});
  CHECK(std::count(mask.begin(), mask.end(), 1) == 2);
  CHECK(error_of([&] { token_spans(*tokenizer, "ba", ids, "row:1"); }).exit() == Exit::data);
}
