#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/integer_cpu.cpp"
#include <hwy/foreach_target.h>
//
#include <hwy/cache_control.h>
#include <hwy/highway.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <type_traits>
#include <vector>

#include "kernels/integer_impl.h"
#include "kernels/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace llmtk::kernels::HWY_NAMESPACE {
namespace {

using Bytes = hn::Repartition<uint8_t, Floats>;
using SignedBytes = hn::Repartition<int8_t, Floats>;
using Shorts = hn::Repartition<int16_t, Floats>;
using B = hn::Vec<Bytes>;
using I = hn::Vec<Ints>;

/// Codes of a row that are multiplied at a time: four bits fill a vector, and with eight it is as many.
constexpr int64_t kUnit = 8 * kLanes;
/// Bytes of codes that lie ahead.
constexpr int64_t kAhead = 2048;

// ---- Products of bytes
// -----------------------------------------------------------------------------------------------------

#if HWY_TARGET == HWY_AVX2
HWY_INLINE I add_short_products(I sums, hn::Vec<Shorts> codes, hn::Vec<Shorts> x) {
  return hn::Add(sums, I{_mm256_madd_epi16(codes.raw, x.raw)});
}
/// Codes of four bits: two products of two neighbours each, and two more, fit into 16 bits.
HWY_INLINE I add_nibble_products(I sums, B first, B x, B second, B y) {
  const __m256i pairs =
      _mm256_add_epi16(_mm256_maddubs_epi16(first.raw, x.raw), _mm256_maddubs_epi16(second.raw, y.raw));
  return hn::Add(sums, I{_mm256_madd_epi16(pairs, _mm256_set1_epi16(1))});
}
#else
HWY_INLINE I add_short_products(I sums, hn::Vec<Shorts> codes, hn::Vec<Shorts> x) {
  return hn::Add(sums, I{_mm512_madd_epi16(codes.raw, x.raw)});
}
HWY_INLINE I add_nibble_products(I sums, B first, B x, B second, B y) {
  const __m512i pairs =
      _mm512_add_epi16(_mm512_maddubs_epi16(first.raw, x.raw), _mm512_maddubs_epi16(second.raw, y.raw));
  return hn::Add(sums, I{_mm512_madd_epi16(pairs, _mm512_set1_epi16(1))});
}
#endif

// ---- x as the products take it
// ---------------------------------------------------------------------------------------------

/// One row: kUnit numbers of x (floats, shorts or bytes) per unit; per unit and lane what a lane's sum starts from, so
/// that codes may lie with something added; per group the sum of its numbers; the scale.
struct Prepared {
  float* x;
  float* starts;  // floats or int32
  float* group_sums;
  float* scale;
};

Prepared prepared_row(const IntegerFewRows& f, int64_t m) {
  float* row = f.prepared + m * f.prepared_floats();
  float* starts = row + f.padded();
  float* group_sums = starts + f.padded() / 8;
  return {row, starts, group_sums, group_sums + f.groups()};
}

int64_t own_units(int64_t K) { return (K + kUnit - 1) / kUnit; }

/// x / scale in whole numbers: the row's scale is its largest absolute value / 127.5.
float round_row(float* x, int64_t K) {
  const V most = fold(
      K, zero(), [&](int64_t i, auto at, V& top) { top = hn::Max(top, hn::Abs(at.get(x + i))); },
      [](V& a, V b) { a = hn::Max(a, b); });
  float scale = hn::GetLane(hn::MaxOfLanes(Floats(), most)) / 127.5f;
  if (scale == 0) scale = 0x1p-23f;
  sweep(K, [&](int64_t i, auto at) {
    const V place = hn::Div(at.get(x + i), set(scale));
    at.put(hn::Round(hn::Min(hn::Max(place, set(-128.0f)), set(127.0f))), x + i);
  });
  return scale;
}

HWY_INLINE auto as_bytes(V x) { return hn::DemoteTo(hn::Rebind<int8_t, Floats>(), hn::ConvertTo(Ints(), x)); }

/// Each `apart`-th number: kLanes of them.
HWY_INLINE V every(const float* x, int apart) {
  return hn::GatherIndex(Floats(), x, hn::Mul(hn::Iota(Ints(), 0), hn::Set(Ints(), apart)));
}

/// Codes of four bits are eight numbers per lane, each 8 too large; in floats vector j holds the number j of every
/// lane, divided by what the code j of a word is too large by where it lies (the last one is shifted); in bytes stand
/// the first numbers of all pairs and then the second ones.
void lay_out_nibbles(const IntegerFewRows& f, const float* x, const Prepared& to) {
  for (int64_t unit = 0; unit < own_units(f.K); ++unit) {
    const float* from = x + unit * kUnit;
    V sum = zero();
    for (int j = 0; j < 8; ++j) {
      const V numbers = every(from + j, 8);
      sum = hn::Add(sum, numbers);
      if (!f.dynamic)
        store(hn::Mul(numbers, set(j == 7 ? 1.0f : 1.0f / static_cast<float>(1 << (4 * j)))),
              to.x + unit * kUnit + j * kLanes);
    }
    const V start = hn::Mul(sum, set(-8.0f));
    if (!f.dynamic) {
      store(start, to.starts + unit * kLanes);
      continue;
    }
    hn::StoreU(hn::ConvertTo(Ints(), start), Ints(), reinterpret_cast<int32_t*>(to.starts) + unit * kLanes);
    auto* bytes = reinterpret_cast<int8_t*>(to.x) + unit * kUnit;
    for (int64_t k = 0; k < kUnit; k += 2 * kLanes) {
      V first, second;
      hn::LoadInterleaved2(Floats(), from + k, first, second);
      hn::StoreU(as_bytes(first), hn::Rebind<int8_t, Floats>(), bytes + k / 2);
      hn::StoreU(as_bytes(second), hn::Rebind<int8_t, Floats>(), bytes + kUnit / 2 + k / 2);
    }
  }
}

/// Codes of eight bits meet x in floats, or in shorts, so that no product of two of -128 is too large.
void lay_out_bytes(const IntegerFewRows& f, const float* x, const Prepared& to) {
  const int64_t n = own_units(f.K) * kUnit;
  if (!f.dynamic) return void(std::copy(x, x + n, to.x));
  const hn::Rebind<int16_t, Floats> shorts;
  for (int64_t k = 0; k < n; k += kLanes)
    hn::StoreU(hn::DemoteTo(shorts, hn::ConvertTo(Ints(), load(x + k))), shorts, reinterpret_cast<int16_t*>(to.x) + k);
}

template <class T>
void prepare_row(const IntegerFewRows& f, int64_t m) {
  static thread_local std::vector<float> wide;
  wide.resize(static_cast<size_t>(f.padded()));
  const T* from = static_cast<const T*>(f.x) + m * f.K;
  float* x = wide.data();
  sweep(f.K, [&](int64_t i, auto at) { at.put(at.get(from + i), x + i); });
  std::fill(wide.begin() + f.K, wide.end(), 0.0f);
  const Prepared to = prepared_row(f, m);
  *to.scale = f.dynamic ? round_row(x, f.K) : 1.0f;
  f.bits == 4 ? lay_out_nibbles(f, x, to) : lay_out_bytes(f, x, to);
  if (!f.zero_points) return;
  for (int64_t g = 0; g < f.groups(); ++g)
    to.group_sums[g] =
        sum_of(f.group, [&](int64_t i, auto at, V& sum) { sum = hn::Add(sum, at.get(x + g * f.group + i)); });
}

void prepare_any(const IntegerFewRows& f, int64_t begin, int64_t end) {
  for (int64_t m = begin; m < end; ++m)
    f.type == Type::float32 ? prepare_row<float>(f, m) : prepare_row<BFloat16>(f, m);
}

// ---- Scales
// ----------------------------------------------------------------------------------------------------------------

HWY_INLINE float scale_at(const IntegerFewRows& f, int64_t i) {
  return f.scale_type == Type::float32 ? load_one(static_cast<const float*>(f.scales) + i)
                                       : load_one(static_cast<const BFloat16*>(f.scales) + i);
}

/// What zero points take from row n's product with prepared x: sum over g of scale zero_point (sum of the group).
float zero_correction(const IntegerFewRows& f, int64_t n, const Prepared& x) {
  if (!f.zero_points) return 0;
  float total = 0;
  for (int64_t g = 0; g < f.groups(); ++g) {
    const int64_t i = n * f.groups() + g;
    total += scale_at(f, i) * static_cast<float>(f.zero_points[i]) * x.group_sums[g];
  }
  return total;
}

// ---- One unit of a row of codes with M rows of x
// ---------------------------------------------------------------------------

/// The rows of x, and what is summed of their products with a group of codes.
template <int M>
struct Rows {
  const float *x[M], *starts[M];

