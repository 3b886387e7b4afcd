#include "io/gguf_blocks.h"

#include <immintrin.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "core/error.h"

namespace llmtk::io {
namespace {

using Bytes = const uint8_t*;

constexpr int kSmall = 32;   // elements of the older types' blocks
constexpr int kLarge = 256;  // and of the K-quants'

template <class T>
T load(Bytes p) {
  T value;
  std::memcpy(&value, p, sizeof value);
  return value;
}
float half(Bytes p) { return _cvtsh_ss(load<uint16_t>(p)); }

// Each decode function turns one block into its numbers. Scales of 11 bits times integers of a few are exact in
// float32, so that fused multiply-adds change nothing.

void decode_f32(Bytes p, float* y) { *y = load<float>(p); }
void decode_f16(Bytes p, float* y) { *y = half(p); }
void decode_bf16(Bytes p, float* y) {
  const uint32_t bits = uint32_t{load<uint16_t>(p)} << 16;
  std::memcpy(y, &bits, sizeof bits);
}

// Low nibbles are the first half of a block, high ones the second.

void decode_q4_0(Bytes p, float* y) {
  const float d = half(p);
  for (int i = 0; i < kSmall / 2; ++i) {
    y[i] = d * static_cast<float>((p[2 + i] & 15) - 8);
    y[i + kSmall / 2] = d * static_cast<float>((p[2 + i] >> 4) - 8);
  }
}

void decode_q4_1(Bytes p, float* y) {
  const float d = half(p), m = half(p + 2);
  for (int i = 0; i < kSmall / 2; ++i) {
    y[i] = d * static_cast<float>(p[4 + i] & 15) + m;
    y[i + kSmall / 2] = d * static_cast<float>(p[4 + i] >> 4) + m;
  }
}

/// The five-bit numbers of Q5_0 and Q5_1: nibbles at `low`, the fifth bits in a word at `high`.
std::array<int, kSmall> five_bits(Bytes high, Bytes low) {
  const auto bits = load<uint32_t>(high);
  std::array<int, kSmall> q;
  for (int i = 0; i < kSmall / 2; ++i) {
    q[i] = (low[i] & 15) | static_cast<int>(bits >> i & 1) << 4;
    q[i + kSmall / 2] = (low[i] >> 4) | static_cast<int>(bits >> (i + kSmall / 2) & 1) << 4;
  }
  return q;
}

void decode_q5_0(Bytes p, float* y) {
  const float d = half(p);
  const auto q = five_bits(p + 2, p + 6);
  for (int i = 0; i < kSmall; ++i) y[i] = d * static_cast<float>(q[i] - 16);
}

void decode_q5_1(Bytes p, float* y) {
  const float d = half(p), m = half(p + 2);
  const auto q = five_bits(p + 4, p + 8);
  for (int i = 0; i < kSmall; ++i) y[i] = d * static_cast<float>(q[i]) + m;
}

void decode_q8_0(Bytes p, float* y) {
  const float d = half(p);
  for (int i = 0; i < kSmall; ++i) y[i] = static_cast<float>(static_cast<int8_t>(p[2 + i])) * d;
}

// The 256 numbers of a K-quant are 16 groups of 16. Two bits of each lie in planes: plane k of 32 bytes holds the
// numbers 32 k to 32 k + 31 of one half.

/// 16 scales and minima of 4 bits each, 256 numbers of 2 bits, d, dmin.
void decode_q2_k(Bytes p, float* y) {
  const float d = half(p + 80), dmin = half(p + 82);
  for (int group = 0; group < 16; ++group) {
    const Bytes q = p + 16 + group / 8 * 32 + group % 2 * 16;
    const int shift = group % 8 / 2 * 2;
    const float dl = d * static_cast<float>(p[group] & 15), ml = dmin * static_cast<float>(p[group] >> 4);
    for (int i = 0; i < 16; ++i) y[group * 16 + i] = dl * static_cast<float>(q[i] >> shift & 3) - ml;
  }
}

/// 256 third bits, 256 numbers of 2 bits, 16 scales of 6 bits (4 low ones, then 2 high ones), d.
void decode_q3_k(Bytes p, float* y) {
  const Bytes scales = p + 96;
  const float d = half(p + 108);
  for (int group = 0; group < 16; ++group) {
    const int low = scales[group % 8] >> (group < 8 ? 0 : 4) & 15;
    const float dl = d * static_cast<float>((low | (scales[8 + group % 4] >> (group / 4 * 2) & 3) << 4) - 32);
    const Bytes q = p + 32 + group / 8 * 32 + group % 2 * 16, high = p + group % 2 * 16;
    const int shift = group % 8 / 2 * 2, bit = group / 2;
    for (int i = 0; i < 16; ++i)
      y[group * 16 + i] = dl * static_cast<float>((q[i] >> shift & 3) + (high[i] >> bit & 1) * 4 - 4);
  }
}

/// The 8 scales and 8 minima of Q4_K and Q5_K, 6 bits each in 12 bytes.
struct ScaleMin {
  float scale[8], min[8];
};
ScaleMin scale_min(Bytes p, float d, float dmin) {
  ScaleMin out;
  for (int j = 0; j < 4; ++j) {
    out.scale[j] = d * static_cast<float>(p[j] & 63);
    out.min[j] = dmin * static_cast<float>(p[j + 4] & 63);
    out.scale[j + 4] = d * static_cast<float>((p[j + 8] & 15) | (p[j] >> 2 & 48));
    out.min[j + 4] = dmin * static_cast<float>((p[j + 8] >> 4) | (p[j + 4] >> 2 & 48));
  }
  return out;
}

void decode_q4_k(Bytes p, float* y) {
  const ScaleMin s = scale_min(p + 4, half(p), half(p + 2));
  for (int group = 0; group < 8; ++group)
    for (int i = 0; i < 32; ++i) {
      const int q = p[16 + group / 2 * 32 + i] >> (4 * (group % 2)) & 15;
      y[group * 32 + i] = s.scale[group] * static_cast<float>(q) - s.min[group];
    }
}

void decode_q5_k(Bytes p, float* y) {
  const ScaleMin s = scale_min(p + 4, half(p), half(p + 2));
  const Bytes high = p + 16, low = p + 48;
  for (int group = 0; group < 8; ++group)
    for (int i = 0; i < 32; ++i) {
      const int q = (low[group / 2 * 32 + i] >> (4 * (group % 2)) & 15) | (high[i] >> group & 1) << 4;
      y[group * 32 + i] = s.scale[group] * static_cast<float>(q) - s.min[group];
    }
}

/// 256 low nibbles, 256 numbers of 2 high bits, 16 scales of 8 bits, d.
void decode_q6_k(Bytes p, float* y) {
  const Bytes scales = p + 192;
  const float d = half(p + 208);
  for (int group = 0; group < 16; ++group) {
    const float dl = d * static_cast<float>(static_cast<int8_t>(scales[group]));
    const Bytes low = p + group / 8 * 64 + group % 4 * 16, high = p + 128 + group / 8 * 32 + group % 2 * 16;
    const int nibble = group % 8 / 4 * 4, shift = group % 8 / 2 * 2;
    for (int i = 0; i < 16; ++i) {
      const int q = (low[i] >> nibble & 15) | (high[i] >> shift & 3) << 4;
      y[group * 16 + i] = dl * static_cast<float>(q - 32);
    }
  }
}

/// d in single precision, 256 bytes, and sums that only products of quantized numbers need.
void decode_q8_k(Bytes p, float* y) {
  const auto d = load<float>(p);
  for (int i = 0; i < kLarge; ++i) y[i] = d * static_cast<float>(static_cast<int8_t>(p[4 + i]));
}

/// Many blocks of a kind; the call of `decode` is inlined.
template <void (*decode)(Bytes, float*), size_t elements, size_t bytes>
void decode_all(Bytes blocks, size_t count, float* numbers) {
  for (size_t i = 0; i < count; ++i) decode(blocks + i * bytes, numbers + i * elements);
}

struct TypeRow {
  GgufType type;
  std::string_view name;
  size_t elements, bytes;
  void (*decode)(Bytes blocks, size_t count, float* numbers);
};
template <void (*decode)(Bytes, float*), size_t elements, size_t bytes>
constexpr TypeRow row(GgufType type, std::string_view name) {
  return {type, name, elements, bytes, decode_all<decode, elements, bytes>};
}
constexpr TypeRow kTypes[] = {
    row<decode_f32, 1, 4>(GgufType::f32, "F32"),        row<decode_f16, 1, 2>(GgufType::f16, "F16"),
    row<decode_bf16, 1, 2>(GgufType::bf16, "BF16"),     row<decode_q8_0, 32, 34>(GgufType::q8_0, "Q8_0"),
    row<decode_q4_0, 32, 18>(GgufType::q4_0, "Q4_0"),   row<decode_q4_1, 32, 20>(GgufType::q4_1, "Q4_1"),
    row<decode_q5_0, 32, 22>(GgufType::q5_0, "Q5_0"),   row<decode_q5_1, 32, 24>(GgufType::q5_1, "Q5_1"),
    row<decode_q2_k, 256, 84>(GgufType::q2_k, "Q2_K"),  row<decode_q3_k, 256, 110>(GgufType::q3_k, "Q3_K"),
    row<decode_q4_k, 256, 144>(GgufType::q4_k, "Q4_K"), row<decode_q5_k, 256, 176>(GgufType::q5_k, "Q5_K"),
    row<decode_q6_k, 256, 210>(GgufType::q6_k, "Q6_K"), row<decode_q8_k, 256, 292>(GgufType::q8_k, "Q8_K"),
};

const TypeRow* find_row(GgufType type) {
  const auto* row = std::ranges::find(kTypes, type, &TypeRow::type);
  return row == std::end(kTypes) ? nullptr : row;
}
const TypeRow& row_of(GgufType type) {
  const TypeRow* row = find_row(type);
  LLMTK_CHECK(row, "unknown GGUF type ", static_cast<uint32_t>(type));
  return *row;
}

}  // namespace

bool is_known(GgufType type) { return find_row(type) != nullptr; }
std::string_view gguf_type_name(GgufType type) { return row_of(type).name; }
size_t block_elements(GgufType type) { return row_of(type).elements; }
size_t block_bytes(GgufType type) { return row_of(type).bytes; }

std::string gguf_type_names() {
  std::string names;
  for (const TypeRow& row : kTypes) names += (names.empty() ? "" : ", ") + std::string(row.name);
  return names;
}

void dequantize(GgufType type, std::span<const std::byte> blocks, std::span<float> numbers) {
  const TypeRow& row = row_of(type);
  const size_t count = numbers.size() / row.elements;
  LLMTK_CHECK(numbers.size() % row.elements == 0 && blocks.size() == count * row.bytes, blocks.size(), " bytes of ",
              row.name, " for ", numbers.size(), " numbers");
  row.decode(reinterpret_cast<Bytes>(blocks.data()), count, numbers.data());
}

namespace {

/// None of 0, and of what is nearly 0.
float inverse_of(float d) { return std::isfinite(1 / d) ? 1 / d : 0; }

void store_half(std::byte* out, float value) {
  const uint16_t bits = _cvtss_sh(value, _MM_FROUND_TO_NEAREST_INT);
  std::memcpy(out, &bits, sizeof bits);
}

/// Codes of 0 to 15, the first half of a block in the low nibbles. code(x): before it is cut off.
template <class Code>
void store_nibbles(std::byte* out, const float* x, const Code& code) {
  const auto whole = [&](int i) { return std::min(15, static_cast<int>(code(x[i]))); };
  for (int i = 0; i < kSmall / 2; ++i) out[i] = static_cast<std::byte>(whole(i) | whole(i + kSmall / 2) << 4);
}

void encode_q8_0(const float* x, std::byte* out) {
  float largest = 0;
  for (int i = 0; i < kSmall; ++i) largest = std::max(largest, std::abs(x[i]));
  const float d = largest / 127, inverse = inverse_of(d);
  store_half(out, d);
  for (int i = 0; i < kSmall; ++i) out[2 + i] = static_cast<std::byte>(static_cast<int8_t>(std::round(x[i] * inverse)));
}

void encode_q4_0(const float* x, std::byte* out) {
  const float most = *std::max_element(x, x + kSmall, [](float a, float b) { return std::abs(a) < std::abs(b); });
  const float d = most / -8, inverse = inverse_of(d);
  store_half(out, d);
  store_nibbles(out + 2, x, [&](float number) { return number * inverse + 8.5f; });
}

void encode_q4_1(const float* x, std::byte* out) {
  const auto [least, most] = std::minmax_element(x, x + kSmall);
  const float d = (*most - *least) / 15, inverse = inverse_of(d), smallest = *least;
  store_half(out, d);
  store_half(out + 2, smallest);
  store_nibbles(out + 4, x, [&](float number) { return (number - smallest) * inverse + 0.5f; });
}

using Encode = void (*)(const float*, std::byte*);
Encode encoder_of(GgufType type) {
  return type == GgufType::q8_0   ? encode_q8_0
         : type == GgufType::q4_0 ? encode_q4_0
         : type == GgufType::q4_1 ? encode_q4_1
                                  : nullptr;
}

}  // namespace

bool is_writable_in_blocks(GgufType type) { return encoder_of(type); }

void quantize(GgufType type, std::span<const float> numbers, std::span<std::byte> blocks) {
  const Encode encode = encoder_of(type);
  LLMTK_CHECK(encode, gguf_type_name(type), " is not written");
  const size_t bytes = block_bytes(type);
  LLMTK_CHECK(numbers.size() % kSmall == 0 && blocks.size() == numbers.size() / kSmall * bytes, blocks.size(),
              " bytes of ", gguf_type_name(type), " for ", numbers.size(), " numbers");
  for (size_t block = 0; block < numbers.size() / kSmall; ++block)
    encode(numbers.data() + block * kSmall, blocks.data() + block * bytes);
}

}  // namespace llmtk::io
