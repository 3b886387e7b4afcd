#pragma once
// Dropout whose mask is a function of a seed and an element's place, on plain memory: nothing is kept for the backward
// pass, and every piece of a tensor can be masked alone.

#include <cstdint>

#include "kernels/types.h"

namespace llmtk::kernels {

/// Zeroes elements with a probability and scales the others.
struct Dropout {
  uint64_t seed;
  uint32_t threshold;  ///< p * 2^32, at least 1: of so many values of an element's 32 random bits it is dropped
  float scale;         ///< of what stays: 1 / (1 - p)
  int64_t first_row;   ///< the place in the whole tensor of the first row given here
  int64_t columns;
};

namespace cpu {
/// y = dropout(x). x: `type`, rows contiguous; y: float32.
void dropout(const Dropout& d, Type type, const void* x, float* y, int64_t row_begin, int64_t row_end);
/// y = dropout(x), both of `type`.
void dropout_same(const Dropout& d, Type type, const void* x, void* y, int64_t row_begin, int64_t row_end);
/// y += dropout(x). x: float32; y: `type`.
void dropout_add(const Dropout& d, Type type, const float* x, void* y, int64_t row_begin, int64_t row_end);
}  // namespace cpu

}  // namespace llmtk::kernels
