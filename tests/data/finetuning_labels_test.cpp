// Objectives with labels of their own: pairs of texts, classes, quantities, words.

#include "data/encoder_input.h"
#include "data/finetuning.h"
#include "support.h"

using namespace llmtk;
using namespace llmtk::data;
using test::error_of;
using test::says;

namespace {

using Labels = std::vector<int32_t>;

struct Labelled {
  test::TemporaryFolder folder;
  /// As BERT's: something before, between and behind texts.
  struct Framed : test::ByteTokenizer {
    using ByteTokenizer::ByteTokenizer;
    std::vector<text::TokenId> prefix() const override { return {257}; }
    text::Encoding post_process(const std::vector<text::TokenId>& text, const std::vector<text::TokenId>* pair,
                                bool) const override {
      text::Encoding out{{257}, {0}};
      const auto add = [&](const auto& ids, int32_t type) {
        for (const auto id : ids) out.ids.push_back(id), out.type_ids.push_back(type);
        out.ids.push_back(256), out.type_ids.push_back(type);
      };
      add(text, 0);
      if (pair) add(*pair, 1);
      return out;
    }
  } bytes{0, true, true};
  FinetuneDataConfig config;
  FinetuneContext context;

  explicit Labelled(Objective objective) {
    context.objective = objective;
    context.tokenizer = &bytes;
    context.token_types = true;
    context.loader = {.batch_size = 100, .eval_batch_size = 100, .epochs = 1, .seed = 1, .vocab_size = 258};
    config.shuffle = false;
  }
  std::string write(const std::string& name, const std::string& text) {
    write_file_atomic(folder / name, text);
    return (folder / name).string();
  }
  FinetuningData open(const std::string& rows, const std::string& name = "rows.jsonl") {
    config.train = {{.path = write(name, rows)}};
    return open_finetuning_data(config, context);
  }
  Batch batch(const std::string& rows, const std::string& name = "rows.jsonl") {
    Batch out;
    REQUIRE(open(rows, name).train->next(out));
    return out;
  }
  std::string told(const std::string& rows) {
    return error_of([&] { open(rows); });
  }
};

}  // namespace

TEST_CASE("labels by name become classes in the order of the names, numbers in their own") {
  Labelled f(Objective::sequence_classification);
  const std::string rows =
      "{\"text\": \"a\", \"label\": \"pos\"}\n{\"text\": \"b\", \"label\": \"neg\"}\n{\"text\": \"c\", \"label\": "
      "\"pos\"}\n";
  auto data = f.open(rows);
  CHECK(data.label_names == std::vector<std::string>{"neg", "pos"});
  CHECK(data.problem_type == "single_label_classification");
  Batch batch;
  REQUIRE(data.train->next(batch));
  CHECK(batch.labels == Labels{1, 0, 1});
  CHECK(batch.targets == 3);
  CHECK(batch.input_ids == std::vector<int32_t>{257, 'a', 256, 257, 'b', 256, 257, 'c', 256});

  data = f.open("{\"text\": \"a\", \"label\": 10}\n{\"text\": \"b\", \"label\": 2}\n");
  CHECK(data.label_names == std::vector<std::string>{"2", "10"});
  CHECK(f.batch("text,label\na,10\nb,2\n", "rows.csv").labels == Labels{1, 0});

  f.context.label_names = {"pos", "neg"};  // the model's own
  CHECK(f.batch(rows).labels == Labels{0, 1, 0});
  CHECK(says(f.told("{\"text\": \"a\", \"label\": \"odd\"}"),
             "rows.jsonl:1: the label 'label' is no class of the model"));
  f.context.label_names.clear();
  CHECK(says(f.told("{\"text\": \"a\", \"label\": \"x\"}\n{\"text\": \"a\", \"label\": 1}"),
             "rows.jsonl:2: the label 'label' cannot be used: got 1, expected a name, as the labels before it"));
  CHECK(says(f.told("{\"text\": \"a\", \"label\": \"x\"}"), "all rows have the same label: got 'x'"));
  f.config.on_bad_line = "skip";
  CHECK(f.open(rows + "{\"text\": \"d\", \"label\": 3}\n").train_statistics.skipped == 1);
  f.config.on_bad_line = "stop";
  f.config.validation = {{.path = f.write("v.jsonl", R"({"text": "a", "label": "third"})")}};
  CHECK(says(f.told(rows), "v.jsonl:1: the label 'label' is no class of the model: got \"third\""));
}

