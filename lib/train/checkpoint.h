#pragma once
// Checkpoint folders: output_dir/checkpoint-<step>/, whole or not there.
//
// A checkpoint is filled under a temporary name, every file is synced and listed with size and checksum in
// manifest.json, and only then the folder gets its name. So a crash leaves a temporary folder that no reader looks at,
// and damage that comes later (a torn disk, a careless copy) shows against the manifest.

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace llmtk::train {

namespace fs = std::filesystem;

struct CheckpointFolder {
  int64_t step = 0;
  fs::path path;
};

/// Writes one checkpoint. Without commit() nothing of it stays.
class CheckpointWriter {
 public:
  /// Throws Error(file), before anything is touched, when the disk has less than `bytes_needed` free.
  CheckpointWriter(const fs::path& output_dir, int64_t step, uint64_t bytes_needed);
  ~CheckpointWriter();
  CheckpointWriter(const CheckpointWriter&) = delete;
  CheckpointWriter& operator=(const CheckpointWriter&) = delete;

  /// Where its files go.
  const fs::path& folder() const { return temporary_; }
  /// Manifest, fsync, rename, fsync. Returns the checkpoint's folder. Throws Error(file).
  fs::path commit();

 private:
  fs::path output_dir_, temporary_, final_;
  int64_t step_;
  bool committed_ = false;
};

/// Every checkpoint-<step> in `output_dir`, oldest first; none when the folder is not there.
std::vector<CheckpointFolder> list_checkpoints(const fs::path& output_dir);

/// What is wrong with a checkpoint ("model.safetensors: 12 bytes, the manifest says 4096"), or nothing. Reads every
/// byte.
std::optional<std::string> checkpoint_damage(const fs::path& checkpoint);

/// The newest checkpoint that is whole; damaged ones are named in a warning and passed over.
std::optional<CheckpointFolder> newest_whole_checkpoint(const fs::path& output_dir);

/// Deletes the oldest checkpoints until `limit` are left (0: keeps all); never the newest, never the one at
/// `best_step`.
void rotate_checkpoints(const fs::path& output_dir, int64_t limit, int64_t best_step);

/// Removes what a killed run left half-written.
void remove_unfinished(const fs::path& output_dir);

/// Moves the checkpoints after `step` aside (abandoned-checkpoint-<step>): a run that went back to `step` goes another
/// way, and must neither go on from theirs nor rotate its own away before them. Throws Error(file).
void abandon_checkpoints(const fs::path& output_dir, int64_t step);

/// Deletes what was moved aside: the run that took another way has come to its end.
void remove_abandoned(const fs::path& output_dir);

/// Whether a folder holds the weights of a model or an adapter.
bool holds_model(const fs::path& folder);

/// Whether a run has begun in this folder.
bool holds_run(const fs::path& output_dir);

/// Deletes what a run wrote into `output_dir`: checkpoints, metrics, charts, the model's weights. Nothing else.
void clear_run(const fs::path& output_dir);

/// Files gathered in a temporary folder inside `folder`, then moved into it one by one: for the final model, which
/// stands in output_dir itself. Throws Error(file).
class FolderUpdate {
 public:
  FolderUpdate(const fs::path& folder, uint64_t bytes_needed);
  ~FolderUpdate();
  FolderUpdate(const FolderUpdate&) = delete;
  FolderUpdate& operator=(const FolderUpdate&) = delete;
  const fs::path& folder() const { return temporary_; }
  void commit();

 private:
  fs::path folder_, temporary_;
};

/// Held as long as a run writes to `output_dir`; a second run in the same folder gets Error(usage).
class RunLock {
 public:
  explicit RunLock(const fs::path& output_dir);
  ~RunLock();
  RunLock(const RunLock&) = delete;
  RunLock& operator=(const RunLock&) = delete;

 private:
  int fd_ = -1;
};

}  // namespace llmtk::train
