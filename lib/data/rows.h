#pragma once
// Rows, reachable by number: what a loader draws from.

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/file.h"
#include "data/batch.h"
#include "data/shard.h"

namespace llmtk::data {

/// Reading is thread-safe.
class RowSource {
 public:
  virtual ~RowSource() = default;
  virtual uint64_t rows() const = 0;
  virtual uint64_t tokens() const = 0;  ///< ids in all rows together
  /// Makes `out` row `row`; what it held before is gone. Throws Error(data).
  virtual void read(uint64_t row, Example& out) const = 0;
  /// Ids in row `row`.
  virtual uint64_t length(uint64_t row) const;
  /// Where the id at `offset` of a row stands, for messages.
  virtual std::string place(uint64_t row, size_t offset) const = 0;
  /// The same for the same rows in the same order.
  virtual std::string identity() const = 0;
};

/// Ids [begin, end) of some shards.
struct TokenRange {
  uint64_t begin = 0, end = 0;
};

struct StreamOptions {
  int64_t length = 1024;  ///< ids of the stream in a row
  /// The labels are the ids one further, so every id but the first is a target once, and the last id of all is a label
  /// alone. False: there are none.
  bool next_as_label = true;
  std::vector<int32_t> before, after;  ///< what stands around the ids of every row ([CLS], [SEP])
};

/// Rows cut one after another from ranges of a stream of ids.
class StreamRows : public RowSource {
 public:
  /// `ranges` are joined, in order. `keep_tail`: the rest that does not fill a row makes a last, shorter one (for
  /// evaluation); else it is left out.
  StreamRows(std::shared_ptr<const TokenShards> shards, std::vector<TokenRange> ranges, StreamOptions options,
             bool keep_tail);
  uint64_t rows() const override { return rows_; }
  uint64_t tokens() const override { return starts_.back(); }
  void read(uint64_t row, Example& out) const override;
  std::string place(uint64_t row, size_t offset) const override;
  std::string identity() const override;

 private:
  std::shared_ptr<const TokenShards> shards_;
  std::vector<TokenRange> ranges_;
  std::vector<uint64_t> starts_{0};  // ranges + 1: ids before each
  StreamOptions options_;
  uint64_t length_, rows_;
};

/// Splits a stream into what is trained on and what is held out: the last `fraction` of each of up to 16 equal
/// stretches, so that validation sees every part of the corpus. A cut moves on to the next end of a document where one
/// is near.
struct HeldOut {
  std::vector<TokenRange> train, validation;
};
HeldOut hold_out(const TokenShards& shards, double fraction, int64_t length);

/// How the labels of rows that are tokenized already belong to their ids.
enum class TokenizedLabels {
  shifted,   ///< a decoder's: labels[t] belongs to input_ids[t] and is predicted one before; without labels the ids are
  aligned,   ///< an encoder's: labels[t] is predicted at t; without labels there are none
  separate,  ///< an encoder-decoder's: the decoder's ids, in any number; without labels there are none
};

/// JSON lines {"input_ids": [...], "labels": [...]}, labels as Hugging Face has them, -100 where nothing is trained on.
/// All are looked at once, then each is read when it is asked for; memory holds 8 bytes a row.
class TokenizedRows : public RowSource {
 public:
  /// Throws Error(data) for a row that is broken or too long, and when no row has a label to train on; warns of those
  /// that have none.
  TokenizedRows(const fs::path& path, int64_t max_length, TokenizedLabels kind = TokenizedLabels::shifted);
  /// True when the first row of this .jsonl file has "input_ids".
  static bool is_tokenized(const std::string& path);
  uint64_t rows() const override { return offsets_.size(); }
  uint64_t tokens() const override { return tokens_; }
  void read(uint64_t row, Example& out) const override;
  std::string place(uint64_t row, size_t offset) const override;
  std::string identity() const override { return identity_; }

 private:
  void look_at_all();
  uint64_t line_of(uint64_t row) const;
  MappedFile file_;
  int64_t max_length_;
  TokenizedLabels kind_;
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
  void read(uint64_t row, Example& out) const override;
  uint64_t length(uint64_t row) const override;
  std::string place(uint64_t row, size_t offset) const override;
  std::string identity() const override;

 private:
  size_t part_of(uint64_t row) const;
  std::vector<std::shared_ptr<RowSource>> parts_;
  std::vector<uint64_t> starts_{0};
};

}  // namespace llmtk::data
