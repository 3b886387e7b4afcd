#include "data/finetuning.h"

#include <set>

#include "rows_on_disk.h"
#include "stderr_of.h"

using namespace llmtk;
using namespace llmtk::data;
using test::ByteTokenizer;
using test::error_of;
using test::says;

namespace {

using Rows = std::vector<std::string>;

const char* const kChatMl =
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}</>\n{% endfor %}{% if add_generation_prompt %}<assistant>{% "
    "endif %}";
const char* const kMarked =
    "{% for m in messages %}<{{ m.role }}>{% if m.role == 'assistant' %}{% generation %}{{ m.content }}</>{% "
    "endgeneration %}{% else %}{{ m.content }}</>{% endif %}{% endfor %}";

struct Finetuning : test::RowsOnDisk {
  explicit Finetuning(Objective objective = Objective::causal_lm) : RowsOnDisk(objective) {}
  void train_on(const std::string& rows, const std::string& name = "rows.jsonl") {
    config.train = {{.path = write(name, rows)}};
  }
  FinetuningData open() { return open_finetuning_data(config, context); }
  /// What goes wrong.
  std::string told(Exit expected = Exit::data) {
    Exit exit = Exit::ok;
    const std::string message = error_of([&] { open(); }, &exit);
    if (!message.empty()) CHECK(exit == expected);
    return message;
  }
  std::string told_of_row(const std::string& rows) {
    train_on(rows);
    return told();
  }
  std::string text(const std::vector<int32_t>& ids) const { return bytes.decode(ids, false); }
};

/// Each row: its text, and in brackets what is trained on.
Rows shown(const Finetuning& f, const RowSource& rows) {
  Rows out;
  for (uint64_t i = 0; i < rows.rows(); ++i) {
    Example example;
    rows.read(i, example);
    std::string text;
    bool open = false;
    for (size_t t = 0; t < example.input_ids.size(); ++t) {
      const bool trained = t > 0 && example.labels[t - 1] != kIgnore;
      if (trained) CHECK(example.labels[t - 1] == example.input_ids[t]);
      if (trained != open) text += trained ? '[' : ']';
      open = trained;
      text += f.text({example.input_ids[t]});
    }
    out.push_back(text + (open ? "]" : ""));
  }
  return out;
}

constexpr const char* kAsk =
    "<bos>Below is an instruction that describes a task. Write a response that appropriately completes the "
    "request.\n\n### Instruction:\n";

}  // namespace

TEST_CASE("Alpaca rows without a chat template take Alpaca's form, answers and their ends are trained on") {
  Finetuning f;
  f.train_on(R"({"instruction": "Add.", "input": "1+1", "output": "2"})"
             "\n"
             R"({"instruction": "你好", "input": "", "output": "好", "system": "Be kind.", "history": [["a", "b"]]})"
             "\n");
  const auto data = f.open();
  CHECK(shown(f, *data.train_rows) ==
        Rows{"<bos>Below is an instruction that describes a task, paired with an input that provides further context. "
             "Write a response that appropriately completes the request.\n\n### Instruction:\nAdd.\n\n### "
             "Input:\n1+1\n\n### Response:\n[2<eos>]",
             "<bos>Be kind.\n\n### Instruction:\na\n\n### Response:\n[b<eos>]\n\n### Instruction:\n你好\n\n### "
             "Response:\n[好<eos>]"});
  CHECK(data.train_statistics.trained_tokens == 2 + 2 + 4);
  Batch batch;
  REQUIRE(data.train->next(batch));
  CHECK(batch.rows == 2);
  CHECK(batch.targets == 8);
  CHECK(!data.validation);
  f.config.train_on = "all";
  CHECK(shown(f, *f.open().train_rows)[0].starts_with("<bos>[Below"));
}

