#include "generate/stepper.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <utility>

#include "core/error.h"
#include "core/log.h"
#include "kernels/elementwise.h"

namespace llmtk::generate {

using at::Tensor;

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

void Stepper::record(Shape& shape) {
  kernels::Recording recording;
  shape.logits = pass(shape.ids);
  shape.plan = recording.finish();
  if (shape.plan) return;
  refused_by_ = recording.refused_by();
  log::debug("steps are passes of their own: " + refused_by_ + " cannot be recorded");
}

Tensor Stepper::step(const std::vector<text::TokenId>& ids, int64_t tokens) {
  const int64_t rows = cache_->batch();
  LLMTK_CHECK(static_cast<int64_t>(ids.size()) == rows * tokens, ids.size(), " ids for ", rows, " x ", tokens);
  for (const text::TokenId id : ids) LLMTK_CHECK(id >= 0 && id < model_.vocab_size(), "token ", id);
  cache_->begin_step(tokens);
  if (std::exchange(epoch_, cache_->epoch()) != cache_->epoch()) shapes_.clear();
  Shape& shape = shapes_[tokens];
  if (!shape.ids.defined()) shape.ids = at::empty({rows, tokens}, at::kLong);
  std::ranges::copy(ids, shape.ids.data_ptr<int64_t>());
  if (shape.plan) {
    shape.plan->run();
    cache_->advance(tokens);
  } else if (!refused_by_.empty() || !model_.device().is_cpu()) {
    shape.logits = pass(shape.ids.to(model_.device()));
  } else {
    record(shape);
  }
  return shape.logits;
}

Tensor Stepper::step(const std::vector<text::TokenId>& ids) { return step(ids, 1).squeeze(1); }

}  // namespace llmtk::generate