  Rows(const IntegerFewRows& f, int64_t m) {
    for (int i = 0; i < M; ++i) {
      const Prepared row = prepared_row(f, m + i);
      x[i] = row.x;
      starts[i] = row.starts;
    }
  }
  HWY_INLINE const uint8_t* bytes(int m) const { return reinterpret_cast<const uint8_t*>(x[m]); }
  HWY_INLINE I start(int m, int64_t unit) const {
    return hn::LoadU(Ints(), reinterpret_cast<const int32_t*>(starts[m]) + unit * kLanes);
  }
};

template <int R>
using Codes = const uint8_t* const (&)[R];

/// Four bits, x in floats: the codes of all words at once, each where it lies in its word.
struct NibbleFloat {
  using Sum = V;
  static constexpr int64_t kBytes = kUnit / 2;

  template <int M, int R>
  static HWY_INLINE void add(Codes<R> codes, const Rows<M>& x, int64_t unit, V (&sums)[R][M]) {
    const Words words;
    hn::Vec<Words> word[R];
    for (int r = 0; r < R; ++r) word[r] = hn::LoadU(words, reinterpret_cast<const uint32_t*>(codes[r]));
    for (int m = 0; m < M; ++m) {
      const V start = load(x.starts[m] + unit * kLanes);
      for (int r = 0; r < R; ++r) sums[r][m] = hn::Add(sums[r][m], start);
    }
    for (int j = 0; j < 8; ++j) {
      V value[R];
      for (int r = 0; r < R; ++r) {
        const auto code = j < 7 ? hn::And(word[r], hn::Set(words, 0xFu << (4 * j))) : hn::ShiftRight<28>(word[r]);
        value[r] = hn::ConvertTo(Floats(), hn::BitCast(Ints(), code));
      }
      for (int m = 0; m < M; ++m) {
        const V row = in_register(load(x.x[m] + unit * kUnit + j * kLanes));
        for (int r = 0; r < R; ++r) sums[r][m] = hn::MulAdd(row, value[r], sums[r][m]);
      }
    }
  }
};

/// Eight bits, x in floats.
template <bool kOffset>
struct ByteFloat {
  using Sum = V;
  static constexpr int64_t kBytes = kUnit;