TEST_CASE("chats take the model's template; what is trained on is found by rendering them turn by turn") {
  Finetuning f;
  f.write("chat_template.jinja", kChatMl);
  f.train_on(
      R"({"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "q"}, {"role": "assistant", "content": "one"}, {"role": "user", "content": "r"}, {"role": "assistant", "content": "two"}]})"
      "\n"
      R"({"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "one"}], "system": "s"})"
      "\n");
  CHECK(says(f.told(), "rows.jsonl:2: the row has no field 'messages'"));  // one file, one format
  f.train_on(
      R"({"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "q"}, {"role": "assistant", "content": "one"}, {"role": "user", "content": "r"}, {"role": "assistant", "content": "two"}]})");
  f.config.train.push_back(
      {.path = f.write(
           "share.jsonl",
           R"({"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "one"}], "system": "s"})")});
  f.config.train.push_back(
      {.path = f.write(
           "prompts.jsonl",
           R"({"prompt": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "no"}, {"role": "user", "content": "r"}], "completion": [{"role": "assistant", "content": "yes"}]})")});
  f.config.train.push_back({.path = f.write("texts.jsonl", R"({"prompt": "2+2=", "completion": "4"})")});
  CHECK(shown(f, *f.open().train_rows) ==
        Rows{"<system>s</>\n<user>q</>\n<assistant>[one</>\n]<user>r</>\n<assistant>[two</>\n]",
             "<system>s</>\n<user>q</>\n<assistant>[one</>\n]",
             "<user>q</>\n<assistant>no</>\n<user>r</>\n<assistant>[yes</>\n]", "<bos>2+2=[4<eos>]"});
  const std::string warned = test::stderr_of([&] { f.open(); });
  CHECK(says(warned, "train: 3 of 4 rows train no end of text (256)"));
}

TEST_CASE("a template's generation marks say what is trained on, where it has any") {
  Finetuning f;
  f.write("chat_template.jinja", kMarked);
  f.train_on(
      R"({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "one"}, {"role": "user", "content": "r"}, {"role": "assistant", "content": "two"}]})"
      "\n"
      R"({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "one", "weight": 0}, {"role": "user", "content": "r"}, {"role": "assistant", "content": "two", "weight": 1}]})");
  for (const char* train_on : {"answers", "generation"}) {
    f.config.train_on = train_on;
    CHECK(shown(f, *f.open().train_rows) == Rows{"<user>q</><assistant>[one</>]<user>r</><assistant>[two</>]",
                                                 "<user>q</><assistant>one</><user>r</><assistant>[two</>]"});
  }
  f.config.chat_template = f.write("other.jinja", kChatMl);
  CHECK(says(f.told(), "no row has anything to train on"));
  CHECK(says(f.told(), "2 rows without, the first at "));
  f.config.chat_template = "alpaca";
  CHECK(says(f.told(Exit::usage), "data.train_on: generation wants rows that a chat template renders"));
  f.config.train_on = "answers";
  CHECK(shown(f, *f.open().train_rows)[0] ==
        kAsk + std::string("q\n\n### Response:\n[one<eos>]\n\n### Instruction:\nr\n\n### Response:\n[two<eos>]"));
}

TEST_CASE("answers that a template writes otherwise later on cannot be told apart, and the row is named") {
  Finetuning f;
  // As templates that keep thoughts only in the last answer.
  f.write("chat_template.jinja",
          "{% for m in messages %}<{{ m.role }}>{% if m.role == 'assistant' and loop.last %}<think></think>{% endif %}"
          "{{ m.content }}</>{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}");
  const std::string one = R"({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "one"})";
  f.train_on(one + "]}\n" + one + R"(, {"role": "user", "content": "r"}, {"role": "assistant", "content": "two"}]})");
  CHECK(says(f.told(),
             "rows.jsonl:2: which part of the text is the answer cannot be told: the template writes answer 2 "
             "otherwise where more messages follow"));
  f.config.train[0].max_samples = 1;
  CHECK(shown(f, *f.open().train_rows) == Rows{"<user>q</><assistant>[<think></think>one</>]"});
  // A generation prompt that opens a thought: the answer begins where history and prompt part.
  f.write("chat_template.jinja",
          "{% for m in messages %}<{{ m.role }}>{{ m.content }}</>{% endfor %}{% if add_generation_prompt "
          "%}<assistant><think>{% endif %}");
  CHECK(shown(f, *f.open().train_rows) == Rows{"<user>q</><assistant>[one</>]"});
}

