#include "train/update.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "core/error.h"
#include "core/log.h"
#include "kernels/optimizer.h"
#include "train/checkpoint.h"

namespace llmtk::train {

Update update(Optimizer& optimizer, Gradients& gradients, const OptimizerConfig& config, double factor, at::Tensor loss,
              dist::Parallel& parallel) {
  std::vector<at::Tensor> of_parameters = gradients.tensors(), reached;
  for (const auto& gradient : of_parameters)
    if (gradient.defined()) reached.push_back(gradient);
  parallel.sum_gradients(reached);
  parallel.sum(loss);

  Update done{.loss = loss.item<double>(),
              .norm = std::sqrt(kernels::squared_norm(reached)),
              .learning_rate = config.learning_rate * factor};
  done.finite = std::isfinite(done.loss) && std::isfinite(done.norm);
  if (done.finite) {
    const double limit = config.max_grad_norm;
    const double clip = limit > 0 ? std::min(1.0, limit / (done.norm + 1e-6)) : 1.0;  // as torch's clip_grad_norm_
    optimizer.step(done.learning_rate, clip, of_parameters);
  }
  of_parameters.clear();
  reached.clear();
  gradients.clear();
  return done;
}

void note_skipped(const Update& update, const TrainerConfig& config, LoopState& state, Observer* observer) {
  ++state.nonfinite_steps;
  ++state.nonfinite_in_row;
  const std::string what = std::isfinite(update.loss) ? detail::concat("the gradient's norm is ", update.norm)
                                                      : detail::concat("the loss is ", update.loss);
  log::warn(detail::concat("step ", state.step, ": ", what, "; the step is skipped (", state.nonfinite_in_row, " of ",
                           config.max_nonfinite_steps, " in a row)"));
  if (state.nonfinite_in_row < config.max_nonfinite_steps) return;
  if (observer) observer->sync();
  const auto good = newest_whole_checkpoint(config.output_dir);
  throw Error(
      Exit::diverged,
      {.what = detail::concat("training diverged: ", what, " at step ", state.step, ", for ", state.nonfinite_in_row,
                              " steps in a row"),
       .hint = (good ? "the last good checkpoint is " + good->path.string() : "no checkpoint was saved before") +
               "; lower optimizer.learning_rate, lengthen the warm-up or lower optimizer.max_grad_norm"});
}

}  // namespace llmtk::train
