#pragma once
// What the checkpoints and the final model of every run are, whatever its loop: the model's folder, what is trained, the
// optimizer, the random numbers and the loop's own state.

#include <c10/core/Device.h>

#include <cstdint>
#include <functional>
#include <nlohmann/json.hpp>

#include "train/checkpoint.h"
#include "train/config.h"
#include "train/optimizer.h"
#include "train/trainer.h"

namespace llmtk::train {

class RunFiles {
 public:
  /// All must outlive it. Of the task its module, its ways to save and load, parallel, observer and run_config are used.
  RunFiles(const TrainerConfig& config, const Task& task, Optimizer& optimizer, c10::Device device)
      : config_(config), task_(task), optimizer_(optimizer), device_(device) {}

  /// Makes output_dir ready for a run whose lock is held: what a killed one left goes, the random generators are seeded,
  /// and where there is a checkpoint to go on from `resume` takes it back and says its step.
  void begin(const Start& start, const std::function<int64_t(const CheckpointFolder&)>& resume) const;
  /// Writes checkpoint-<step>, and rotates older ones away but for that of `best_step`. loop, data: what resume() gives
  /// back. extra_bytes: what task.save_state will write. Throws Error(file).
  void save(int64_t step, const nlohmann::ordered_json& loop, const nlohmann::ordered_json& data, int64_t best_step,
            uint64_t extra_bytes = 0) const;
  /// Takes weights, optimizer and random numbers back. Returns {"loop", "data", ...}. Throws what read_trainer_state()
  /// throws, Error(file).
  nlohmann::ordered_json resume(const CheckpointFolder& checkpoint) const;
  /// The weights alone.
  void load_weights(const fs::path& checkpoint) const;
  /// Writes the model into output_dir; the run has come to its end.
  void save_final() const;
  /// Whether a checkpoint stands in this run's own folder.
  bool is_own(const CheckpointFolder& checkpoint) const;

 private:
  uint64_t bytes_of_model() const;

  const TrainerConfig& config_;
  const Task& task_;
  Optimizer& optimizer_;
  c10::Device device_;
};

}  // namespace llmtk::train
