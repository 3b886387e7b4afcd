#pragma once
// What a loader gives to a training loop. No LibTorch here: loaders run on threads of their own.

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <vector>

namespace llmtk::data {

inline constexpr int32_t kIgnore = -100;  ///< a label that is not trained on

/// One row of a data set, as a model takes it. n tokens.
struct Example {
  std::vector<int32_t> input_ids;  ///< [n]
  /// What is asked of the model, kIgnore where nothing is. Of each token (n of them): the next token's id for a decoder,
  /// the token's own id or class for an encoder. Of an encoder-decoder, the decoder's ids, as many as there are. Of the
  /// whole row, one class.
  std::vector<int32_t> labels;
  /// Of the whole row: numbers to predict, or for each class whether it holds (0 or 1). NaN: not asked.
  std::vector<float> values;
  /// [n], or empty: 0, 1, 2, ... Where one is not its neighbour's plus one another text begins, which does not see
  /// those before it.
  std::vector<int32_t> position_ids;
  std::vector<int32_t> token_type_ids;  ///< [n], or empty: all 0
};

/// Labels that are asked; of a row without labels, values.
uint64_t num_asked(const Example& example);

/// One micro-batch: B rows, the shorter ones padded behind their ends, row-major.
struct Batch {
  int64_t rows = 0;                     ///< B
  int64_t length = 0;                   ///< T, of the longest row
  std::vector<int32_t> input_ids;       ///< [B, T]
  std::vector<int32_t> labels;          ///< [B, U] as Example's: U is T, the longest's, 1, or 0 where there are values
  std::vector<float> values;            ///< [B, K], or empty
  std::vector<int32_t> position_ids;    ///< [B, T], or empty: as Example's
  std::vector<int32_t> token_type_ids;  ///< [B, T], or empty
  std::vector<int32_t> lengths;         ///< [B], the rows' own tokens; empty: all T
  int64_t targets = 0;                  ///< what the loss is a sum over: labels and values that are asked, or rows

  int64_t label_length() const { return rows > 0 ? static_cast<int64_t>(labels.size()) / rows : 0; }  ///< U
  int64_t num_values() const { return rows > 0 ? static_cast<int64_t>(values.size()) / rows : 0; }    ///< K
  int64_t tokens() const;  ///< of input_ids, padding left out
};

/// A source of batches with a position that can be saved and restored exactly.
class BatchSource {
 public:
  virtual ~BatchSource() = default;
  /// Fills `batch`; false when the data has ended (after the last epoch). Throws Error(data).
  virtual bool next(Batch& batch) = 0;
  /// The position after the last batch that next() gave, as JSON.
  virtual nlohmann::ordered_json state() const = 0;
  /// Goes back to a saved position. Throws Error(data) when the state belongs to other data (sizes or hashes differ).
  virtual void load_state(const nlohmann::ordered_json& state) = 0;
  /// Batches that next() gives from the beginning to the end; -1: without end, or not known.
  virtual int64_t total_batches() const { return -1; }
};

}  // namespace llmtk::data