TEST_CASE("several labels become a value for each class, quantities stay numbers") {
  Labelled f(Objective::sequence_classification);
  auto data = f.open(
      "{\"text\": \"a\", \"label\": [\"y\", \"x\"]}\n{\"text\": \"b\", \"label\": []}\n{\"text\": \"b\", "
      "\"label\": [\"z\"]}\n");
  CHECK(data.problem_type == "multi_label_classification");
  CHECK(data.label_names == std::vector<std::string>{"x", "y", "z"});
  Batch batch;
  REQUIRE(data.train->next(batch));
  CHECK(batch.values == std::vector<float>{1, 1, 0, 0, 0, 0, 0, 0, 1});
  CHECK(batch.labels.empty());
  CHECK(batch.targets == 9);
  CHECK(f.batch("{\"text\": \"a\", \"label\": [0.0, 1.0]}").values == std::vector<float>{0, 1});
  CHECK(says(f.told("{\"text\": \"a\", \"label\": [\"x\", \"x\"]}"), "expected each class once"));

  data = f.open("{\"text\": \"a\", \"label\": 1.5}\n{\"text\": \"b\", \"label\": -2}\n");
  CHECK(data.problem_type == "regression");
  CHECK(data.label_names == std::vector<std::string>{"LABEL_0"});
  REQUIRE(data.train->next(batch));
  CHECK(batch.values == std::vector<float>{1.5f, -2});
  f.config.problem_type = "regression";
  CHECK(f.batch("text,label\na,3\n", "r.csv").values == std::vector<float>{3});
  CHECK(says(f.told("{\"text\": \"a\", \"label\": \"x\"}"), "cannot be used: got \"x\", expected a number"));
}

TEST_CASE("pairs are cut as transformers cuts them, the longer one first, and know which is which") {
  Labelled f(Objective::sequence_classification);
  f.config.max_length = 8;
  const std::string rows =
      "{\"text\": \"abcdefgh\", \"text_pair\": \"xy\", \"label\": 0}\n{\"text\": \"a\", \"label\": 1}\n";
  auto data = f.open(rows);
  Batch batch;
  REQUIRE(data.train->next(batch));
  CHECK(f.bytes.decode(std::span(batch.input_ids).first(8), false) == "<bos>abc<eos>xy<eos>");
  CHECK(batch.token_type_ids == std::vector<int32_t>{0, 0, 0, 0, 0, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0});
  CHECK(batch.lengths == std::vector<int32_t>{8, 3});
  CHECK(data.train_statistics.cut_tokens == 5);
  f.context.token_types = false;
  CHECK(f.batch(rows).token_type_ids.empty());
}

TEST_CASE("the first token of a word has its tag; words that were cut away count as such") {
  Labelled f(Objective::token_classification);
  const std::string rows =
      "{\"tokens\": [\"ab\", \"\", \"c\"], \"tags\": [\"B-X\", \"O\", \"O\"]}\n{\"tokens\": [\"d\"], \"tags\": "
      "[\"B-X\"]}\n";
  auto data = f.open(rows);
  CHECK(data.label_names == std::vector<std::string>{"B-X", "O"});
  CHECK(data.train_statistics.words_cut == 1);  // one without a token
  Batch batch;
  REQUIRE(data.train->next(batch));
  CHECK(batch.labels == Labels{kIgnore, 0, kIgnore, 1, kIgnore, kIgnore, 0, kIgnore, kIgnore, kIgnore});
  f.config.max_length = 4;
  CHECK(f.open(rows).train_statistics.words_cut == 2);
  CHECK(says(f.told("{\"tokens\": [\"a\"], \"tags\": []}"), "rows.jsonl:1: not as many tags 'tags' as words: got 0"));
  CHECK(says(f.told("{\"tokens\": \"a\", \"tags\": []}"), "the row's words 'tokens'"));
}

TEST_CASE("an encoder-decoder's targets end, cut or not; inputs have their prefix") {
  Labelled f(Objective::seq2seq);
  f.config.source_prefix = "add: ";
  f.config.max_target_length = 4;
  auto data = f.open("{\"input\": \"1+1\", \"output\": \"2\"}\n{\"input\": \"a\", \"output\": \"bcdef\"}\n");
  Batch batch;
  REQUIRE(data.train->next(batch));
  CHECK(f.bytes.decode(std::span(batch.input_ids).first(10), false) == "<bos>add: 1+1<eos>");
  CHECK(batch.labels == Labels{257, '2', 256, kIgnore, 257, 'b', 'c', 256});
  CHECK(data.train_statistics.answers_cut == 1);
  CHECK(data.train_statistics.cut_tokens == 3);
  f.config.source_prefix.clear();
  for (const char* row : {R"({"prompt": "a", "completion": "b"})", R"({"source": "a", "target": "b"})",
                          R"({"instruction": "a", "output": "b"})"})
    CHECK(f.batch(row).labels == Labels{257, 'b', 256});
  CHECK(says(f.told(R"({"input": "a", "output": ""})"), "rows.jsonl:1: an empty answer in 'output'"));
  Labelled masked(Objective::masked_lm);
  CHECK(masked.batch(R"({"text": "a"})").labels.empty());
}
