#pragma once
// Element by element, on plain memory.

#include <cstdint>

#include "kernels/types.h"

namespace llmtk::kernels {

enum class Operation : uint8_t { add, scale, relu, softcap, widen };

/// y[i] of x[i] (and of other[i], with add).
struct Elementwise {
  Operation operation;
  Type type;  ///< of x, other and y; widen's y is float32
  const void* x;
  const void* other;
  float factor;  ///< with scale; the cap with softcap
  void* y;
};

/// y[i, :] = table[ids[i], :]. An id out of range ends the program: the caller has checked those that it gave.
struct Lookup {
  int64_t row_bytes, rows;
  const void* table;
  const int64_t* ids;
  void* y;
};

namespace cpu {
void elementwise(const Elementwise& e, int64_t begin, int64_t end);
void lookup(const Lookup& l, int64_t begin, int64_t end);
}  // namespace cpu

}  // namespace llmtk::kernels
