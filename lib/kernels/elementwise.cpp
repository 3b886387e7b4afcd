#include "kernels/elementwise.h"

#include <ATen/ATen.h>
#include <c10/util/BFloat16.h>

#include "core/error.h"
#include "kernels/elementwise_impl.h"
#include "kernels/tensors.h"

namespace llmtk::kernels {
namespace {

/// Whether our own kernel takes it: only while recording. Alone, LibTorch's does the same.
template <class... Tensors>
bool recorded(const at::Tensor& x, const Tensors&... others) {
  return Recording::current() && x.is_cpu() && all_fused(x, others...) && x.is_contiguous() &&
         ((others.is_contiguous() && others.sizes() == x.sizes()) && ...) && !wants_gradient(x, others...);
}

at::Tensor run(Elementwise e, const at::Tensor& x, const at::Tensor& other = {}) {
  const at::Tensor y =
      at::empty(x.sizes(), x.options().dtype(e.operation == Operation::widen ? at::kFloat : x.scalar_type()));
  e.type = type_of(x);
  e.x = data(x);
  e.other = data(other);
  e.y = mutable_data(y);
  parallel_step(x.numel(), 1, [e](int64_t begin, int64_t end) { cpu::elementwise(e, begin, end); }, {x, other, y});
  return y;
}

/// The ids may be others when the step is repeated: whoever writes them has checked them.
void check_ids(const at::Tensor& table, const at::Tensor& ids) {
  for (int64_t i = 0; i < ids.numel(); ++i) {
    const int64_t id = ids.const_data_ptr<int64_t>()[i];
    LLMTK_CHECK(id >= 0 && id < table.size(0), "id ", id, " of a table of ", table.size(0));
  }
}

at::Tensor recorded_lookup(const at::Tensor& table, const at::Tensor& ids) {
  check_ids(table, ids);
  std::vector<int64_t> shape = ids.sizes().vec();
  shape.push_back(table.size(1));
  const at::Tensor y = at::empty(shape, table.options());
  const Lookup l{.row_bytes = table.size(1) * static_cast<int64_t>(table.element_size()),
                 .rows = table.size(0),
                 .table = data(table),
                 .ids = ids.const_data_ptr<int64_t>(),
                 .y = mutable_data(y)};
  parallel_step(ids.numel(), table.size(1), [l](int64_t begin, int64_t end) { cpu::lookup(l, begin, end); },
                {table, ids, y});
  return y;
}

}  // namespace

at::Tensor lookup(const at::Tensor& table, const at::Tensor& ids, int64_t padding_idx) {
  if (Recording::current() && table.is_cpu() && ids.is_cpu() && table.is_contiguous() && ids.is_contiguous() &&
      !wants_gradient(table))
    return recorded_lookup(table, ids);
  return at::embedding(table, ids, padding_idx);
}

at::Tensor add(const at::Tensor& a, const at::Tensor& b) {
  return recorded(a, b) ? run({.operation = Operation::add}, a, b) : a + b;
}

at::Tensor scale(const at::Tensor& x, double factor) {
  if (!recorded(x)) return x * at::scalar_tensor(factor, x.options().device(at::kCPU));
  const auto wide = static_cast<float>(factor);
  const bool narrow = x.scalar_type() == at::kBFloat16;
  return run({.operation = Operation::scale, .factor = narrow ? static_cast<float>(c10::BFloat16(wide)) : wide}, x);
}

at::Tensor relu(const at::Tensor& x) { return recorded(x) ? run({.operation = Operation::relu}, x) : at::relu(x); }

at::Tensor softcap(const at::Tensor& x, double cap) {
  if (!recorded(x)) return at::tanh(x / cap) * cap;
  return run({.operation = Operation::softcap, .factor = static_cast<float>(cap)}, x);
}

at::Tensor widen(const at::Tensor& x) {
  if (x.scalar_type() == at::kFloat) return x;
  return recorded(x) ? run({.operation = Operation::widen}, x) : x.to(at::kFloat);
}

}  // namespace llmtk::kernels
