// Rows of preferences: what they become, and what is wrong with them.

#include "rows_on_disk.h"

using namespace llmtk;
using namespace llmtk::data;
using test::says;

namespace {

struct Preferences : test::RowsOnDisk {
  explicit Preferences(Objective objective = Objective::preference) : RowsOnDisk(objective) {}
  FinetuningData open(const std::string& rows, const std::string& name = "rows.jsonl") {
    config.train = {{.path = write(name, rows), .columns = columns}};
    return open_finetuning_data(config, context);
  }
  std::string told(const std::string& rows, Exit expected = Exit::data) {
    Exit exit = Exit::ok;
    const std::string message = test::error_of([&] { open(rows); }, &exit);
    CHECK(exit == expected);
    return message;
  }
  /// The texts of a row, what is asked for in brackets, and the row's values.
  std::string shown(const RowSource& rows, uint64_t row) const {
    Example example;
    rows.read(row, example);
    std::string out;
    size_t begin = 0;
    for (const size_t end : text_ends(example)) {
      if (begin > 0) out += " | ";
      for (size_t t = begin; t < end; ++t) {
        CHECK(example.position_ids[t] == static_cast<int32_t>(t - begin));
        const std::string token = bytes.token_bytes(example.input_ids[t]);
        const bool asked = t > begin && example.labels[t - 1] != kIgnore;
        if (asked) CHECK(example.labels[t - 1] == example.input_ids[t]);
        out += asked ? "[" + token + "]" : token;
      }
      CHECK(example.labels[end - 1] == kIgnore);  // nothing is asked across a boundary
      begin = end;
    }
    for (const float value : example.values) out += " " + std::to_string(static_cast<int>(10 * value));
    return out;
  }

  std::map<std::string, std::string> columns;
};

constexpr const char* kPair = R"({"prompt": "ab", "chosen": "cd", "rejected": "e", "margin": 0.5})"
                              "\n";

}  // namespace

TEST_CASE("a pair is two texts side by side; a batch's targets are its pairs") {
  Preferences p;
  const auto data = p.open(std::string(kPair) + R"({"chosen": "xy c", "rejected": "xy d"})" + "\n" +
                           R"({"chosen": "我们", "rejected": "我他"})" + "\n");
  CHECK(p.shown(*data.train_rows, 0) == "<bos>ab[c][d][<eos>] | <bos>ab[e][<eos>]");
  // Without a prompt it is what both begin with, the space before the answers left to them, characters whole.
  CHECK(p.shown(*data.train_rows, 1) == "<bos>xy[ ][c][<eos>] | <bos>xy[ ][d][<eos>]");
  CHECK(says(p.shown(*data.train_rows, 2), "<bos>我["));
  Batch batch;
  REQUIRE(data.train->next(batch));
  CHECK(batch.targets == 2);
  CHECK(batch.values.empty());
  CHECK(data.train_statistics.trained_tokens == 5 + 6 + 8);
  p.context.margins = true;
  CHECK(says(p.shown(*p.open(kPair).train_rows, 0), "<eos>] 5"));
}

TEST_CASE("pairs of conversations, the prompt beside them or in both") {
  Preferences p;
  const std::string question = R"({"role": "user", "content": "q"})";
  const auto answer = [](const std::string& text) { return R"({"role": "assistant", "content": ")" + text + R"("})"; };
  const std::string apart = R"({"prompt": [)" + question + R"(], "chosen": [)" + answer("good") +
                            R"(], "rejected": [)" + answer("bad") + "]}\n";
  const std::string both = R"({"prompt": "q", "chosen": [)" + question + "," + answer("good") + R"(], "rejected": [)" +
                           question + "," + answer("bad") + "]}\n";
  const std::string first = p.shown(*p.open(apart).train_rows, 0);
  CHECK(says(first, "### Response:\n[g][o][o][d][<eos>] | <bos>"));
  CHECK(says(first, "### Response:\n[b][a][d][<eos>]"));
  CHECK(p.shown(*p.open(both).train_rows, 0) == first);
  const std::string other = R"({"prompt": "other", "chosen": [)" + question + "," + answer("a") +
                            R"(], "rejected": [)" + question + "," + answer("b") + "]}\n";
  CHECK(says(p.told(other), "do not begin with it"));
}

