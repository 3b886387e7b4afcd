#pragma once
// Matrices of few bits on plain memory: packing, unpacking, and products with few rows.

#include <array>
#include <cstdint>

#include "kernels/types.h"

namespace llmtk::kernels {

/// nf4, fp4: four bits that stand for one of 16 values, times a scale per block of 64 elements. int8: times a scale per
/// row.
enum class QuantType : uint8_t { nf4, fp4, int8 };

inline constexpr int64_t kQuantBlock = 64;        ///< elements of the flat matrix that share a scale
inline constexpr int64_t kQuantScaleBlock = 256;  ///< scales that share a scale where they are quantized too

/// The 16 values in the order of their codes. NF4: Dettmers et al. 2023 (QLoRA), appendix E. FP4: sign, two bits of
/// exponent, one of mantissa, 12 being the largest.
inline constexpr std::array<float, 16> kNf4Values = {-1.0f,
                                                     -0.6961928009986877f,
                                                     -0.5250730514526367f,
                                                     -0.39491748809814453f,
                                                     -0.28444138169288635f,
                                                     -0.18477343022823334f,
                                                     -0.09105003625154495f,
                                                     0.0f,
                                                     0.07958029955625534f,
                                                     0.16093020141124725f,
                                                     0.24611230194568634f,
                                                     0.33791524171829224f,
                                                     0.44070982933044434f,
                                                     0.5626170039176941f,
                                                     0.7229568362236023f,
                                                     1.0f};
inline constexpr std::array<float, 16> kFp4Values = {
    0.0f, 0.0625f / 12,  8.0f / 12,  1.0f,  4.0f / 12,  6.0f / 12,  2.0f / 12,  3.0f / 12,
    0.0f, -0.0625f / 12, -8.0f / 12, -1.0f, -4.0f / 12, -6.0f / 12, -2.0f / 12, -3.0f / 12};
/// The codes in the order of their values. FP4's second zero stands for what is a little above zero.
inline constexpr std::array<uint8_t, 16> kNf4Order = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
inline constexpr std::array<uint8_t, 16> kFp4Order = {11, 10, 13, 12, 15, 14, 9, 0, 8, 1, 6, 7, 4, 5, 2, 3};

inline const std::array<float, 16>& values_of(QuantType type) {
  return type == QuantType::fp4 ? kFp4Values : kNf4Values;
}
inline const std::array<uint8_t, 16>& order_of(QuantType type) {
  return type == QuantType::fp4 ? kFp4Order : kNf4Order;
}

/// A matrix [N, K].
struct Packed {
  QuantType type;
  int64_t N, K;
  const void* codes;    ///< four bits: two elements in a byte, the first in its upper half; int8: [N, K]
  const float* scales;  ///< of the blocks, or of the rows; null where they are scale_map[scale_codes] scale_scales +
                        ///< scale_offset
  const uint8_t* scale_codes;
  const float* scale_map;     ///< [256]
  const float* scale_scales;  ///< one per kQuantScaleBlock blocks
  float scale_offset;
};

/// Rows and columns of a Packed.
struct Rectangle {
  int64_t row, rows, column, columns;
};

/// y[m, n] = sum over k of x[m, k] w[n, k], + bias[n]; summed in float32. With four bits K must be whole blocks.
struct PackedFewRows {
  static constexpr int64_t kMost = 8;      ///< rows of x
  static constexpr int64_t kColumns = 64;  ///< of y in one block; the last block may have fewer

  Packed matrix;
  Type type;         ///< of bias and y
  int64_t M;         ///< from 1 to kMost
  const float* x;    ///< [M, K]
  const void* bias;  ///< [N], may be null
  void* y;           ///< [M, N]
};

namespace cpu {
/// n floats in blocks of kQuantBlock, four bits: codes [(n + 1) / 2], scales: one per block, its largest absolute
/// value.
void pack4(QuantType type, const float* x, int64_t n, uint8_t* codes, float* scales, int64_t block_begin,
           int64_t block_end);
/// Rows [begin, end) of the rectangle, rounded to `rounded`, stored as `stored`: out [rows, columns].
void unpack(const Packed& p, const Rectangle& r, Type rounded, Type stored, void* out, int64_t begin, int64_t end);
void packed_few_rows(const PackedFewRows& f, int64_t block_begin, int64_t block_end);
}  // namespace cpu

namespace cuda {
void unpack(const Packed& p, const Rectangle& r, Type stored, void* out, void* stream);
}  // namespace cuda

}  // namespace llmtk::kernels
