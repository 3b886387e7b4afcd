#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/integer_cpu.cpp"
#include <hwy/foreach_target.h>
//
#include <hwy/cache_control.h>
#include <hwy/highway.h>

#include <algorithm>
#include <cstring>
#include <type_traits>

#include "kernels/integer-inl.h"
#include "kernels/integer_impl.h"
#include "kernels/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace llmtk::kernels::HWY_NAMESPACE {
namespace {

using Bytes = hn::Repartition<uint8_t, Floats>;
using Shorts = hn::Repartition<int16_t, Floats>;
using B = hn::Vec<Bytes>;
using I = hn::Vec<Ints>;

/// Bytes of codes that lie ahead.
constexpr int64_t kAhead = 2048;

// Products of bytes.

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

// What groups and zero points are.

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

// One unit of a row of codes with M rows of x.

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

// Rows of y.

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
HWY_EXPORT(few_rows_any);

void cpu::integer_few_rows(const IntegerFewRows& f, int64_t block_begin, int64_t block_end) {
  HWY_DYNAMIC_DISPATCH(few_rows_any)
  (f, block_begin * IntegerFewRows::kColumns, std::min(f.N, block_end * IntegerFewRows::kColumns));
}
}  // namespace llmtk::kernels
#endif
