#include "data/tokenizer_training.h"

#include "support.h"

namespace llmtk::data {
namespace {

using Phase = TrainingProgress::Phase;

struct Corpora {
  test::TemporaryFolder folder;
  TokenizerTrainingConfig config{.vocab_size = 600};

  std::unique_ptr<text::Tokenizer> train(const std::string& text, const OnTrainingProgress& on_progress = {}) {
    write_file_atomic(folder / "text.txt", text);
    return train_tokenizer({(folder / "text.txt").string()}, {}, config, 2, on_progress);
  }
};

TEST_CASE("Training tells how much is read and how much is learnt") {
  Corpora fixture;
  std::mt19937 random(1);
  std::string text;
  while (text.size() < (3u << 19)) text += std::to_string(random() % 50'000) + (random() % 20 == 0 ? '\n' : ' ');
  for (const auto& [type, vocab_size] : {std::pair("bpe", 600), std::pair("sentencepiece-bpe", 270)}) {
    fixture.config.type = type;
    fixture.config.vocab_size = vocab_size;
    uint64_t read = 0, learnt = 0;
    fixture.train(text, [&](const TrainingProgress& progress) {
      const bool reading = progress.phase == Phase::reading;
      CHECK(progress.total == (reading ? text.size() : 600));
      uint64_t& last = reading ? read : learnt;
      CHECK(progress.done > last);
      last = progress.done;
    });
    CHECK(read == text.size());
    CHECK(learnt == (fixture.config.type == "bpe" ? 512 : 0));
  }
}

/// Chinese characters, more of the first than of the last, without a blank.
std::string one_long_line(size_t characters) {
  std::mt19937 random(2);
  std::geometric_distribution<int> which(0.05);
  std::string text;
  for (size_t i = 0; i < characters; ++i) {
    const int c = 0x4E00 + std::min(which(random), 200);
    text += static_cast<char>(0xE0 | c >> 12);
    text += static_cast<char>(0x80 | (c >> 6 & 0x3F));
    text += static_cast<char>(0x80 | (c & 0x3F));
  }
  return text + "\n";
}

TEST_CASE("Sentencepiece learns from every line") {
  Corpora fixture;
  fixture.config.type = "sentencepiece-bpe";
  fixture.config.vocab_size = 500;
  // A line that its library would end the process for.
  const std::string chinese = one_long_line(100'000);
  CHECK(fixture.train(chinese)->token_to_id("\u4e00\u4e00"));
  // Lines that it would pass over: with a character that it keeps for itself,
  std::string text = chinese;
  for (int i = 0; i < 2000; ++i) text += "zyxw\u2585 zyxw\n";
  CHECK(fixture.train(text)->token_to_id("\u2581zyxw"));
  // and long ones. Where they are cut at a blank, no word loses its beginning or gains a blank.
  text = chinese;
  for (int i = 0; i < 300'000; ++i) text += "zyxw ";
  const auto tokenizer = fixture.train(text);
  CHECK(tokenizer->token_to_id("\u2581zyxw"));
  CHECK_FALSE(tokenizer->token_to_id("\u2581\u2581"));
}

TEST_CASE("Sentencepiece learns from a sample of all lines, the same every time") {
  Corpora fixture;
  fixture.config.type = "sentencepiece-bpe";
  fixture.config.vocab_size = 300;
  std::mt19937 random(3);
  std::string text;
  for (int i = 0; i < 20'000; ++i) {
    text += i < 10'000 ? "aaaa" : "bbbb";
    for (int j = 0; j < 6; ++j) text += static_cast<char>('c' + random() % 20);
    text += '\n';
  }
  const auto tokens = [&](std::optional<int64_t> sample) {
    fixture.config.input_sentence_size = sample;
    const auto tokenizer = fixture.train(text);
    CHECK(tokenizer->token_to_id("\u2581aaaa"));
    CHECK(tokenizer->token_to_id("\u2581bbbb"));
    std::string all;
    for (int32_t id = 0; id < 300; ++id) all += tokenizer->id_to_token(id) + ' ';
    return all;
  };
  const std::string sampled = tokens(150);
  CHECK(tokens(150) == sampled);
  CHECK(tokens({}) != sampled);
}

TEST_CASE("A tokenizer learns from what rows say, not from their labels") {
  test::TemporaryFolder folder;
  const auto learn = [&](Objective objective, const std::string& row, int64_t max_samples = 0) {
    write_file_atomic(folder / "rows.jsonl",
                      row + row + R"({"text": "later", "label": "x", "input": "", "output": "later"})");
    FinetuneDataConfig data;
    data.train = {{.path = (folder / "rows.jsonl").string(), .max_samples = max_samples}};
    data.source_prefix = objective == Objective::seq2seq ? "add: " : "";
    return learn_tokenizer(data, objective, {.type = "wordpiece", .vocab_size = 60});
  };
  const auto knows = [](const auto& tokenizer, const char* word) { return tokenizer->token_to_id(word).has_value(); };
  auto tokenizer = learn(Objective::sequence_classification, R"({"text": "one", "text_pair": "two", "label": "hug"})"
                                                             "\n");
  CHECK(knows(tokenizer, "one"));
  CHECK(knows(tokenizer, "two"));
  CHECK_FALSE(knows(tokenizer, "hug"));
  CHECK(knows(tokenizer, "##t"));  // of "later"
  tokenizer = learn(Objective::sequence_classification,
                    R"({"text": "one", "text_pair": "two", "label": "hug"})"
                    "\n",
                    2);
  CHECK_FALSE(knows(tokenizer, "##t"));
  tokenizer = learn(Objective::token_classification,
                    R"({"tokens": ["one", "two"], "tags": ["hug", "O"]})"
                    "\n",
                    2);
  CHECK(knows(tokenizer, "two"));
  CHECK_FALSE(knows(tokenizer, "##u"));
  tokenizer = learn(Objective::seq2seq, R"({"input": "one", "output": "two"})"
                                        "\n");
  CHECK(knows(tokenizer, "two"));
  CHECK(knows(tokenizer, "add"));
  tokenizer = learn(Objective::causal_lm,
                    R"({"messages": [{"role": "user", "content": "one"}, {"role": "assistant", "content": "two"}]})"
                    "\n",
                    2);
  CHECK(knows(tokenizer, "two"));
  CHECK_FALSE(knows(tokenizer, "user"));
  CHECK(test::says(test::error_of([&] {
                     learn(Objective::causal_lm, R"({"input_ids": [1, 2]})"
                                                 "\n");
                   }),
                   "tokenized already"));
}

}  // namespace
}  // namespace llmtk::data
