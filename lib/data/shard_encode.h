#pragma once
// A block of text to the ids that go into shards: the part of write_shards that runs on every core.

#include <string>
#include <vector>

#include "data/shard_writer.h"

namespace llmtk::data {

inline constexpr int kTrain = 0, kValidation = 1;

/// A document, or a piece of one, as ids.
struct Piece {
  size_t bytes = 0;    ///< of its ids in EncodedBlock::ids
  bool blank = false;  ///< no text, at most an eos
  int split = kTrain;  ///< where it goes if it begins here
};

struct EncodedBlock {
  ReadPosition begin, end;
  std::string ids;  ///< little-endian
  std::vector<Piece> pieces;
  bool continues = false, open = false;           ///< as in ParsedBlock
  uint64_t skipped = 0, replaced = 0, empty = 0;  ///< lines
  std::vector<std::string> complaints;
  std::string file_checksum;  ///< in a file's last block
};

/// Pure after its making: encode() may run on any thread.
class BlockEncoder {
 public:
  /// All are kept by reference. Throws Error(data) when `options` ask for an eos that the tokenizer lacks.
  BlockEncoder(const text::Tokenizer& tokenizer, const std::string& tokenizer_path,
               const std::vector<SourceFile>& files, const ShardOptions& options);

  EncodedBlock encode(const Block& block) const;

  TokenType type() const { return type_; }
  text::TokenId eos() const { return eos_; }                              ///< -1: none
  const std::vector<text::TokenId>& bos_ids() const { return bos_ids_; }  ///< before every document
  const std::string& bos() const { return bos_; }                         ///< the same as they are written
  /// Bytes of all input before `at`.
  uint64_t global_offset(const ReadPosition& at) const { return file_starts_[at.file] + at.offset; }
  uint64_t total_bytes() const { return file_starts_.back(); }

 private:
  int choose_split(const std::string& text, double offset) const;
  size_t append_ids(const std::vector<text::TokenId>& ids, std::string& out) const;

  const text::Tokenizer& tokenizer_;
  const std::vector<SourceFile>& files_;
  const ShardOptions& options_;
  std::vector<uint64_t> file_starts_;  // files + 1: bytes before each
  TokenType type_ = TokenType::uint16;
  text::TokenId eos_ = -1;
  std::vector<text::TokenId> bos_ids_;
  std::string bos_;
};

}  // namespace llmtk::data