TEST_CASE("rows that cannot be used are named by file and line, or left out and counted") {
  Finetuning f;
  const std::string good = R"({"instruction": "a", "output": "b"})";
  const auto told = [&](const std::string& row) { return f.told_of_row(good + "\n\n" + row + "\n" + good + "\n"); };
  CHECK(says(told(R"({"instruction": "a", "output": )"), "rows.jsonl:3: not JSON"));
  CHECK(says(told("[1]"), "rows.jsonl:3: not a JSON object: got array"));
  CHECK(says(told(R"({"instruction": "a", "response": "b"})"),
             "rows.jsonl:3: the row has no field 'output': got 'instruction', 'response' (columns: {output: NAME}"));
  CHECK(
      says(told(R"({"instruction": "a", "output": 7})"), "rows.jsonl:3: field 'output': got number, expected a text"));
  CHECK(says(told(R"({"instruction": "a", "output": " \n"})"), "rows.jsonl:3: message 2 is an empty answer"));
  CHECK(says(told("{\"instruction\": \"\xFF\", \"output\": \"b\"}"), "rows.jsonl:3: not UTF-8: byte 0xFF"));
  CHECK(says(told(R"({"instruction": "a", "output": ")" + std::string(10 << 20, 'x') + "\"}"),
             "rows.jsonl:3: the line is too long: expected at most 8388608 bytes"));

  f.config.on_bad_line = "skip";
  f.train_on(good + "\nnonsense\n" + R"({"instruction": "a", "output": ""})" + "\n" + good + "\n");
  const auto data = f.open();
  CHECK(data.train_statistics.rows == 2);
  CHECK(data.train_statistics.skipped == 2);
  CHECK(says(test::stderr_of([&] { f.open(); }), "2 bad rows left out, 0 mended; the first: "));
  f.config.on_bad_line = "stop";

  const auto chat = [&](const std::string& messages) { return f.told_of_row(R"({"messages": [)" + messages + "]}"); };
  CHECK(says(chat(R"({"role": "user", "content": "q"}, {"role": "robot", "content": "a"})"),
             "rows.jsonl:1: message 2 has a wrong role: got \"robot\", expected system, developer, user"));
  CHECK(
      says(chat(R"({"role": "user", "content": "q"})"), "the conversation does not end with an answer: got \"user\""));
  CHECK(says(chat(R"({"role": "assistant", "content": "a"})"), "message 1 is an answer, but nothing was asked"));
  CHECK(says(chat(""), "a conversation without messages"));
  CHECK(says(f.told_of_row(R"({"conversations": [{"from": "dog", "value": "q"}]})"),
             "message 1 has a wrong role: got 'dog'"));
  CHECK(says(f.told_of_row(R"({"question": "a"})"), "rows.jsonl:1: the row's fields are of no format"));
  CHECK(says(f.told_of_row("\n"), "no rows"));
}

TEST_CASE("rows have other names, other files: tables, arrays, plain text") {
  Finetuning f;
  f.config.train = {{.path = f.write("a.csv", "question,answer\n\"2,\n2\",4\nx,y\n"),
                     .columns = {{"prompt", "question"}, {"completion", "answer"}}}};
  CHECK(shown(f, *f.open().train_rows) == Rows{"<bos>2,\n2[4<eos>]", "<bos>x[y<eos>]"});
  f.config.train = {{.path = f.write("a.json", "[{\"text\": \"one\"},\n {\"text\": \"two\"}]")}};
  CHECK(shown(f, *f.open().train_rows) == Rows{"<bos>[one<eos>]", "<bos>[two<eos>]"});
  f.config.train = {{.path = f.write("a.txt", "one\n\ntwo\r\n")}};
  auto data = f.open();
  CHECK(shown(f, *data.train_rows) == Rows{"<bos>[one<eos>]", "<bos>[two<eos>]"});
  CHECK(says(data.train_rows->place(1, 0), "a.txt:3, token 0"));
  f.config.train[0].document = "file";
  CHECK(shown(f, *f.open().train_rows) == Rows{"<bos>[one\n\ntwo\n<eos>]"});
  f.config.train = {{.path = f.write("ids.jsonl", R"({"input_ids": [1, 2, 3], "labels": [-100, 2, 3]})")}};
  Batch batch;
  REQUIRE(f.open().train->next(batch));
  CHECK(batch.labels == std::vector<int32_t>{2, 3, kIgnore});

  f.config.train = {{.path = f.write("b.jsonl", R"({"text": "t"})"), .columns = {{"prompt", "question"}}}};
  CHECK(says(f.told(Exit::usage), "columns: the format text has no such key: got 'prompt', expected text"));
  f.config.train = {{.path = f.write("b.jsonl", R"({"text": "t"})"), .format = "tagging"}};
  CHECK(says(f.told(Exit::usage), "the objective causal_lm does not take such rows: got tagging"));
  f.config.train = {{.path = f.write("b.jsonl", R"({"text": "t"})"), .document = "file"}};
  CHECK(says(f.told(Exit::usage), "document has no effect on files that are no plain text"));
}

