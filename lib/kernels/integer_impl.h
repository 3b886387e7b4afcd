#pragma once
// The product of few rows with a matrix of integers, on plain memory: every code is read once.

#include <cstdint>

#include "kernels/types.h"

namespace llmtk::kernels {

/// W[n, k] = (code[n, k] - zero_point[n, g]) scale[n, g], g = k / group.
struct IntegerWeights {
  int bits;     ///< 4 or 8
  bool offset;  ///< codes lie with 2^(bits - 1) added; of 4 bits always: two in a byte, the first in its lower half
  int64_t N, K, group;  ///< group: columns that share a scale
  const void* codes;
  int64_t row_bytes;   ///< from one row of codes to the next
  const void* scales;  ///< [N, K / group]
  Type scale_type;
  const int8_t* zero_points;  ///< [N, K / group], or null: 0

  int64_t groups() const { return K / group; }
};

/// y[i, :] = W[ids[i], :].
struct IntegerLookup {
  IntegerWeights weights;
  Type type;  ///< of y
  const int64_t* ids;
  void* y;
};

/// y[m, n] = sum over k of x[m, k] (code[n, k] - zero_point[n, g]) scale[n, g], + bias[n]. What becomes of a row does
/// not depend on the others, to the last bit.
struct IntegerFewRows : IntegerWeights {
  static constexpr int64_t kMost = 32;          ///< rows
  static constexpr int64_t kUnit = 128;         ///< codes that the widest processors take at a time
  static constexpr int64_t kMostScales = 2048;  ///< of a row
  static constexpr int64_t kColumns = 16;       ///< of y in one block; the last block may have fewer

  bool dynamic;  ///< rows of x are rounded to 8 bits first
  int64_t M;
  Type type;         ///< of x, bias and y
  const void* x;     ///< [M, K]
  const void* bias;  ///< [N], may be null
  void* y;           ///< [M, N]
  float* prepared;   ///< [M, prepared_floats()]: x as the products take it

  /// Whether the sizes are such as these kernels take.
  bool fits() const {
    const bool whole = group == K || group % kUnit == 0, short_groups = bits == 4 && (group == 32 || group == 64);
    return M <= kMost && (whole || short_groups) && (bits == 8 || K % 8 == 0) && K / 8 <= kMostScales;
  }
  /// Of x in whole units.
  int64_t padded() const { return (K + kUnit - 1) / kUnit * kUnit; }
  /// x, a number for each eight of it, one per group, and its scale.
  int64_t prepared_floats() const { return padded() + padded() / 8 + groups() + 1; }
  int64_t blocks() const { return (N + kColumns - 1) / kColumns; }
};

namespace cpu {
/// Elements [begin, end) of ids.
void integer_lookup(const IntegerLookup& l, int64_t begin, int64_t end);
/// Rows [begin, end) of x.
void integer_prepare(const IntegerFewRows& f, int64_t begin, int64_t end);
/// Blocks of columns of y, when all of x is prepared.
void integer_few_rows(const IntegerFewRows& f, int64_t block_begin, int64_t block_end);
}  // namespace cpu

namespace cuda {
/// All rows; what x becomes first as well.
void integer_few_rows(const IntegerFewRows& f, void* stream);
}  // namespace cuda

}  // namespace llmtk::kernels