  template <int M, int R>
  static HWY_INLINE void add(Codes<R> codes, const Rows<M>& x, int64_t unit, V (&sums)[R][M]) {
    const hn::Rebind<uint8_t, Floats> bytes;
    for (int64_t k = 0; k < kUnit; k += kLanes) {
      V value[R];
      for (int r = 0; r < R; ++r) {
        auto code = hn::LoadU(bytes, codes[r] + k);
        if (kOffset) code = hn::Xor(code, hn::Set(bytes, 0x80));
        value[r] = hn::ConvertTo(Floats(), hn::PromoteTo(Ints(), hn::BitCast(hn::Rebind<int8_t, Floats>(), code)));
      }
      for (int m = 0; m < M; ++m) {
        const V row = in_register(load(x.x[m] + unit * kUnit + k));
        for (int r = 0; r < R; ++r) sums[r][m] = hn::MulAdd(row, value[r], sums[r][m]);
      }
    }
  }
};

/// Four bits, x in bytes.
struct NibbleByte {
  using Sum = I;
  static constexpr int64_t kBytes = kUnit / 2;

  template <int M, int R>
  static HWY_INLINE void add(Codes<R> codes, const Rows<M>& x, int64_t unit, I (&sums)[R][M]) {
    const Bytes bytes;
    const hn::Repartition<uint16_t, Floats> pairs;
    const B low = hn::Set(bytes, 15);
    B first[R], second[R];
    for (int r = 0; r < R; ++r) {
      const B both = hn::LoadU(bytes, codes[r]);
      first[r] = hn::And(both, low);
      second[r] = hn::And(hn::BitCast(bytes, hn::ShiftRight<4>(hn::BitCast(pairs, both))), low);
    }
    for (int m = 0; m < M; ++m) {
      const B row = in_register(hn::LoadU(bytes, x.bytes(m) + unit * kUnit));
      const B rest = in_register(hn::LoadU(bytes, x.bytes(m) + unit * kUnit + kUnit / 2));
      for (int r = 0; r < R; ++r)
        sums[r][m] = add_nibble_products(hn::Add(sums[r][m], x.start(m, unit)), first[r], row, second[r], rest);
    }
  }
};

/// Eight bits, x in shorts.
template <bool kOffset>
struct ByteShort {
  using Sum = I;
  static constexpr int64_t kBytes = kUnit;

