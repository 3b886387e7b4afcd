#include "data/finetuning.h"

#include <set>

#include "stderr_of.h"
#include "support.h"

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

struct Finetuning {
  test::TemporaryFolder folder;
  ByteTokenizer bytes{0, true, true};
  FinetuneDataConfig config;
  FinetuneContext context;

  explicit Finetuning(Objective objective = Objective::causal_lm) {
    context.objective = objective;
    context.tokenizer = &bytes;
    context.tokenizer_path = folder.path().string();
    context.loader = {.batch_size = 2, .eval_batch_size = 2, .epochs = 1, .seed = 1, .vocab_size = 258};
    config.shuffle = false;
    config.preprocessing_num_workers = 2;
  }
  std::string write(const std::string& name, const std::string& text) {
    write_file_atomic(folder / name, text);
    return (folder / name).string();
  }
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
