#pragma once
// Rounding a model layer by layer on calibration text: each layer sees what the layers before it, already rounded,
// give.

#include <functional>
#include <vector>

#include "nn/linear.h"
#include "quant/plan.h"

namespace llmtk::quant {

/// What becomes of the matrices, one after the other.
class Rounder {
 public:
  virtual ~Rounder() = default;
  /// The storage of a matrix that an earlier run has rounded; null: round() has to.
  virtual std::shared_ptr<const nn::WeightStorage> rounded(const PlannedMatrix& matrix) = 0;
  /// hessian: X^T X of the layer's inputs over all samples, [in, in] float32.
  virtual std::shared_ptr<const nn::WeightStorage> round(const PlannedMatrix& matrix, const at::Tensor& hessian) = 0;
  /// After each layer, of `total`. Throws to stop.
  virtual void layer_done(int64_t done, int64_t total) = 0;
};

/// samples: token ids, [1, T] int64 each, on the model's device. Goes through the model's layers (nn::checkpoint knows
/// them; of an encoder-decoder the encoder's first; both sides read the text), collects the Hessians of the planned
/// linear layers in it, rounds those and puts their storages into the model; then those outside of layers, as a head.
/// Tables are not looked at. Keeps one activation per token, and one layer's Hessians.
void calibrate(nn::Model& model, const Plan& plan, const std::vector<at::Tensor>& samples, Rounder& rounder);

}  // namespace llmtk::quant
