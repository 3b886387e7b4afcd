#include "nn/kv_cache.h"

#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <vector>

#include "core/error.h"

namespace llmtk::nn {

KVCache::KVCache(int64_t layers, int64_t batch, int64_t heads, int64_t max_length, int64_t head_dim, const Build& build)
    : batch_(batch), max_length_(max_length) {
  const std::vector<int64_t> sizes{batch, heads, std::min(max_length, kFirstRoom), head_dim};
  for (int64_t i = 0; i < layers; ++i) layers_.push_back({build.empty(sizes), build.empty(sizes)});
}

namespace {

/// held [B, H, *, D] with its first `length` tokens in a block for `room` of them.
at::Tensor with_room(const at::Tensor& held, int64_t room, int64_t length) {
  auto sizes = held.sizes().vec();
  sizes[2] = room;
  at::Tensor larger = held.new_empty(sizes);
  larger.narrow(2, 0, length).copy_(held.narrow(2, 0, length));
  return larger;
}

}  // namespace

std::pair<at::Tensor, at::Tensor> KVCache::append(int64_t layer, const at::Tensor& k, const at::Tensor& v) {
  LLMTK_CHECK(layer < static_cast<int64_t>(layers_.size()) && k.size(0) == batch_, "layer ", layer, ", k ", k.sizes());
  const at::NoGradGuard no_grad;
  const int64_t tokens = k.size(2), total = held() + tokens;
  if (total > max_length_)
    throw Error(Exit::runtime, {.what = "the key-value cache is full",
                                .got = std::to_string(total) + " tokens",
                                .expected = "at most " + std::to_string(max_length_)});
  auto& [keys, values] = layers_[layer];
  if (total > keys.size(2)) {
    const int64_t room = std::min(max_length_, std::max(total, 2 * keys.size(2)));
    for (at::Tensor* block : {&keys, &values}) *block = with_room(*block, room, held());
  }
  keys.narrow(2, held(), tokens).copy_(k);
  values.narrow(2, held(), tokens).copy_(v);
  return {keys.narrow(2, 0, total), values.narrow(2, 0, total)};
}

void KVCache::put_virtual(const at::Tensor& keys_values) {
  LLMTK_CHECK(held() == 0, held(), " tokens are held already");
  for (size_t i = 0; i < layers_.size(); ++i) {
    const auto rows = [&](int64_t of) { return keys_values[of].unsqueeze(0).expand({batch_, -1, -1, -1}); };
    const auto layer = static_cast<int64_t>(i);
    append(layer, rows(2 * layer), rows(2 * layer + 1));
  }
  advance_virtual(keys_values.size(2));
}

namespace {

/// Whether row i may be overwritten with row rows[i], one i after the other, without losing what a later one needs.
bool in_place(const std::vector<int64_t>& rows, int64_t batch) {
  if (static_cast<int64_t>(rows.size()) > batch) return false;
  for (size_t i = 0; i < rows.size(); ++i)
    if (const auto source = static_cast<size_t>(rows[i]); source < i && rows[source] != rows[i]) return false;
  return true;
}

}  // namespace

void KVCache::reorder(const at::Tensor& rows) {
  const at::NoGradGuard no_grad;
  const at::Tensor on_cpu = rows.cpu();
  const std::vector<int64_t> sources(on_cpu.data_ptr<int64_t>(), on_cpu.data_ptr<int64_t>() + on_cpu.numel());
  const bool moves = in_place(sources, batch_);
  batch_ = rows.size(0);
  for (auto& layer : layers_)
    for (at::Tensor* block : {&layer.keys, &layer.values}) {
      const at::Tensor filled = block->narrow(2, 0, held());
      if (moves) {  // most beams stay where they are
        for (int64_t i = 0; i < batch_; ++i)
          if (sources[i] != i) filled[i].copy_(filled[sources[i]]);
        *block = block->narrow(0, 0, batch_);
        continue;
      }
      const at::Tensor moved = filled.index_select(0, rows.to(block->device()));
      if (batch_ != block->size(0)) {
        auto sizes = block->sizes().vec();
        sizes[0] = batch_;
        *block = block->new_empty(sizes);
      }
      block->narrow(2, 0, held()).copy_(moved);
    }
}

void KVCache::truncate(int64_t length) {
  LLMTK_CHECK(length >= 0 && length <= length_, "truncate to ", length, " of ", length_);
  length_ = length;
}

}  // namespace llmtk::nn
