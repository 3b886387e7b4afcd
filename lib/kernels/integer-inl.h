// What integer_cpu.cpp and integer_rows_cpu.cpp share, compiled once per instruction set: how rows of x lie before they are
// multiplied with rows of integers. No include guard in the usual sense, see Highway.

#if defined(LLMTK_KERNELS_INTEGER_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef LLMTK_KERNELS_INTEGER_INL_H
#undef LLMTK_KERNELS_INTEGER_INL_H
#else
#define LLMTK_KERNELS_INTEGER_INL_H
#endif

#include <hwy/highway.h>

#include "kernels/integer_impl.h"
#include "kernels/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace llmtk::kernels::HWY_NAMESPACE {

/// Codes of a row that are multiplied at a time: four bits fill a vector, and with eight it is as many.
inline constexpr int64_t kUnit = 8 * kLanes;

HWY_INLINE int64_t own_units(int64_t K) { return (K + kUnit - 1) / kUnit; }

/// One row: kUnit numbers of x (floats, shorts or bytes) per unit; per unit and lane what a lane's sum starts from, so
/// that codes may lie with something added; per group the sum of its numbers; the scale.
struct Prepared {
  float* x;
  float* starts;  // floats or int32
  float* group_sums;
  float* scale;
};

HWY_INLINE Prepared prepared_row(const IntegerFewRows& f, int64_t m) {
  float* row = f.prepared + m * f.prepared_floats();
  float* starts = row + f.padded();
  float* group_sums = starts + f.padded() / 8;
  return {row, starts, group_sums, group_sums + f.groups()};
}

HWY_INLINE float scale_at(const IntegerWeights& w, int64_t i) {
  return w.scale_type == Type::float32 ? load_one(static_cast<const float*>(w.scales) + i)
                                       : load_one(static_cast<const BFloat16*>(w.scales) + i);
}

}  // namespace llmtk::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
