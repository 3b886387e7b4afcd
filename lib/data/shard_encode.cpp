#include "data/shard_encode.h"

#include <cmath>
#include <cstring>
#include <span>

#include "core/error.h"

namespace llmtk::data {
namespace {

uint64_t text_hash(std::string_view text, uint64_t seed) {
  Checksum sum;
  sum.update(std::as_bytes(std::span(&seed, 1)));
  sum.update(std::as_bytes(std::span(text.data(), text.size())));
  return sum.digest();
}

}  // namespace

BlockEncoder::BlockEncoder(const text::Tokenizer& tokenizer, const std::string& tokenizer_path,
                           const std::vector<SourceFile>& files, const ShardOptions& options)
    : tokenizer_(tokenizer), files_(files), options_(options) {
  const auto special = tokenizer.special_tokens();
  eos_ = special.eos >= 0 ? special.eos : special.sep;
  if (options.append_eos && eos_ < 0)
    throw Error(
        Exit::data,
        {.what = "the tokenizer has no end-of-text token to put between documents",
         .where = tokenizer_path,
         .hint = "add one to the tokenizer, or join documents without one: --no-eos, in a config append_eos: false"});
  type_ = tokenizer.vocab_size() <= 65536 ? TokenType::uint16 : TokenType::uint32;
  if (options.prepend_bos) bos_ids_ = tokenizer.prefix();
  append_ids(bos_ids_, bos_);
  uint64_t total = 0;
  for (const auto& file : files_) {
    file_starts_.push_back(total);
    total += file.bytes;
  }
  file_starts_.push_back(total);
}

EncodedBlock BlockEncoder::encode(const Block& block) const {
  ParsedBlock parsed = parse_block(block, files_[block.begin.file], options_.read);
  EncodedBlock out;
  out.begin = block.begin;
  out.end = block.end;
  out.continues = parsed.continues;
  out.open = parsed.open;
  out.skipped = parsed.skipped;
  out.replaced = parsed.replaced;
  out.empty = parsed.empty;
  out.complaints = std::move(parsed.complaints);
  out.file_checksum = block.file_checksum;
  size_t total = 0, before = 0;
  for (const auto& document : parsed.documents) total += document.text.size();
  std::vector<text::TokenId> ids;
  for (size_t i = 0; i < parsed.documents.size(); ++i) {
    const std::string& text = parsed.documents[i].text;
    ids.clear();
    tokenizer_.encode(text, ids);
    const bool ends = i + 1 < parsed.documents.size() || !parsed.open;
    if (ends && options_.append_eos) ids.push_back(eos_);
    const double share = total == 0 ? 0 : static_cast<double>(before) / static_cast<double>(total);
    const double offset =
        static_cast<double>(global_offset(block.begin)) + share * static_cast<double>(block.bytes.size());
    out.pieces.push_back({append_ids(ids, out.ids), text.empty(), choose_split(text, offset)});
    before += text.size();
  }
  return out;
}

int BlockEncoder::choose_split(const std::string& text, double offset) const {
  if (options_.validation_fraction == 0) return kTrain;
  if (options_.split_by == SplitBy::tail)
    return offset >= (1 - options_.validation_fraction) * static_cast<double>(file_starts_.back()) ? kValidation
                                                                                                   : kTrain;
  const double uniform = std::ldexp(static_cast<double>(text_hash(text, options_.seed) >> 11), -53);
  return uniform < options_.validation_fraction ? kValidation : kTrain;
}

size_t BlockEncoder::append_ids(const std::vector<text::TokenId>& ids, std::string& out) const {
  const size_t begin = out.size();
  if (ids.empty()) return 0;  // an empty vector's address may be null, which memcpy does not take
  out.resize(begin + ids.size() * token_bytes(type_));
  char* to = out.data() + begin;
  if (type_ == TokenType::uint32) {
    std::memcpy(to, ids.data(), ids.size() * 4);
  } else {
    for (size_t i = 0; i < ids.size(); ++i) {
      LLMTK_CHECK(ids[i] >= 0 && ids[i] <= 65535, "id ", ids[i], " of a vocabulary of ", tokenizer_.vocab_size());
      const auto id = static_cast<uint16_t>(ids[i]);
      std::memcpy(to + 2 * i, &id, 2);
    }
  }
  return out.size() - begin;
}

}  // namespace llmtk::data
