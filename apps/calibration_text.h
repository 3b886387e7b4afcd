#pragma once
// The text that a model reads while its matrices are rounded.

#include "comparison.h"
#include "quantize_config.h"
#include "text/tokenizer.h"

namespace llmtk {

struct CalibrationText {
  TokenRows samples;   ///< num_samples of them, of max_length tokens each
  TokenRows held_out;  ///< what follows them, to judge on
};

/// The files' documents one after the other, cut into pieces. held_out: so many tokens at most. Throws Error(data)
/// where they are too short for what is asked for.
CalibrationText read_calibration(const CalibrationConfig& config, const text::Tokenizer& tokenizer, int64_t held_out);

}  // namespace llmtk
