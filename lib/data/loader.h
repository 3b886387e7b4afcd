#pragma once
// Batches out of rows: mixing, shuffling, epochs, ranks, and a position that is saved and restored exactly.

#include <cstdint>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "data/batch.h"
#include "data/rows.h"

namespace llmtk::data {

/// One member of a mixture.
struct MixtureSource {
  std::shared_ptr<RowSource> rows;
  double weight = 1;       ///< its share of all rows, relative to the others'; 0: never drawn
  int64_t max_epochs = 0;  ///< passes over it, after which the others share its weight; 0: any number
  std::string name;        ///< for messages
};

struct RowLoaderOptions {
  int64_t batch_size = 1;  ///< B, rows of one rank
  int64_t length = 1024;   ///< the greatest length of a row of a source
  bool shuffle = true;     ///< within each source, anew in each epoch
  /// After the shuffling each stretch of 50 batches (fewer where the source is small) gives its longest rows first, so
  /// that a batch's rows are about as long as each other (HF's group_by_length).
  bool group_by_length = false;
  uint64_t seed = 0;
  int64_t epochs = 1;  ///< 0: without end
  int rank = 0, world_size = 1;
  int64_t vocab_size = 0;  ///< ids from here on are an error, in labels too where they are ids; 0: not checked
  bool labels_are_ids = true;
  bool rows_are_targets = false;  ///< Batch::targets counts rows with a label
  /// What becomes of a row before the model gets it (hidden tokens, say); may be empty. Called on any thread; `random`
  /// is another number for each time a row is drawn, and the same in a run that goes on from a checkpoint.
  std::function<void(Example& example, uint64_t random)> transform;
};

/// A transform: positions restart behind each `end`, which predicts nothing, so that the texts of a row are trained on
/// as if each stood alone.
void separate_documents(Example& example, int32_t end);

/// Rows are numbered over the whole run and all ranks: which rows batch n holds depends on the seed and on B *
/// world_size, not on how many ranks share them. An epoch has as many rows as all sources together; its last batch may
/// be smaller. With several ranks that one is filled up with rows without targets, so that all ranks have as many.
///
/// Mixing: every draw is seeded, and every source stays within one row per other source of its exact share at any time.
class RowLoader : public BatchSource {
 public:
  /// Throws Error(data) for a source without rows, and for weights that are all zero.
  RowLoader(std::vector<MixtureSource> sources, RowLoaderOptions options);
  bool next(Batch& batch) override;
  nlohmann::ordered_json state() const override;
  void load_state(const nlohmann::ordered_json& state) override;
  int64_t total_batches() const override;
  /// Rows drawn from each source so far, by all ranks.
  const std::vector<uint64_t>& drawn() const { return drawn_; }

 private:
  struct Draw {
    size_t source;
    uint64_t row;
    uint64_t random;
  };
  bool draw(Draw& out);
  Example example(const Draw& draw) const;
  uint64_t row_at(size_t source, uint64_t epoch, uint64_t at);
  size_t choose();
  bool exhausted(size_t source) const;

  std::vector<MixtureSource> sources_;
  RowLoaderOptions options_;
  uint64_t epoch_rows_ = 0;
  std::vector<uint64_t> drawn_;  // rows drawn of each source
  std::vector<uint64_t> since_;  // ... when the set of sources that are not exhausted last changed
  /// The stretch that a source is drawn from now: its rows, the longest first.
  struct Stretch {
    uint64_t epoch = 0, begin = 0;
    std::vector<uint64_t> rows;
  };
  std::vector<Stretch> stretches_;
};

/// A loader over sources as a config gives them. Where none has a weight, every row of an epoch is drawn once.
/// prefetch: batches made ahead on a thread; 0: none.
std::unique_ptr<BatchSource> make_loader(std::vector<MixtureSource> sources, const RowLoaderOptions& options,
                                         int64_t prefetch);
/// The sources as one without a weight. Throws Error(data) for any that has no rows.
MixtureSource join_sources(std::vector<MixtureSource> sources, const RowLoaderOptions& options);

/// Makes batches ahead on a thread of its own. state() is that of the last batch given out, not of those made ahead.
class PrefetchSource : public BatchSource {
 public:
  /// Holds at most `depth` batches.
  PrefetchSource(std::unique_ptr<BatchSource> source, size_t depth);
  ~PrefetchSource() override;
  bool next(Batch& batch) override;
  nlohmann::ordered_json state() const override { return state_; }
  void load_state(const nlohmann::ordered_json& state) override;
  int64_t total_batches() const override { return total_batches_; }

 private:
  struct Queue;
  void start();
  void stop();
  std::unique_ptr<BatchSource> source_;
  size_t depth_;
  int64_t total_batches_;
  nlohmann::ordered_json state_;
  std::unique_ptr<Queue> queue_;
};

}  // namespace llmtk::data