TEST_CASE("what is longer than max_length is cut, dropped or an error, and counted") {
  Finetuning f;
  const std::string row = R"({"prompt": "0123", "completion": ")";
  f.train_on(row + "ab\"}\n" + row + "abcdefgh\"}\n" + R"({"prompt": "0123456789", "completion": "x"})" + "\n");
  f.config.max_length = 8;  // 1 + 4 + 2 + 1
  auto data = f.open();
  CHECK(shown(f, *data.train_rows) == Rows{"<bos>0123[ab<eos>]", "<bos>0123[abc]"});
  CHECK(data.train_statistics == FinetuneStatistics{.rows = 2,
                                                    .tokens = 16,
                                                    .trained_tokens = 6,
                                                    .longest = 8,
                                                    .cut = 1,
                                                    .cut_tokens = 6,
                                                    .answers_cut = 1,
                                                    .untrained = 1});
  const std::string warned = test::stderr_of([&] { f.open(); });
  CHECK(says(warned, "train: 1 of 3 rows are longer than data.max_length 8 and were cut (6 tokens)"));
  CHECK(says(warned, "train: 1 of 3 rows lost tokens to train on"));
  CHECK(says(warned, "train: 1 of 3 rows have nothing to train on and were left out; the first: "));
  f.config.truncation_side = "left";
  CHECK(shown(f, *f.open().train_rows) == Rows{"<bos>0123[ab<eos>]", "b[cdefgh<eos>]", "456789[x<eos>]"});
  f.config.truncation_side = "right";
  f.config.truncation = "drop";
  CHECK(f.open().train_statistics.dropped == 2);
  f.config.truncation = "error";
  f.config.on_bad_line = "skip";  // a long row is not a bad one
  CHECK(says(f.told(), "rows.jsonl:2: the row is longer than data.max_length: got 14 tokens, expected at most 8"));
  f.context.max_positions = 6;
  CHECK(says(f.told(Exit::usage), "data.max_length is more than the model can see: got 8, expected at most 6"));
  f.config.max_length = 0;
  f.config.truncation = "truncate";
  CHECK(f.open().max_length == 6);
}

TEST_CASE("two bos at a row's beginning are said, and an end of text is trained on even where it is the padding") {
  Finetuning f;
  f.write("chat_template.jinja", "{% for m in messages %}{{ m.content }}{% endfor %}");
  f.train_on(R"({"text": "a"})");
  CHECK(f.open().train_statistics.doubled_bos == 0);
  struct BosInText : ByteTokenizer {  // one that reads "^" as bos
    using ByteTokenizer::ByteTokenizer;
    void encode(std::string_view text, std::vector<text::TokenId>& out, bool add) const override {
      ByteTokenizer::encode(text, out, add);
      std::ranges::replace(out, '^', 257);
    }
    text::SpecialTokens special_tokens() const override { return {.bos = 257, .eos = 256, .pad = 256}; }
  } bos_in_text(0, true, true);
  f.context.tokenizer = &bos_in_text;
  f.train_on(R"({"text": "^a"})");
  CHECK(f.open().train_statistics.doubled_bos == 1);
  CHECK(says(test::stderr_of([&] { f.open(); }), "begin with two bos tokens"));
  Batch batch;
  REQUIRE(f.open().train->next(batch));
  CHECK(batch.labels == std::vector<int32_t>{257, 'a', 256, kIgnore});
}

TEST_CASE("packed rows do not see each other: positions restart, and no row's end predicts the next one's beginning") {
  CHECK(best_fit_decreasing({3, 5, 2, 4, 1, 4}, 6) == std::vector<std::vector<uint64_t>>{{1, 4}, {3, 2}, {5}, {0}});
  Finetuning f;
  f.train_on("{\"text\": \"abc\"}\n{\"text\": \"d\"}\n{\"text\": \"efghij\"}\n");
  f.config.packing = true;
  f.config.max_length = 8;
  auto data = f.open();
  CHECK(data.train_statistics.rows == 3);
  REQUIRE(data.train_rows->rows() == 2);
  CHECK(data.train_rows->length(1) == 8);
  Batch batch;
  REQUIRE(data.train->next(batch));
  CHECK(f.text(batch.input_ids) == "<bos>efghij<eos><bos>abc<eos><bos>d<eos>");
  CHECK(batch.position_ids == std::vector<int32_t>{0, 1, 2, 3, 4, 5, 6, 7, 0, 1, 2, 3, 4, 0, 1, 2});
  CHECK(batch.labels == std::vector<int32_t>{'e', 'f', 'g', 'h', 'i', 'j', 256, kIgnore, 'a', 'b', 'c', 256, kIgnore,
                                             'd', 256, kIgnore});
  CHECK(says(data.train_rows->place(1, 6), "rows.jsonl:2, token 1"));
}

