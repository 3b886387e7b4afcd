#pragma once
// One optimizer step, whatever loop it belongs to.

#include <ATen/core/Tensor.h>

#include "dist/parallel.h"
#include "train/config.h"
#include "train/gradients.h"
#include "train/observer.h"
#include "train/optimizer.h"
#include "train/state.h"

namespace llmtk::train {

struct Update {
  double loss = 0;
  double norm = 0;  ///< of the gradient, before clipping
  double learning_rate = 0;
  bool finite = true;  ///< false: the step was skipped
};

/// Applies what backward has left in `gradients`, summed over all ranks and clipped to max_grad_norm, at learning_rate *
/// factor; where the loss or the norm is not finite nothing is changed. loss: a scalar, summed too. The gradients are
/// cleared.
Update update(Optimizer& optimizer, Gradients& gradients, const OptimizerConfig& config, double factor, at::Tensor loss,
              dist::Parallel& parallel);

/// Counts a step that was skipped, with a warning. Throws Error(diverged) after max_nonfinite_steps in a row, naming the
/// last good checkpoint. observer: may be null.
void note_skipped(const Update& update, const TrainerConfig& config, LoopState& state, Observer* observer);

}  // namespace llmtk::train
