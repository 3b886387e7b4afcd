#include "rl/rollout.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "core/error.h"

namespace llmtk::rl {
namespace {

/// One list of names for both directions.
template <class R, class Visit>
void visit_rollout(R& rollout, Visit&& v) {
  v("ids", rollout.batch.ids, true);
  v("prompt_lengths", rollout.batch.prompt_lengths, true);
  v("lengths", rollout.batch.lengths, true);
  v("scores", rollout.scores, true);
  v("ended", rollout.ended, true);
  v("advantages", rollout.advantages, true);
  v("log_probs", rollout.log_probs, false);
  v("reference", rollout.reference, false);
  v("values", rollout.values, false);
  v("returns", rollout.returns, false);
  v("counted", rollout.counted, false);
}

}  // namespace

io::NamedTensors Rollout::tensors() const {
  io::NamedTensors tensors;
  visit_rollout(*this, [&](const char* name, const at::Tensor& tensor, bool) {
    if (tensor.defined()) tensors.emplace_back(name, tensor);
  });
  return tensors;
}

Rollout Rollout::from_tensors(const io::NamedTensors& tensors, c10::Device device, const std::string& where) {
  Rollout rollout;
  visit_rollout(rollout, [&](const char* name, at::Tensor& tensor, bool needed) {
    const auto found = std::ranges::find(tensors, name, &io::NamedTensors::value_type::first);
    if (found != tensors.end())
      tensor = found->second.clone().to(device);
    else if (needed)
      throw Error(Exit::file, {.what = std::string("tensor '") + name + "' is missing", .where = where});
  });
  rollout.batch.longest = rollout.batch.lengths.max().item<int64_t>();
  return rollout;
}

ResponseBatch make_batch(std::span<const Response> responses, c10::Device device) {
  const auto B = static_cast<int64_t>(responses.size());
  ResponseBatch batch{.prompt_lengths = at::empty({B}, at::kLong), .lengths = at::empty({B}, at::kLong)};
  int64_t T = 1;
  for (const Response& response : responses) {
    T = std::max(T, static_cast<int64_t>(response.prompt->ids.size() + response.ids.size()));
    batch.longest = std::max(batch.longest, static_cast<int64_t>(response.ids.size()));
  }
  batch.ids = at::zeros({B, T}, at::kLong);
  for (int64_t b = 0; b < B; ++b) {
    const Response& response = responses[static_cast<size_t>(b)];
    int64_t* ids = std::ranges::copy(response.prompt->ids, batch.ids.mutable_data_ptr<int64_t>() + b * T).out;
    std::ranges::copy(response.ids, ids);
    batch.prompt_lengths.mutable_data_ptr<int64_t>()[b] = static_cast<int64_t>(response.prompt->ids.size());
    batch.lengths.mutable_data_ptr<int64_t>()[b] = static_cast<int64_t>(response.ids.size());
  }
  for (at::Tensor* tensor : {&batch.ids, &batch.prompt_lengths, &batch.lengths}) *tensor = tensor->to(device);
  return batch;
}

StepSize size_of(const Rollout& rollout, const at::Tensor& rows) {
  const auto count = [&](const at::Tensor& mask) { return mask.index_select(0, rows).sum().item<double>(); };
  return {static_cast<double>(rows.size(0)), count(rollout.mask()), count(rollout.batch.value_mask()),
          rollout.mask().sum().item<double>()};
}

}  // namespace llmtk::rl
