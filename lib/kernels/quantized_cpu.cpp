#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/quantized_cpu.cpp"
#include <hwy/foreach_target.h>
//
#include <hwy/highway.h>

#include <algorithm>
#include <cmath>

#include "kernels/quantized_impl.h"
#include "kernels/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace llmtk::kernels::HWY_NAMESPACE {
namespace {

/// Four bits: value(i) and vector(i) are elements of the flat matrix, without their scale. vector: i is even.
class Four {
 public:
  explicit Four(const Packed& p)
      : codes_(static_cast<const uint8_t*>(p.codes)),
        values_(values_of(p.type).data()),
        low_(load(values_)),
        high_(load(values_ + 16 - kLanes)) {}
  HWY_INLINE float value(int64_t i) const { return values_[i % 2 ? codes_[i / 2] & 15 : codes_[i / 2] >> 4]; }
  HWY_INLINE V vector(int64_t i) const {
    const auto code = hn::BitCast(Ints(), spread(codes_ + i / 2));
    if constexpr (kLanes == 16) return hn::TableLookupLanes(low_, hn::IndicesFromVec(Floats(), code));
    const auto place = hn::IndicesFromVec(Floats(), hn::And(code, hn::Set(Ints(), 7)));
    const auto is_high = hn::MaskFromVec(hn::BitCast(Floats(), hn::ShiftLeft<28>(code)));
    return hn::IfThenElse(is_high, hn::TableLookupLanes(high_, place), hn::TableLookupLanes(low_, place));
  }

 private:
  /// kLanes codes, one per lane.
  static HWY_INLINE hn::Vec<Words> spread(const uint8_t* p) {
    HWY_ALIGN static constexpr uint32_t kShifts[16] = {4, 0, 12, 8, 20, 16, 28, 24, 4, 0, 12, 8, 20, 16, 28, 24};
    const Words words;
    uint32_t eight[kLanes / 8];
    std::memcpy(eight, p, sizeof(eight));
    auto word = hn::Set(words, eight[0]);
    if constexpr (kLanes == 16) word = hn::IfThenElse(hn::FirstN(words, 8), word, hn::Set(words, eight[kLanes / 16]));
    return hn::And(hn::Shr(word, hn::Load(words, kShifts)), hn::Set(words, 15));
  }

  const uint8_t* codes_;
  const float* values_;
  V low_, high_;
};

/// The same of int8.
class Eight {
 public:
  explicit Eight(const Packed& p) : codes_(static_cast<const int8_t*>(p.codes)) {}
  HWY_INLINE float value(int64_t i) const { return codes_[i]; }
  HWY_INLINE V vector(int64_t i) const {
    const auto bytes = hn::LoadU(hn::Rebind<int8_t, Floats>(), codes_ + i);
    return hn::ConvertTo(Floats(), hn::PromoteTo(Ints(), bytes));
  }

