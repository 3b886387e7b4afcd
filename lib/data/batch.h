#pragma once
// What a loader gives to a training loop. No LibTorch here: loaders run on threads of their own.

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <vector>

namespace llmtk::data {

inline constexpr int32_t kIgnore = -100;  ///< a label that is not trained on

/// One micro-batch: B rows of T tokens, row-major.
struct Batch {
  int64_t rows = 0;                ///< B
  int64_t length = 0;              ///< T
  std::vector<int32_t> input_ids;  ///< [B, T]
  std::vector<int32_t>
      labels;  ///< [B, T]; labels[t] is the target for position t (already shifted), kIgnore where none
  /// [B, T], or empty: 0, 1, 2, ... Where one is not its neighbour's plus one another text begins, which does not see
  /// those before it.
  std::vector<int32_t> position_ids;
  int64_t target_tokens = 0;  ///< labels that are not kIgnore
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
