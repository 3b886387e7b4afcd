#pragma once
// Where a run stands: everything the loop remembers between steps besides weights, optimizer, random numbers and the
// place in the data. One small struct, saved in trainer_state.json.

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "train/metric_sums.h"

namespace llmtk::train {

struct LoopState {
  int64_t step = 0;           ///< optimizer steps done, skipped ones included
  int64_t tokens = 0;         ///< tokens read, those of skipped steps too
  int64_t target_tokens = 0;  ///< tokens trained on
  double seconds = 0;         ///< spent training, over all the run's processes

  int64_t nonfinite_steps = 0;   ///< steps skipped for a NaN or an infinity
  int64_t nonfinite_in_row = 0;  ///< of these the last ones in a row

  /// The window whose mean the next log line reports.
  double window_loss = 0;  ///< sum over target tokens
  int64_t window_targets = 0;
  MetricSums window_metrics;

  std::optional<double> last_loss;       ///< of the last step that was finite
  std::optional<double> last_eval_loss;  ///< of the last evaluation, finite or not
  int64_t last_eval_step = -1;
  int64_t last_sample_step = -1;
  std::optional<double> best_eval_loss;  ///< the lowest
  std::optional<double> best_metric;     ///< of metric_for_best_model
  int64_t best_step = -1;                ///< the step that best_metric belongs to
  int64_t evaluations_without_gain = 0;  ///< what early stopping counts
  bool stopped_early = false;

  nlohmann::ordered_json to_json() const;
  /// Throws Error(file) naming a key that is missing or has another type; `where` is the file.
  static LoopState from_json(const nlohmann::ordered_json& json, const std::string& where);
};

/// One key whose value differs between a checkpoint's config and the one a run is resumed with.
struct ConfigChange {
  enum class Kind {
    refused,  ///< the checkpoint does not fit: another model, other data
    warned,   ///< it fits, but the run is no longer the one that was begun
  };
  std::string key, before, after;
  Kind kind = Kind::warned;
};

/// Compares two resolved configs (objects of sections of leaves). Keys that only say where files lie, how often
/// something is reported or which machine does the work are left out: that the data is the same is told by its
/// checksums. A key that is null is one that is not there.
std::vector<ConfigChange> compare_configs(const nlohmann::ordered_json& before, const nlohmann::ordered_json& after);

}  // namespace llmtk::train
