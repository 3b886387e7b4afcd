#include "data/tokenizer_training.h"

#include <algorithm>
#include <thread>

#include "core/error.h"
#include "core/log.h"
#include "data/files.h"
#include "data/ordered_map.h"
#include "text/sentencepiece.h"
#include "text/train_bpe.h"

namespace llmtk::data {
namespace {

/// Names the first few bad lines and counts them all.
class Complaints {
 public:
  void add(const ParsedBlock& block) {
    bad_ += block.skipped + block.replaced;
    for (const auto& complaint : block.complaints)
      if (shown_++ < kShown) log::warn(complaint);
  }
  void finish() const {
    if (bad_ > 0) log::warn(std::to_string(bad_) + " bad lines were left out or mended");
  }

 private:
  static constexpr int kShown = 5;
  uint64_t bad_ = 0;
  int shown_ = 0;
};

std::unique_ptr<text::Tokenizer> train_byte_level(BlockReader& reader, const ReadOptions& read,
                                                  const TokenizerTrainingConfig& config, int threads) {
  const text::Pattern pattern = config.split_digits ? text::Pattern::gpt2_digits : text::Pattern::gpt2;
  const text::PreTokenizer words({}, pattern);
  struct Counted {
    text::WordCounts counts;
    ParsedBlock block;  // its documents are gone
  };
  text::WordCounts counts;
  Complaints complaints;
  uint64_t documents = 0;
  ordered_map<Block, Counted>(
      threads, [&](Block& block) { return reader.next(block); },
      [&](Block& block) {
        Counted out{.counts = {}, .block = parse_block(block, reader.files()[block.begin.file], read)};
        for (const auto& document : out.block.documents) out.counts.add(document.text, words);
        return out;
      },
      [&](Counted& part) {
        counts.add(part.counts);
        complaints.add(part.block);
        documents += part.block.documents.size();
      });
  complaints.finish();
  log::info(std::to_string(documents) + " documents, " + std::to_string(counts.words().size()) + " different words");
  return text::train_bpe(counts, {.vocab_size = static_cast<size_t>(config.vocab_size),
                                  .min_frequency = static_cast<uint64_t>(config.min_frequency),
                                  .pattern = pattern,
                                  .special_tokens = config.special_tokens});
}

std::unique_ptr<text::Tokenizer> train_pieces(BlockReader& reader, const ReadOptions& read,
                                              const TokenizerTrainingConfig& config, int threads) {
  Complaints complaints;
  std::vector<std::string> lines;  // of the block at hand, in reverse
  const auto next = [&](std::string& sentence) {
    while (lines.empty()) {
      Block block;
      if (!reader.next(block)) return false;
      const ParsedBlock parsed = parse_block(block, reader.files()[block.begin.file], read);
      complaints.add(parsed);
      for (const auto& document : parsed.documents)
        for (size_t at = 0; at < document.text.size();) {
          const size_t end = std::min(document.text.find('\n', at), document.text.size());
          if (end > at) lines.push_back(document.text.substr(at, end - at));
          at = end + 1;
        }
      std::ranges::reverse(lines);
    }
    sentence = std::move(lines.back());
    lines.pop_back();
    return true;
  };
  std::vector<std::string> specials;
  for (const auto& token : config.special_tokens)
    if (token != TokenizerTrainingConfig().special_tokens.front()) specials.push_back(token);
  auto tokenizer = text::train_sentencepiece(
      next, {.model_type = config.type == "sentencepiece-bpe" ? "bpe" : "unigram",
             .vocab_size = static_cast<size_t>(config.vocab_size),
             .byte_fallback = config.byte_fallback,
             .character_coverage = config.character_coverage,
             .special_tokens = std::move(specials),
             .threads = threads});
  complaints.finish();
  return tokenizer;
}

}  // namespace

std::unique_ptr<text::Tokenizer> train_tokenizer(const std::vector<std::string>& inputs, const ReadOptions& read,
                                                 const TokenizerTrainingConfig& config, int threads) {
  BlockReader reader(find_text_files(inputs), read);
  if (threads == 0) threads = std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
  if (config.type == "bpe") return train_byte_level(reader, read, config, threads);
  return train_pieces(reader, read, config, threads);
}

}  // namespace llmtk::data
