#include "text/train_bpe.h"

#include <algorithm>
#include <array>

#include "core/error.h"
#include "text/byte_level.h"
#include "text/hf_write.h"
#include "text/unicode.h"

namespace llmtk::text {
namespace {

/// The special tokens and the 256 bytes. Returns the bytes' ids.
std::array<TokenId, 256> add_alphabet(const BpeTrainingOptions& options, Vocabulary& vocabulary) {
  const size_t least = options.special_tokens.size() + 256;
  if (options.vocab_size < least)
    throw Error(Exit::usage, {.what = "the vocabulary has no room for all bytes and the special tokens",
                              .got = std::to_string(options.vocab_size),
                              .expected = "at least " + std::to_string(least)});
  for (const auto& token : options.special_tokens)
    if (!vocabulary.add(token, static_cast<TokenId>(vocabulary.size())))
      throw Error(Exit::usage, {.what = "a special token is given twice", .got = "'" + token + "'"});
  std::array<int, 256> order;
  for (int byte = 0; byte < 256; ++byte) order[static_cast<size_t>(byte)] = byte;
  std::ranges::sort(order, {}, [](int byte) { return byte_to_char(static_cast<unsigned char>(byte)); });
  std::array<TokenId, 256> ids{};
  for (const int byte : order) {
    std::string spelled;
    append_utf8(byte_to_char(static_cast<unsigned char>(byte)), spelled);
    const auto id = static_cast<TokenId>(vocabulary.size());
    if (!vocabulary.add(spelled, id))
      throw Error(Exit::usage, {.what = "a special token is the spelling of a byte", .got = "'" + spelled + "'"});
    ids[static_cast<size_t>(byte)] = id;
  }
  return ids;
}

}  // namespace

std::unique_ptr<HfTokenizer> train_bpe(const WordCounts& words, const BpeTrainingOptions& options,
                                       const std::function<void(size_t, size_t)>& progress) {
  Vocabulary vocabulary;
  const auto byte_ids = add_alphabet(options, vocabulary);
  MergeLearner learner(vocabulary, "");
  for (const auto& [text, count] : words.words()) {
    std::vector<TokenId> symbols;
    symbols.reserve(text.size());
    for (const char c : text) symbols.push_back(byte_ids[static_cast<unsigned char>(c)]);
    learner.add_word(std::move(symbols), count);
  }
  TokenizerSketch sketch{.vocabulary = &vocabulary,
                         .merges = learner.run(options.vocab_size, options.min_frequency, progress),
                         .byte_level = true,
                         .pattern = options.pattern};
  for (const auto& token : options.special_tokens)
    sketch.added.push_back({.id = vocabulary.find(token), .content = token, .special = true});
  if (!options.special_tokens.empty()) sketch.bos = sketch.eos = options.special_tokens.front();
  auto files = write_tokenizer_files(sketch, false);
  const std::string json = files.front().second;
  return parse_tokenizer_json(json, "the trained tokenizer.json", std::move(files));
}

}  // namespace llmtk::text
