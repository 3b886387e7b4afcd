#pragma once
// Norms, and the residual stream between them.

#include "kernels/elementwise.h"
#include "nn/linear.h"

namespace llmtk::nn {

/// The residual stream of a pre-norm decoder. A sub-layer's output waits in `update` until the next norm adds it to the
/// stream and normalises the sum in one pass over memory.
struct Residual {
  at::Tensor stream;  ///< [B, T, H]
  at::Tensor update;  ///< [B, T, H], or undefined: nothing waits

  at::Tensor sum() const { return update.defined() ? kernels::add(stream, update) : stream; }
};

/// As torch.nn.LayerNorm over the last dimension.
class LayerNorm : public torch::nn::Module {
 public:
  /// affine: with a weight and a bias that are trained; else the weight is 1 and there is no bias.
  LayerNorm(int64_t width, double eps, const Build& build, bool affine = true);
  at::Tensor forward(const at::Tensor& x) const;
  /// Moves x.update into x.stream and returns the norm of the sum.
  at::Tensor forward(Residual& x) const;

  at::Tensor weight, bias;  ///< [H]; the bias may be undefined

 private:
  double eps_;
};

/// As HF's LlamaRMSNorm; with unit_offset as its GemmaRMSNorm, which keeps the weight as its distance from 1.
class RMSNorm : public torch::nn::Module {
 public:
  RMSNorm(int64_t width, double eps, const Build& build, bool unit_offset = false);
  at::Tensor forward(const at::Tensor& x) const;
  at::Tensor forward(Residual& x) const;

  at::Tensor weight;  ///< [H]

 private:
  double eps_;
  bool unit_offset_;
};

/// Inverted dropout; x itself when p is 0 or the module that asks is not training.
at::Tensor dropout(const at::Tensor& x, double p, bool training);

}  // namespace llmtk::nn
