#pragma once
// What an objective reports beside its loss.

#include <ATen/core/Tensor.h>

#include <span>

#include "train/metric_sums.h"

namespace llmtk::rl {

struct Figure {
  const char* name;
  at::Tensor values;   ///< [n]
  at::Tensor counted;  ///< [n] bool: the values that are meant over
};

/// Adds each figure's sum and count; one copy from the device for all of them.
void add_figures(train::MetricSums& sums, std::span<const Figure> figures);

/// Of one number or more.
double mean_of(std::span<const double> values);
/// The unbiased variance, as torch.var; 0 of one number.
double variance_of(std::span<const double> values);

}  // namespace llmtk::rl
