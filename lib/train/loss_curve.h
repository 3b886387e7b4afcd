#pragma once
// The loss over the steps of a run, as a picture.

#include <string>
#include <vector>

#include "train/metrics.h"

namespace llmtk::train {

/// An SVG of the training and evaluation losses in `rows` (rows of metrics.jsonl); readable on light and dark
/// backgrounds. Rows without a finite loss are left out.
std::string loss_curve_svg(const std::vector<Row>& rows, const std::string& title);

}  // namespace llmtk::train
