#pragma once
// Rows of a fixed greatest length, reachable by number: what a loader draws from.

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/file.h"
#include "data/shard.h"

namespace llmtk::data {

/// Reading is thread-safe.
class RowSource {
 public:
  virtual ~RowSource() = default;
  virtual uint64_t rows() const = 0;
  virtual uint64_t tokens() const = 0;  ///< ids in all rows together
  /// Writes row `row` to the first n places of `input_ids` and `labels` (both as long as the greatest row) and returns
  /// n. labels[t] is the target for position t, kIgnore where there is none. Throws Error(data).
  virtual size_t read(uint64_t row, std::span<int32_t> input_ids, std::span<int32_t> labels) const = 0;
  /// Where the id at `offset` of a row stands, for messages.
  virtual std::string place(uint64_t row, size_t offset) const = 0;
  /// All rows have the same length.
  virtual bool fixed_length() const = 0;
  /// The same for the same rows in the same order.
  virtual std::string identity() const = 0;
};

/// Ids [begin, end) of some shards.
struct TokenRange {
  uint64_t begin = 0, end = 0;
};

/// Rows cut one after another from ranges of a stream of ids: row i takes `length` ids and, as labels, the same one
/// further, so every id but the first is a target once.
class StreamRows : public RowSource {
 public:
  /// `ranges` are joined, in order. `keep_tail`: the rest that does not fill a row makes a last row, padded with
  /// kIgnore (for evaluation); else it is left out.
  StreamRows(std::shared_ptr<const TokenShards> shards, std::vector<TokenRange> ranges, int64_t length, bool keep_tail);
  uint64_t rows() const override { return rows_; }
  uint64_t tokens() const override { return starts_.back(); }
  size_t read(uint64_t row, std::span<int32_t> input_ids, std::span<int32_t> labels) const override;
  std::string place(uint64_t row, size_t offset) const override;
  bool fixed_length() const override { return true; }
  std::string identity() const override;

 private:
  std::shared_ptr<const TokenShards> shards_;
  std::vector<TokenRange> ranges_;
  std::vector<uint64_t> starts_{0};  // ranges + 1: ids before each
  uint64_t length_, rows_;
};

/// Splits a stream into what is trained on and what is held out: the last `fraction` of each of up to 16 equal
/// stretches, so that validation sees every part of the corpus. A cut moves on to the next end of a document where one
/// is near.
struct HeldOut {
  std::vector<TokenRange> train, validation;
};
HeldOut hold_out(const TokenShards& shards, double fraction, int64_t length);

/// JSON lines {"input_ids": [...], "labels": [...]}, labels as Hugging Face has them: labels[t] belongs to
/// input_ids[t], -100 is not trained on, and without labels the ids are. All are looked at once, then each is read when
/// it is asked for; memory holds 8 bytes a row.
class TokenizedRows : public RowSource {
 public:
  /// Throws Error(data) for a row that is broken or too long, and when no row has a label to train on; warns of those
  /// that have none.
  TokenizedRows(const fs::path& path, int64_t max_length);
  /// True when the first row of this .jsonl file has "input_ids".
  static bool is_tokenized(const std::string& path);
  uint64_t rows() const override { return offsets_.size(); }
  uint64_t tokens() const override { return tokens_; }
  size_t read(uint64_t row, std::span<int32_t> input_ids, std::span<int32_t> labels) const override;
  std::string place(uint64_t row, size_t offset) const override;
  bool fixed_length() const override { return false; }
  std::string identity() const override { return identity_; }

 private:
  void look_at_all();
  uint64_t line_of(uint64_t row) const;
  MappedFile file_;
  int64_t max_length_;
  std::vector<uint64_t> offsets_;  // of the rows' first bytes
  std::string identity_;
  uint64_t tokens_ = 0;
};

/// Several sources seen as one.
class JoinedRows : public RowSource {
 public:
  explicit JoinedRows(std::vector<std::shared_ptr<RowSource>> parts);
  uint64_t rows() const override { return starts_.back(); }
  uint64_t tokens() const override;
  size_t read(uint64_t row, std::span<int32_t> input_ids, std::span<int32_t> labels) const override;
  std::string place(uint64_t row, size_t offset) const override;
  bool fixed_length() const override;
  std::string identity() const override;

 private:
  size_t part_of(uint64_t row) const;
  std::vector<std::shared_ptr<RowSource>> parts_;
  std::vector<uint64_t> starts_{0};
};

}  // namespace llmtk::data