  template <int M, int R>
  static HWY_INLINE void add(Codes<R> codes, const Rows<M>& x, int64_t unit, I (&sums)[R][M]) {
    const hn::Rebind<uint8_t, Shorts> bytes;
    for (int64_t k = 0; k < kUnit; k += 2 * kLanes) {
      hn::Vec<Shorts> wide[R];
      for (int r = 0; r < R; ++r) {
        auto code = hn::LoadU(bytes, codes[r] + k);
        if (kOffset) code = hn::Xor(code, hn::Set(bytes, 0x80));
        wide[r] = hn::PromoteTo(Shorts(), hn::BitCast(hn::Rebind<int8_t, Shorts>(), code));
      }
      for (int m = 0; m < M; ++m) {
        const auto row = in_register(hn::LoadU(Shorts(), reinterpret_cast<const int16_t*>(x.x[m]) + unit * kUnit + k));
        for (int r = 0; r < R; ++r) sums[r][m] = add_short_products(sums[r][m], wide[r], row);
      }
    }
  }
};

// ---- Rows of y
// -------------------------------------------------------------------------------------------------------------

HWY_INLINE V as_floats(V x) { return x; }
HWY_INLINE V as_floats(I x) { return hn::ConvertTo(Floats(), x); }

/// How groups, which share a scale, lie in units.
enum class Groups {
  exact,  ///< the whole row is one, whose sum is one of integers
  one,    ///< the whole row is one
  units,  ///< each is a unit
  parts,  ///< a unit holds several
  long_,  ///< each is several units
};

/// A row's scales in floats: one per group; where a unit holds several groups, one per lane of every unit (lane l of
/// four bits is of codes 8 l on).
template <Groups kGroups>
HWY_INLINE void read_scales(const IntegerFewRows& f, int64_t n, float* scales) {
  const int64_t groups = f.groups(), first = n * groups;
  if constexpr (kGroups == Groups::parts) {
    const int64_t lanes = f.group / 8;
    for (int64_t g = 0; g < groups; ++g) std::fill_n(scales + g * lanes, lanes, scale_at(f, first + g));
    std::fill(scales + groups * lanes, scales + own_units(f.K) * kLanes, 0.0f);
  } else if (f.scale_type == Type::float32) {
    std::copy_n(static_cast<const float*>(f.scales) + first, groups, scales);
  } else {
    const auto* narrow = static_cast<const BFloat16*>(f.scales) + first;
    sweep(groups, [&](int64_t i, auto at) { at.put(at.get(narrow + i), scales + i); });
  }
}

/// Columns n, n + apart, ... (R of them) of y, and those behind each: `count` times R.
struct Columns {
  int64_t n, count, apart;
};

/// One product for each of R columns and M rows, summed over the lanes.
template <int M, int R, class Unit, Groups kGroups>
HWY_INLINE void dot_products(const IntegerFewRows& f, const Rows<M>& x, int64_t n, int64_t apart,
                             float (&totals)[R][M]) {
  using Sum = typename Unit::Sum;
  constexpr bool kTogether = kGroups == Groups::exact || kGroups == Groups::one;
  const uint8_t* row[R];
  // Rows of scales stand close: a power of two between them would be slow.
  float all_scales[R * (kTogether ? 1 : IntegerFewRows::kMostScales)], *scales[R];
  const int64_t scales_of_row = kTogether                  ? 1
                                : kGroups == Groups::parts ? own_units(f.K) * kLanes
                                                           : (f.groups() / kLanes + 1) * kLanes;
  V sums[R][M];
  Sum acc[R][M];
  for (int r = 0; r < R; ++r) {
    row[r] = static_cast<const uint8_t*>(f.codes) + (n + r * apart) * f.row_bytes;
    scales[r] = all_scales + r * scales_of_row;
    if constexpr (kTogether)
      scales[r][0] = scale_at(f, n + r * apart);
    else
      read_scales<kGroups>(f, n + r * apart, scales[r]);
    for (int i = 0; i < M; ++i) sums[r][i] = zero();
    for (int i = 0; i < M; ++i) acc[r][i] = hn::Zero(hn::DFromV<Sum>());
  }
  const auto scale_by = [&](int64_t g) HWY_ATTR {
    for (int r = 0; r < R; ++r) {
      const V scale = kGroups == Groups::parts ? load(scales[r] + g * kLanes) : set(scales[r][g]);
      for (int i = 0; i < M; ++i) sums[r][i] = hn::MulAdd(scale, as_floats(acc[r][i]), sums[r][i]);
      for (int i = 0; i < M; ++i) acc[r][i] = hn::Zero(hn::DFromV<Sum>());
    }
  };
  const int64_t units = own_units(f.K), whole = f.row_bytes / Unit::kBytes, long_group = f.group / kUnit;
  for (int64_t unit = 0; unit < whole; ++unit) {
    const uint8_t* codes[R];
    for (int r = 0; r < R; ++r) {
      codes[r] = row[r] + unit * Unit::kBytes;
      hwy::Prefetch(codes[r] + kAhead);
    }
    Unit::add(codes, x, unit, acc);
    if constexpr (kGroups == Groups::units || kGroups == Groups::parts) scale_by(unit);
    if constexpr (kGroups == Groups::long_)
      if ((unit + 1) % long_group == 0) scale_by(unit / long_group);
  }
  if (whole < units) {  // the last one, with zeros behind it
    uint8_t last[R][Unit::kBytes] = {};
    const uint8_t* codes[R];
    for (int r = 0; r < R; ++r) {
      std::memcpy(last[r], row[r] + whole * Unit::kBytes, static_cast<size_t>(f.row_bytes - whole * Unit::kBytes));
      codes[r] = last[r];
    }
    Unit::add(codes, x, whole, acc);
    if constexpr (!kTogether) scale_by(kGroups == Groups::long_ ? whole / long_group : whole);
  }
  if constexpr (kGroups == Groups::one) scale_by(0);
  for (int r = 0; r < R; ++r)
    for (int i = 0; i < M; ++i) {
      if constexpr (kGroups == Groups::exact)
        totals[r][i] = static_cast<float>(hn::GetLane(hn::SumOfLanes(Ints(), acc[r][i]))) * scales[r][0];
      else
        totals[r][i] = hn::GetLane(hn::SumOfLanes(Floats(), sums[r][i]));
    }
}

template <int M, int R, class T, class Unit, Groups kGroups>
void rows_by_columns(const IntegerFewRows& f, int64_t m, const Columns& columns) {
  const Rows<M> x(f, m);
  float scales[M], totals[R][M];
  for (int i = 0; i < M; ++i) scales[i] = *prepared_row(f, m + i).scale;
  for (int64_t n = columns.n; n < columns.n + columns.count; ++n) {
    dot_products<M, R, Unit, kGroups>(f, x, n, columns.apart, totals);
    for (int r = 0; r < R; ++r) {
      const int64_t column = n + r * columns.apart;
      const float shift = f.bias ? load_one(static_cast<const T*>(f.bias) + column) : 0.0f;
      for (int i = 0; i < M; ++i) {
        if (f.zero_points) totals[r][i] -= zero_correction(f, column, prepared_row(f, m + i));
        store_one(totals[r][i] * scales[i] + shift, static_cast<T*>(f.y) + (m + i) * f.N + column);
      }
    }
  }
}

template <int M, int R, class T, class Unit>
void by_groups(const IntegerFewRows& f, int64_t m, const Columns& columns) {
  constexpr bool kIntegers = std::is_same_v<typename Unit::Sum, I>;
  if (f.groups() == 1)
    return rows_by_columns < M, R, T, Unit, kIntegers ? Groups::exact : Groups::one > (f, m, columns);
  if (f.group == kUnit) return rows_by_columns<M, R, T, Unit, Groups::units>(f, m, columns);
  if constexpr (Unit::kBytes < kUnit)
    if (f.group < kUnit) return rows_by_columns<M, R, T, Unit, Groups::parts>(f, m, columns);
  rows_by_columns<M, R, T, Unit, Groups::long_>(f, m, columns);
}

template <int M, int R, class T>
void some_rows(const IntegerFewRows& f, int64_t m, const Columns& columns) {
  if (f.bits == 4)
    return f.dynamic ? by_groups<M, R, T, NibbleByte>(f, m, columns) : by_groups<M, R, T, NibbleFloat>(f, m, columns);
  if (f.dynamic)
    return f.offset ? by_groups<M, R, T, ByteShort<true>>(f, m, columns)
                    : by_groups<M, R, T, ByteShort<false>>(f, m, columns);
  f.offset ? by_groups<M, R, T, ByteFloat<true>>(f, m, columns) : by_groups<M, R, T, ByteFloat<false>>(f, m, columns);
}

/// All rows of x, some at a time, with columns whose codes stay in the first caches meanwhile.
template <int R, class T>
void all_rows(const IntegerFewRows& f, const Columns& columns) {
  int64_t m = 0;
  for (; m + 4 <= f.M; m += 4) some_rows<4, R, T>(f, m, columns);
  if (f.M - m == 3) some_rows<3, R, T>(f, m, columns);
  if (f.M - m == 2) some_rows<2, R, T>(f, m, columns);
  if (f.M - m == 1) some_rows<1, R, T>(f, m, columns);
}

/// R columns at a time whose codes lie far apart: several streams through memory are faster than one.
template <int R, class T>
void streams(const IntegerFewRows& f, int64_t begin, int64_t end) {
  constexpr int64_t kMost = 8;
  const int64_t apart = (end - begin) / R, step = f.M > 4 ? kMost : std::max<int64_t>(1, apart);
  for (int64_t n = begin; n < begin + apart; n += step)
    all_rows<R, T>(f, {n, std::min(step, begin + apart - n), apart});
  all_rows<1, T>(f, {begin + R * apart, end - begin - R * apart, 0});
}

template <class T>
void few_rows_as(const IntegerFewRows& f, int64_t begin, int64_t end) {
  f.M == 1 ? streams<4, T>(f, begin, end) : streams<2, T>(f, begin, end);
}

void few_rows_any(const IntegerFewRows& f, int64_t begin, int64_t end) {
  f.type == Type::float32 ? few_rows_as<float>(f, begin, end) : few_rows_as<BFloat16>(f, begin, end);
}

}  // namespace
}  // namespace llmtk::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace llmtk::kernels {
HWY_EXPORT(prepare_any);
HWY_EXPORT(few_rows_any);