TEST_CASE("rows grouped by length come all, with little padding, and a resumed run gets the same ones") {
  Finetuning f;
  std::string rows;
  for (int i = 0; i < 200; ++i) rows += "{\"text\": \"" + std::string(1 + i * 37 % 100, 'x') + "\"}\n";
  f.train_on(rows);
  f.config.shuffle = true;
  f.config.dataloader_prefetch_factor = 0;
  f.context.loader.epochs = 2;
  f.context.loader.batch_size = 4;
  const auto padding = [&] {
    auto data = f.open();
    int64_t padded = 0, tokens = 0;
    for (Batch batch; data.train->next(batch);) {
      padded += batch.rows * batch.length - batch.tokens();
      tokens += batch.tokens();
    }
    CHECK(tokens == 2 * static_cast<int64_t>(data.train_statistics.tokens));
    return static_cast<double>(padded) / static_cast<double>(tokens);
  };
  CHECK(padding() > 0.3);
  f.config.group_by_length = true;
  CHECK(padding() < 0.1);
  auto data = f.open(), again = f.open();
  Batch batch, other;
  for (int i = 0; i < 63; ++i) REQUIRE(data.train->next(batch));
  again.train->load_state(data.train->state());
  for (int i = 0; i < 30; ++i) {
    REQUIRE(data.train->next(batch));
    REQUIRE(again.train->next(other));
    REQUIRE(batch.input_ids == other.input_ids);
  }
  f.context.loader.batch_size = 8;
  auto changed = f.open();
  CHECK(says(error_of([&] { changed.train->load_state(data.train->state()); }), "group_by_length differs"));
}

TEST_CASE("held-out rows are spread over the source, never trained on, and as many as asked for") {
  Finetuning f;
  std::string rows;
  for (int i = 0; i < 1000; ++i) rows += "{\"text\": \"" + std::to_string(i) + "\"}\n";
  f.train_on(rows);
  f.config.validation_fraction = 0.05;
  const auto data = f.open();
  CHECK(data.train_rows->rows() == 950);
  REQUIRE(data.validation_rows->rows() == 50);
  std::set<std::string> all;
  for (const auto* part : {&data.train_rows, &data.validation_rows})
    for (const std::string& row : shown(f, **part)) all.insert(row);
  CHECK(all.size() == 1000);
  for (uint64_t i = 0; i < 50; ++i) {
    const std::string place = data.validation_rows->place(i, 0);
    const size_t line = std::stoul(place.substr(place.rfind(':') + 1));
    CHECK((line > 20 * i && line <= 20 * (i + 1)));
  }
  f.context.loader.seed = 2;
  CHECK(shown(f, *f.open().validation_rows) != shown(f, *data.validation_rows));
  f.config.train[0].max_samples = 100;
  CHECK(f.open().train_rows->rows() == 95);
  f.config.validation_fraction = 0;
  f.config.validation = f.config.train;
  CHECK(says(f.told(), "the validation data is part of the training data"));
}

TEST_CASE("settings that do not belong to the objective are refused") {
  const auto told = [](auto change, Objective objective = Objective::masked_lm) {
    Finetuning f(objective);
    f.train_on(R"({"text": "t"})");
    change(f.config);
    return f.told(Exit::usage);
  };
  CHECK(says(told([](auto& c) { c.packing = true; }), "data.packing has no effect with the objective masked_lm"));
  CHECK(says(told([](auto& c) { c.train_on = "all"; }), "data.train_on has no effect"));
  CHECK(says(told([](auto& c) { c.chat_template = "x.jinja"; }), "data.chat_template has no effect"));
  CHECK(says(told([](auto& c) { c.source_prefix = "x"; }), "data.source_prefix has no effect"));
  CHECK(says(told([](auto& c) { c.max_target_length = 3; }), "data.max_target_length has no effect"));
  CHECK(says(told([](auto& c) { c.problem_type = "regression"; }), "data.problem_type has no effect"));
  CHECK(says(told([](auto& c) { c.train_on = "all"; }, Objective::causal_lm),
             "data.train_on has no effect on rows that are no conversations"));
  CHECK(told([](auto&) {}).empty());
  const auto message = [](const std::string& yaml) {
    return error_of([&] { config::parse<FinetuneDataConfig>("train: [{path: a}]\n" + yaml, "x.yaml"); });
  };
  CHECK(message("packing: true").empty());
  CHECK(says(message("packing: true\ngroup_by_length: true"), "x.yaml:3"));
  CHECK(says(message("truncation: drop\ntruncation_side: left"), "has no effect with truncation: drop"));
  CHECK(says(message("train_on: generations"), "answers, all, generation"));
  CHECK(says(message("validation: [{path: b, weight: 2}]"), "validation.0.weight"));
}