 private:
  const int8_t* codes_;
};

/// This file is compiled without contraction to fused multiply-add: the sum is rounded twice, as everywhere else.
HWY_INLINE float scale_of(const Packed& p, int64_t block) {
  if (p.scales) return p.scales[block];
  return p.scale_map[p.scale_codes[block]] * p.scale_scales[block / kQuantScaleBlock] + p.scale_offset;
}

/// Elements [begin, end) of the flat matrix, which share a scale.
template <class Rounded, class Stored, class Codes>
HWY_INLINE void unpack_block(const Codes& codes, float scale, int64_t begin, int64_t end, Stored* out) {
  int64_t i = begin;
  const auto one = [&] {
    Part{1}.put(rounded_to<Rounded>(set(codes.value(i) * scale)), out + (i - begin));
    ++i;
  };
  if (i % 2) one();
  for (; i + kLanes <= end; i += kLanes)
    store(rounded_to<Rounded>(hn::Mul(codes.vector(i), set(scale))), out + (i - begin));
  while (i < end) one();
}

template <class Rounded, class Stored, class Codes>
void unpack_rows(const Packed& p, const Rectangle& r, Stored* out, int64_t begin, int64_t end) {
  const Codes codes(p);
  const int64_t block = p.type == QuantType::int8 ? p.K : kQuantBlock;
  for (int64_t row = begin; row < end; ++row) {
    const int64_t first = (r.row + row) * p.K + r.column, last = first + r.columns;
    for (int64_t i = first; i < last;) {
      const int64_t next = std::min(last, (i / block + 1) * block);
      unpack_block<Rounded>(codes, scale_of(p, i / block), i, next, out + row * r.columns + (i - first));
      i = next;
    }
  }
}

template <class Rounded, class Stored>
void unpack_as(const Packed& p, const Rectangle& r, void* out, int64_t begin, int64_t end) {
  auto* stored = static_cast<Stored*>(out);
  p.type == QuantType::int8 ? unpack_rows<Rounded, Stored, Eight>(p, r, stored, begin, end)
                            : unpack_rows<Rounded, Stored, Four>(p, r, stored, begin, end);
}

void unpack_any(const Packed& p, const Rectangle& r, Type rounded, Type stored, void* out, int64_t begin, int64_t end) {
  if (stored == Type::bfloat16) return unpack_as<float, BFloat16>(p, r, out, begin, end);
  rounded == Type::float32 ? unpack_as<float, float>(p, r, out, begin, end)
                           : unpack_as<BFloat16, float>(p, r, out, begin, end);
}

/// Columns n to n + R of y.
template <int M, int R, class T, class Codes>
void packed_dot_products(const PackedFewRows& f, const Codes& codes, int64_t n) {
  const Packed& p = f.matrix;
  const bool by_row = p.type == QuantType::int8;
  V acc[R][M];
  for (int r = 0; r < R; ++r)
    for (int m = 0; m < M; ++m) acc[r][m] = zero();
  for (int64_t begin = 0; begin < p.K; begin += kQuantBlock) {
    const int64_t end = std::min(p.K, begin + kQuantBlock);
    V scales[R];
    for (int r = 0; r < R; ++r) scales[r] = set(scale_of(p, by_row ? n + r : ((n + r) * p.K + begin) / kQuantBlock));
    int64_t k = begin;
    for (; k + kLanes <= end; k += kLanes) {
      V w[R];
      for (int r = 0; r < R; ++r) w[r] = hn::Mul(codes.vector((n + r) * p.K + k), scales[r]);
      for (int m = 0; m < M; ++m) {
        const V x = load(f.x + m * p.K + k);
        for (int r = 0; r < R; ++r) acc[r][m] = hn::MulAdd(x, w[r], acc[r][m]);
      }
    }
    for (; k < end; ++k)  // int8 alone: blocks of four bits are whole vectors
      for (int r = 0; r < R; ++r) {
        const V w = hn::Mul(set(codes.value((n + r) * p.K + k)), scales[r]);
        for (int m = 0; m < M; ++m) acc[r][m] = hn::MulAdd(Part{1}.get(f.x + m * p.K + k), w, acc[r][m]);
      }
  }
  for (int r = 0; r < R; ++r) {
    const Part one{1};
    const V shift = f.bias ? one.get(static_cast<const T*>(f.bias) + n + r) : zero();
    for (int m = 0; m < M; ++m)
      one.put(hn::Add(hn::SumOfLanes(Floats(), acc[r][m]), shift), static_cast<T*>(f.y) + m * p.N + n + r);
  }
}

template <class T, class Codes, int M = 1>
void packed_few_rows_as(const PackedFewRows& f, int64_t begin, int64_t end) {
  if constexpr (M < PackedFewRows::kMost)
    if (f.M > M) return packed_few_rows_as<T, Codes, M + 1>(f, begin, end);
  constexpr int R = M <= 2 ? 4 : M <= 4 ? 2 : 1;  // accumulators that fit in the registers
  const Codes codes(f.matrix);
  int64_t n = begin;
  for (; n + R <= end; n += R) packed_dot_products<M, R, T>(f, codes, n);
  for (; n < end; ++n) packed_dot_products<M, 1, T>(f, codes, n);
}

template <class T>
void packed_few_rows_typed(const PackedFewRows& f, int64_t begin, int64_t end) {
  f.matrix.type == QuantType::int8 ? packed_few_rows_as<T, Eight>(f, begin, end)
                                   : packed_few_rows_as<T, Four>(f, begin, end);
}

void packed_few_rows_any(const PackedFewRows& f, int64_t begin, int64_t end) {
  f.type == Type::float32 ? packed_few_rows_typed<float>(f, begin, end)
                          : packed_few_rows_typed<BFloat16>(f, begin, end);
}

/// Where a value becomes the next code: halfway between neighbours.
std::array<float, 15> bounds_of(QuantType type) {
  std::array<float, 15> bounds;
  for (size_t i = 0; i < 15; ++i)
    bounds[i] = (values_of(type)[order_of(type)[i]] + values_of(type)[order_of(type)[i + 1]]) / 2;
  return bounds;
}

void pack4_any(QuantType type, const float* x, int64_t n, uint8_t* codes, float* scales, int64_t begin, int64_t end) {
  constexpr float kLeast = 1e-38f;
  const std::array<float, 15> bounds = bounds_of(type);
  const std::array<uint8_t, 16>& order = order_of(type);
  for (int64_t block = begin; block < end; ++block) {
    const int64_t first = block * kQuantBlock, count = std::min(kQuantBlock, n - first);
    const bool whole = count == kQuantBlock;
    float values[kQuantBlock] = {};
    std::copy_n(x + first, count, values);
    float largest = 0;
    for (const float value : values) largest = std::max(largest, std::fabs(value));
    if (!whole) largest = std::max(largest, kLeast);
    scales[block] = largest;
    const V factor = set(1 / std::max(largest, kLeast)), divisor = set(largest);
    int32_t places[kQuantBlock];
    for (int64_t i = 0; i < kQuantBlock; i += kLanes) {
      V v = load(values + i);
      v = whole ? hn::Mul(v, factor) : hn::Div(v, divisor);  // the last bit as bitsandbytes has it
      v = hn::Min(hn::Max(v, set(-1.0f)), set(1.0f));
      auto place = hn::Zero(Ints());
      for (const float bound : bounds)
        place = hn::Sub(place, hn::BitCast(Ints(), hn::VecFromMask(Floats(), hn::Gt(v, set(bound)))));
      hn::StoreU(place, Ints(), places + i);
    }
    for (int64_t i = 0; i < count; i += 2)
      codes[(first + i) / 2] = static_cast<uint8_t>(order[places[i]] << 4 | order[places[i + 1]]);
  }
}

}  // namespace
}  // namespace llmtk::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace llmtk::kernels {
HWY_EXPORT(pack4_any);
HWY_EXPORT(unpack_any);
HWY_EXPORT(packed_few_rows_any);

namespace cpu {
void pack4(QuantType type, const float* x, int64_t n, uint8_t* codes, float* scales, int64_t begin, int64_t end) {
  HWY_DYNAMIC_DISPATCH(pack4_any)(type, x, n, codes, scales, begin, end);
}
void unpack(const Packed& p, const Rectangle& r, Type rounded, Type stored, void* out, int64_t begin, int64_t end) {
  HWY_DYNAMIC_DISPATCH(unpack_any)(p, r, rounded, stored, out, begin, end);
}
void packed_few_rows(const PackedFewRows& f, int64_t block_begin, int64_t block_end) {
  HWY_DYNAMIC_DISPATCH(packed_few_rows_any)
  (f, block_begin * PackedFewRows::kColumns, std::min(f.matrix.N, block_end * PackedFewRows::kColumns));
}
}  // namespace cpu
}  // namespace llmtk::kernels
#endif
