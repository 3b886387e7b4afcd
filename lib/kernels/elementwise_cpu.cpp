#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/elementwise_cpu.cpp"
#include <hwy/foreach_target.h>
//
#include <hwy/highway.h>

#include <cstdlib>
#include <cstring>

#include "kernels/elementwise_impl.h"
#include "kernels/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace llmtk::kernels::HWY_NAMESPACE {
namespace {

template <class T>
void elementwise_as(const Elementwise& e, int64_t begin, int64_t end) {
  const T *x = static_cast<const T*>(e.x) + begin, *other = e.other ? static_cast<const T*>(e.other) + begin : nullptr;
  T* y = static_cast<T*>(e.y) + begin;
  const int64_t n = end - begin;
  switch (e.operation) {
    case Operation::add:
      return sweep(n, [&](int64_t i, auto at) { at.put(hn::Add(at.get(x + i), at.get(other + i)), y + i); });
    case Operation::scale:
      return sweep(n, [&](int64_t i, auto at) { at.put(hn::Mul(at.get(x + i), set(e.factor)), y + i); });
    case Operation::relu:  // the operands' order keeps NaN
      return sweep(n, [&](int64_t i, auto at) { at.put(hn::Max(zero(), at.get(x + i)), y + i); });
    case Operation::softcap:
      return sweep(n, [&](int64_t i, auto at) { at.put(softcapped(at.get(x + i), e.factor), y + i); });
    case Operation::widen:
      float* wide = static_cast<float*>(e.y) + begin;
      return sweep(n, [&](int64_t i, auto at) { at.put(at.get(x + i), wide + i); });
  }
}

void elementwise_any(const Elementwise& e, int64_t begin, int64_t end) {
  e.type == Type::float32 ? elementwise_as<float>(e, begin, end) : elementwise_as<BFloat16>(e, begin, end);
}

}  // namespace
}  // namespace llmtk::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace llmtk::kernels {
HWY_EXPORT(elementwise_any);

namespace cpu {

void elementwise(const Elementwise& e, int64_t begin, int64_t end) {
  HWY_DYNAMIC_DISPATCH(elementwise_any)(e, begin, end);
}

void lookup(const Lookup& l, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; ++i) {
    if (l.ids[i] < 0 || l.ids[i] >= l.rows) std::abort();
    std::memcpy(static_cast<char*>(l.y) + i * l.row_bytes, static_cast<const char*>(l.table) + l.ids[i] * l.row_bytes,
                static_cast<size_t>(l.row_bytes));
  }
}

}  // namespace cpu
}  // namespace llmtk::kernels
#endif
