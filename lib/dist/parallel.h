#pragma once
// What a training loop needs to know of the other processes. The loop does not know which form it has.

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <vector>

namespace llmtk::dist {

/// A group of processes that train one model together. Every call here is made by all of them, in the same order.
class Parallel {
 public:
  virtual ~Parallel() = default;
  virtual int rank() const = 0;
  virtual int world_size() const = 0;
  bool is_main() const { return rank() == 0; }

  /// The sum over all ranks, on every rank.
  virtual int64_t sum(int64_t value) = 0;
  /// In place.
  virtual void sum(at::Tensor& tensor) = 0;
  /// Adds up the gradients of all ranks, in place. The loop scales each loss by one over the targets of all ranks, so
  /// the sum, not the mean, is the gradient.
  virtual void sum_gradients(const std::vector<at::Tensor>& gradients) = 0;
  /// Makes every rank's parameters those of rank 0.
  virtual void broadcast_parameters(const std::vector<at::Tensor>& parameters) = 0;
  /// Returns when every rank is here.
  virtual void barrier() = 0;
};

/// One process: sums are what they are.
std::unique_ptr<Parallel> single_process();

}  // namespace llmtk::dist
