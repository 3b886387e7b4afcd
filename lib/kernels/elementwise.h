#pragma once
// The small operations between a decoder's products. As LibTorch's own, and without a gradient on a CPU in a form that
// can be recorded (plan.h).

#include <ATen/core/Tensor.h>

namespace llmtk::kernels {

/// Rows of a table: table [R, W], ids int64 [...] -> [..., W]. padding_idx: the row that gets no gradient; -1: none.
at::Tensor lookup(const at::Tensor& table, const at::Tensor& ids, int64_t padding_idx = -1);
/// a + b.
at::Tensor add(const at::Tensor& a, const at::Tensor& b);
/// x * factor, the factor rounded to x's dtype first.
at::Tensor scale(const at::Tensor& x, double factor);
/// max(x, 0).
at::Tensor relu(const at::Tensor& x);
/// cap * tanh(x / cap): numbers well below `cap` stay nearly as they are, none goes beyond it. Gemma Team, Gemma 2
/// (2024), section 2.
at::Tensor softcap(const at::Tensor& x, double cap);
/// In float32.
at::Tensor widen(const at::Tensor& x);

}  // namespace llmtk::kernels
