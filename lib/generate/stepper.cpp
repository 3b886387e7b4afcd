#include "generate/stepper.h"

#include <ATen/ops/allclose.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/tensor.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <utility>

#include "core/error.h"
#include "core/log.h"
#include "kernels/elementwise.h"

namespace llmtk::generate {

using at::Tensor;

Stepper::Stepper(nn::CausalModel& model) : model_(model), device_(model.device()) {}

void Stepper::begin(nn::KVCache& cache) {
  cache_ = &cache;
  epoch_ = -1;
}

Tensor Stepper::pass(const Tensor& ids) {
  nn::ForwardContext context;
  context.cache = cache_;
  context.step = true;
  return kernels::widen(model_.logits(model_.forward(ids, context)));  // [rows, T, V]
}

void Stepper::refuse(const std::string& because) {
  refused_by_ = because;
  log::debug("steps are passes of their own: " + because + " cannot be recorded");
}

void Stepper::record(Shape& shape) {
  kernels::Recording recording;
  shape.logits = pass(shape.ids);
  shape.plan = recording.finish();
  if (!shape.plan) refuse(recording.refused_by());
}

/// Beside the captured pass, which writes the same once more, stands a plain one: so it is known to be right.
void Stepper::capture(Shape& shape) {
  const std::vector<int64_t> before = cache_->lengths();
  const Tensor plain = pass(shape.ids);
  try {
    cache_->truncate(before);
    kernels::CudaGraph graph(device_, [&] { shape.logits = pass(shape.ids); });
    graph.launch();
    if (at::allclose(shape.logits, plain, 1e-2, 1e-2)) {
      shape.graph.emplace(std::move(graph));
      return;
    }
    refuse("a CUDA graph whose figures are others");
  } catch (const c10::Error& error) {
    refuse(error.what_without_backtrace());
  }
  cache_->truncate(before);
  cache_->advance(shape.ids.size(1));
  shape.logits = plain;
}

Tensor Stepper::step(const std::vector<text::TokenId>& ids, int64_t tokens) {
  const int64_t rows = cache_->batch();
  LLMTK_CHECK(static_cast<int64_t>(ids.size()) == rows * tokens, ids.size(), " ids for ", rows, " x ", tokens);
  for (const text::TokenId id : ids) LLMTK_CHECK(id >= 0 && id < model_.vocab_size(), "token ", id);
  cache_->begin_step(tokens);
  if (std::exchange(epoch_, cache_->epoch()) != cache_->epoch()) shapes_.clear();
  Shape& shape = shapes_[tokens];
  put_ids(shape, ids, rows, tokens);
  if (shape.plan || shape.graph) {
    shape.plan ? shape.plan->run() : shape.graph->launch();
    cache_->advance(tokens);
    return shape.logits;
  }
  // The first step is a plain pass, which makes what is made once (tables of positions).
  const bool first = !std::exchange(shape.warm, true);
  if (first || !refused_by_.empty())
    shape.logits = pass(shape.ids);
  else
    device_.is_cpu() ? record(shape) : capture(shape);
  return shape.logits;
}

void Stepper::put_ids(Shape& shape, const std::vector<text::TokenId>& ids, int64_t rows, int64_t tokens) {
  if (!shape.ids.defined()) shape.ids = at::empty({rows, tokens}, at::TensorOptions().dtype(at::kLong).device(device_));
  if (device_.is_cpu())
    std::ranges::copy(ids, shape.ids.data_ptr<int64_t>());
  else
    shape.ids.view({-1}).copy_(at::tensor(std::vector<int64_t>(ids.begin(), ids.end()), at::kLong));
}

Tensor Stepper::step(const std::vector<text::TokenId>& ids) { return step(ids, 1).squeeze(1); }

}  // namespace llmtk::generate
