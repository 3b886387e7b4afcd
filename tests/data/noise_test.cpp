// What is hidden from a model that it has to say.

#include "data/noise.h"

#include <map>
#include <numeric>
#include <set>

#include "data/tokenizer_training.h"
#include "support.h"

using namespace llmtk;
using namespace llmtk::data;
using test::error_of;
using test::says;

namespace {

std::unique_ptr<text::Tokenizer> learn(TokenizerTrainingConfig config) {
  const test::TemporaryFolder folder;
  write_file_atomic(folder / "text.txt", "the cat sat on the mat and the dog sat on the cat, as cats and dogs do\n");
  return train_tokenizer({(folder / "text.txt").string()}, {}, config, 1);
}

Example row(int32_t first, int32_t count) {
  Example out;
  out.input_ids.resize(static_cast<size_t>(count));
  std::iota(out.input_ids.begin(), out.input_ids.end(), first);
  return out;
}

/// What the decoder says, put back at the places of its sentinels.
std::vector<int32_t> restored(const Example& example, const std::set<int32_t>& sentinels, int32_t eos) {
  std::map<int32_t, std::vector<int32_t>> hidden;
  int32_t at = -1;
  for (const int32_t id : example.labels) {
    if (id == eos) break;
    if (sentinels.contains(id))
      at = id;
    else
      hidden[at].push_back(id);
  }
  std::vector<int32_t> text;
  for (const int32_t id : example.input_ids) {
    if (id == eos) continue;
    if (!sentinels.contains(id)) text.push_back(id);
    if (sentinels.contains(id)) text.insert(text.end(), hidden.at(id).begin(), hidden.at(id).end());
  }
  return text;
}

}  // namespace

TEST_CASE("a share of the tokens is hidden, most behind the mask, special ones never") {
  const auto tokenizer = learn({.type = "wordpiece", .vocab_size = 60});
  const auto special = tokenizer->special_tokens();
  const TokenMasker mask({.mlm_probability = 0.2}, *tokenizer, "here");
  std::map<std::string, int> seen;
  const auto size = static_cast<int32_t>(tokenizer->vocab_size());
  for (uint64_t draw = 0; draw < 2000; ++draw) {
    const Example whole = row(0, size);
    Example hidden = whole;
    mask(hidden, draw);
    for (size_t t = 0; t < whole.input_ids.size(); ++t) {
      const int32_t id = whole.input_ids[t], now = hidden.input_ids[t], label = hidden.labels[t];
      if (tokenizer->is_special(id)) REQUIRE((label == kIgnore && now == id));
      if (label == kIgnore) {
        REQUIRE(now == id);
        continue;
      }
      REQUIRE(label == id);
      ++seen[now == special.mask ? "mask" : now == id ? "kept" : "random"];
    }
  }
  const double places = 2000.0 * (size - 5), all = seen["mask"] + seen["kept"] + seen["random"];
  CHECK(all / places == Approx(0.2).margin(0.01));
  CHECK(seen["mask"] / all == Approx(0.8).margin(0.02));
  CHECK(seen["random"] / all == Approx(0.1).margin(0.02));

  Example again = row(0, size), other = row(0, size), labelled = row(0, 3);
  mask(again, 7);
  mask(other, 7);
  CHECK(again.labels == other.labels);
  other = row(0, size);
  mask(other, 8);
  CHECK(again.labels != other.labels);
  labelled.labels = {1, kIgnore, 2};  // the data's own stay
  mask(labelled, 7);
  CHECK(labelled.labels == std::vector<int32_t>{1, kIgnore, 2});
  CHECK(says(error_of([] { TokenMasker({}, test::kBytes, "bytes"); }), "no mask token"));
}

TEST_CASE("spans stand behind sentinels, and nothing of a text is lost") {
  const auto tokenizer = learn({.type = "bpe", .vocab_size = 280, .extra_ids = 20});
  const int32_t eos = tokenizer->special_tokens().eos;
  std::set<int32_t> sentinels;
  for (int i = 0; i < 20; ++i) sentinels.insert(tokenizer->token_to_id("<extra_id_" + std::to_string(i) + ">").value());
  const SpanCorruptor corrupt({}, *tokenizer, "here");
  std::map<size_t, int> lengths;  // of spans
  for (const int32_t length : {1, 2, 3, 7, 20, 100}) {
    std::set<std::vector<int32_t>> ways;
    for (uint64_t draw = 0; draw < 200; ++draw) {
      const Example whole = row(100, length);
      Example hidden = whole;
      corrupt(hidden, draw);
      REQUIRE(restored(hidden, sentinels, eos) == whole.input_ids);
      REQUIRE(hidden.labels.back() == eos);
      const auto noise = length == 1 ? 0 : std::max<int64_t>(1, std::lround(length * 0.15));
      const auto spans = noise == 0 ? 0 : std::max<int64_t>(1, std::lround(static_cast<double>(noise) / 3));
      REQUIRE(static_cast<int64_t>(hidden.labels.size()) == noise + spans + 1);
      // This tokenizer puts nothing around a text.
      REQUIRE(static_cast<int64_t>(hidden.input_ids.size()) == length - noise + spans);
      ways.insert(hidden.input_ids);
    }
    CHECK((length < 100 || ways.size() > 100));
  }
  // As many tokens of text as fill the encoder: 512 of T5 come from 568 with its eos, which this tokenizer has not.
  CHECK(corrupt.text_length(100) == 111);
  Example full = row(100, 111), more = row(100, 112);
  corrupt(full, 1);
  corrupt(more, 1);
  CHECK(full.input_ids.size() == 100);
  CHECK(more.input_ids.size() > 100);
  CHECK(says(error_of([&] { corrupt.text_length(2000); }), "too few sentinels"));
  CHECK(says(error_of([&] { corrupt.text_length(1); }), "no room"));
  CHECK(says(error_of([] { SpanCorruptor({}, test::kBytes, "bytes"); }), "no sentinels"));
}