namespace cpu {

namespace {

int code_at(const IntegerWeights& w, int64_t n, int64_t k) {
  const uint8_t* row = static_cast<const uint8_t*>(w.codes) + n * w.row_bytes;
  if (w.bits == 4) return (row[k / 2] >> (4 * (k % 2)) & 15) - 8;
  return w.offset ? row[k] - 128 : static_cast<int8_t>(row[k]);
}

float scale_at(const IntegerWeights& w, int64_t i) {
  if (w.scale_type == Type::float32) return static_cast<const float*>(w.scales)[i];
  return std::bit_cast<float>(static_cast<uint32_t>(static_cast<const BFloat16*>(w.scales)[i].bits) << 16);
}

void put(float x, float* to) { *to = x; }
void put(float x, BFloat16* to) {
  const auto bits = std::bit_cast<uint32_t>(x);
  to->bits = static_cast<uint16_t>((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

template <class T>
void lookup_row(const IntegerWeights& w, int64_t n, T* y) {
  for (int64_t g = 0; g < w.groups(); ++g) {
    const int64_t i = n * w.groups() + g;
    const float scale = scale_at(w, i);
    const int zero_point = w.zero_points ? w.zero_points[i] : 0;
    for (int64_t k = g * w.group; k < (g + 1) * w.group; ++k)
      put(static_cast<float>(code_at(w, n, k) - zero_point) * scale, y + k);
  }
}

}  // namespace

void integer_lookup(const IntegerLookup& l, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; ++i) {
    if (l.ids[i] < 0 || l.ids[i] >= l.weights.N) std::abort();
    const int64_t at = i * l.weights.K;
    l.type == Type::float32 ? lookup_row(l.weights, l.ids[i], static_cast<float*>(l.y) + at)
                            : lookup_row(l.weights, l.ids[i], static_cast<BFloat16*>(l.y) + at);
  }
}

void integer_prepare(const IntegerFewRows& f, int64_t begin, int64_t end) {
  HWY_DYNAMIC_DISPATCH(prepare_any)(f, begin, end);
}
void integer_few_rows(const IntegerFewRows& f, int64_t block_begin, int64_t block_end) {
  HWY_DYNAMIC_DISPATCH(few_rows_any)
  (f, block_begin * IntegerFewRows::kColumns, std::min(f.N, block_end * IntegerFewRows::kColumns));
}
}  // namespace cpu
}  // namespace llmtk::kernels
#endif