TEST_CASE("rated answers stand beside their prompt with the answer of the row before") {
  Preferences p(Objective::unpaired_preference);
  p.columns = {{"label", "kto_tag"}};
  std::string rows;
  for (const std::string name : {"a", "b", "c"})
    rows += R"({"prompt": "p)" + name + R"(", "completion": ")" + name + R"(", "kto_tag": )" +
            (name == "b" ? "false" : "true") + "}\n";
  const auto data = p.open(rows);
  // Stretches of the batch's two; the last is alone with its own.
  CHECK(p.shown(*data.train_rows, 0) == "<bos>pa[a][<eos>] | <bos>pa[b][<eos>] 10");
  CHECK(p.shown(*data.train_rows, 1) == "<bos>pb[b][<eos>] | <bos>pb[a][<eos>] 0");
  CHECK(p.shown(*data.train_rows, 2) == "<bos>pc[c][<eos>] | <bos>pc[c][<eos>] 10");
  p.columns = {};
  const auto pairs = p.open(std::string(kPair) + R"({"prompt": "x", "chosen": "y", "rejected": "z"})" + "\n");
  REQUIRE(pairs.train_rows->rows() == 4);
  CHECK(p.shown(*pairs.train_rows, 0) == "<bos>ab[c][d][<eos>] | <bos>ab[y][<eos>] 10");
  CHECK(p.shown(*pairs.train_rows, 3) == "<bos>x[z][<eos>] | <bos>x[e][<eos>] 0");
  CHECK(says(p.told(R"({"prompt": "a", "completion": "b", "label": "good"})"), "true or false"));
}

TEST_CASE("what a reference says of a row comes with it, and does not make it other data") {
  Preferences p;
  p.context.annotated = true;
  const auto data = p.open(std::string(kPair) + kPair);
  REQUIRE(data.annotated.size() == 1);
  const std::string identity = data.train_rows->identity();
  data.annotated[0]->set({1, 2, 3, 4});
  Batch batch;
  REQUIRE(data.train->next(batch));
  CHECK(batch.values == std::vector<float>{1, 2, 3, 4});
  CHECK(batch.targets == 2);
  CHECK(data.train_rows->identity() == identity);
}

TEST_CASE("long pairs are cut text by text; a pair that lost an answer is left out") {
  Preferences p;
  p.config.max_length = 4;
  const auto data = p.open(R"({"prompt": "a", "chosen": "bcd", "rejected": "e"})"
                           "\n"
                           R"({"prompt": "abcd", "chosen": "e", "rejected": "f"})"
                           "\n");
  REQUIRE(data.train_rows->rows() == 1);
  CHECK(p.shown(*data.train_rows, 0) == "<bos>a[b][c] | <bos>a[e][<eos>]");
  CHECK(data.train_statistics.untrained == 1);
  CHECK(data.train_statistics.answers_cut == 1);
}

TEST_CASE("bad pairs are named by file and line") {
  Preferences p;
  CHECK(says(p.told(std::string(kPair) + R"({"prompt": "a", "chosen": "b", "rejected": "b"})"), "rows.jsonl:2"));
  CHECK(says(p.told(R"({"prompt": "a", "chosen": "b", "rejected": ""})"), "an empty answer in 'rejected'"));
  CHECK(says(p.told(R"({"prompt": "a", "chosen": "b"})"), "no field 'rejected'"));
  CHECK(says(p.told(R"({"prompt": "a", "chosen": "b", "rejected": ["c"]})"), "rejected"));
  p.context.margins = true;
  CHECK(says(p.told(R"({"prompt": "a", "chosen": "b", "rejected": "c", "margin": "wide"})"), "a number"));
  p.config.train_on = "all";
  CHECK(says(p.told(kPair, Exit::usage), "train_on"));
  p.config.train_on = "answers";
  p.config.packing = true;
  CHECK(says(p.told(kPair, Exit::usage), "packing"));
}
