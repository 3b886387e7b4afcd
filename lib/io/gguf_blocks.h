#pragma once
// GGUF's element types: their sizes, and the numbers that blocks of them stand for.
// https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, and the Python package `gguf` (quants.py).

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace llmtk::io {

/// With the format's own numbers. A row is cut into blocks of so many elements, each with scales of its own.
enum class GgufType : uint32_t {
  f32 = 0,
  f16 = 1,
  q4_0 = 2,
  q4_1 = 3,
  q5_0 = 6,
  q5_1 = 7,
  q8_0 = 8,
  q2_k = 10,
  q3_k = 11,
  q4_k = 12,
  q5_k = 13,
  q6_k = 14,
  q8_k = 15,
  bf16 = 30,
};

/// Whether this program knows how a type is laid out.
bool is_known(GgufType type);
std::string_view gguf_type_name(GgufType type);  ///< "Q4_K"
size_t block_elements(GgufType type);            ///< 1, 32 or 256
size_t block_bytes(GgufType type);
/// The names of all known types, for messages.
std::string gguf_type_names();

/// The numbers of whole blocks, exactly those of the `gguf` package. numbers.size() is a multiple of block_elements.
void dequantize(GgufType type, std::span<const std::byte> blocks, std::span<float> numbers);

/// The types that quantize() writes: Q8_0, Q4_0, Q4_1.
bool is_writable_in_blocks(GgufType type);
/// Blocks of such a type, bit by bit those of the `gguf` package, which follows llama.cpp's reference: 32 numbers share
/// a scale. Q8_0: the largest magnitude over 127; Q4_0: the number of largest magnitude over -8; Q4_1: largest less
/// smallest over 15, and the smallest. numbers.size() is a multiple of 32.
void quantize(GgufType type, std::span<const float> numbers, std::span<std::byte> blocks);

}  // namespace llmtk::io
