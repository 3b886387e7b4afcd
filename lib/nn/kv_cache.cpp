#include "nn/kv_cache.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <vector>

#include "core/error.h"

namespace llmtk::nn {

std::vector<at::Tensor*> KVCache::Layer::blocks() {
  if (!key_scales.defined()) return {&keys, &values};
  return {&keys, &values, &key_scales, &value_scales};
}

KVCache::KVCache(int64_t layers, int64_t batch, int64_t heads, int64_t max_length, int64_t head_dim, const Build& build,
                 CacheType type)
    : lengths_(static_cast<size_t>(batch), 0), max_length_(max_length) {
  const int64_t room = std::min(max_length, kFirstRoom);
  Build codes = build, scales = build;
  codes.dtype = c10::kChar;
  scales.dtype = c10::kFloat;
  const bool quantized = type == CacheType::int8;
  for (int64_t i = 0; i < layers; ++i) {
    const auto block = [&] { return (quantized ? codes : build).empty({batch, heads, room, head_dim}); };
    Layer& layer = layers_.emplace_back(Layer{block(), block(), {}, {}});
    if (!quantized) continue;
    layer.key_scales = scales.empty({batch, heads, room});
    layer.value_scales = scales.empty({batch, heads, room});
  }
}

int64_t KVCache::length() const { return lengths_.empty() ? 0 : *std::ranges::max_element(lengths_); }

namespace {

/// held [B, H, *, ...] with its first `length` tokens in a block for `room` of them.
at::Tensor with_room(const at::Tensor& held, int64_t room, int64_t length) {
  auto sizes = held.sizes().vec();
  sizes[2] = room;
  at::Tensor larger = held.new_empty(sizes);
  larger.narrow(2, 0, length).copy_(held.narrow(2, 0, length));
  return larger;
}

}  // namespace

void KVCache::make_room(int64_t total) {
  if (total > max_length_)
    throw Error(Exit::runtime, {.what = "the key-value cache is full",
                                .got = std::to_string(total) + " tokens",
                                .expected = "at most " + std::to_string(max_length_)});
  for (Layer& layer : layers_) {  // in the middle of a pass some have it already
    const int64_t present = layer.keys.size(2);
    if (total <= present) continue;
    ++epoch_;
    const int64_t room = std::min(max_length_, std::max(total, 2 * present));
    for (at::Tensor* block : layer.blocks()) *block = with_room(*block, room, held());
  }
}

at::Tensor KVCache::put(at::Tensor& block, at::Tensor& scales, const at::Tensor& x) {
  const int64_t tokens = x.size(2), total = held() + tokens;
  if (!scales.defined()) {
    block.narrow(2, held(), tokens).copy_(x);
    return block.narrow(2, 0, total);
  }
  const auto [codes, scale] = kernels::quantize_tokens(x);
  block.narrow(2, held(), tokens).copy_(codes);
  scales.narrow(2, held(), tokens).copy_(scale);
  return kernels::dequantize_tokens(block.narrow(2, 0, total), scales.narrow(2, 0, total), x.scalar_type());
}

std::pair<at::Tensor, at::Tensor> KVCache::append(int64_t layer, const at::Tensor& k, const at::Tensor& v) {
  LLMTK_CHECK(layer < static_cast<int64_t>(layers_.size()) && k.size(0) == batch(), "layer ", layer, ", k ", k.sizes());
  LLMTK_CHECK(std::ranges::all_of(lengths_, [&](int64_t n) { return n == length(); }), "rows of different lengths");
  const at::NoGradGuard no_grad;
  make_room(held() + k.size(2));
  Layer& to = layers_[layer];
  return {put(to.keys, to.key_scales, k), put(to.values, to.value_scales, v)};
}

void KVCache::advance(int64_t tokens) {
  for (int64_t& length : lengths_) length += tokens;
}

void KVCache::put_virtual(const at::Tensor& keys_values) {
  LLMTK_CHECK(held() == 0, held(), " tokens are held already");
  for (size_t i = 0; i < layers_.size(); ++i) {
    const auto rows = [&](int64_t of) { return keys_values[of].unsqueeze(0).expand({batch(), -1, -1, -1}); };
    const auto layer = static_cast<int64_t>(i);
    append(layer, rows(2 * layer), rows(2 * layer + 1));
  }
  advance_virtual(keys_values.size(2));
}

namespace {

/// number_at(i) for every element, into the memory that `to` has, on whatever device.
template <class F>
void write(const at::Tensor& to, const F& number_at) {
  const at::Tensor numbers = to.is_cpu() ? to : at::empty(to.sizes(), to.options().device(c10::kCPU));
  for (int64_t i = 0; i < numbers.numel(); ++i) numbers.data_ptr<int64_t>()[i] = number_at(i);
  if (!to.is_cpu()) to.copy_(numbers);
}

}  // namespace

void KVCache::begin_step(int64_t tokens) {
  make_room(held() + tokens);
  const auto options = at::TensorOptions().dtype(c10::kLong).device(layers_.front().keys.device());
  at::Tensor& places = places_[tokens];
  if (!held_lengths_.defined() || held_lengths_.size(0) != batch()) {
    held_lengths_ = at::empty({batch()}, options);
    ++epoch_;
  }
  if (!places.defined() || places.size(0) != batch()) {
    places = at::empty({batch(), tokens}, options);
    ++epoch_;
  }
  write(held_lengths_, [&](int64_t row) { return virtual_length_ + lengths_[row]; });
  write(places, [&](int64_t i) { return virtual_length_ + lengths_[i / tokens] + i % tokens; });
}

kernels::KeyValueBlocks KVCache::blocks(int64_t layer) const {
  const Layer& from = layers_.at(static_cast<size_t>(layer));
  return {from.keys, from.values, from.key_scales, from.value_scales};
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
  const bool moves = in_place(sources, batch());
  const int64_t size = rows.size(0), filled_length = held();
  if (!moves || size != batch()) ++epoch_;
  for (auto& layer : layers_)
    for (at::Tensor* block : layer.blocks()) {
      const at::Tensor filled = block->narrow(2, 0, filled_length);
      if (moves) {  // most beams stay where they are
        for (int64_t i = 0; i < size; ++i)
          if (sources[i] != i) filled[i].copy_(filled[sources[i]]);
        *block = block->narrow(0, 0, size);
        continue;
      }
      const at::Tensor moved = filled.index_select(0, rows.to(block->device()));
      if (size != block->size(0)) {
        auto sizes = block->sizes().vec();
        sizes[0] = size;
        *block = block->new_empty(sizes);
      }
      block->narrow(2, 0, filled_length).copy_(moved);
    }
  std::vector<int64_t> lengths;
  for (const int64_t source : sources) lengths.push_back(lengths_[source]);
  lengths_ = std::move(lengths);
}

void KVCache::truncate(int64_t length) {
  LLMTK_CHECK(length >= 0 && length <= this->length(), "truncate to ", length, " of ", this->length());
  for (int64_t& row : lengths_) row = std::min(row, length);
}

void KVCache::truncate(const std::vector<int64_t>& lengths) {
  LLMTK_CHECK(lengths.size() == lengths_.size(), lengths.size(), " lengths of ", lengths_.size(), " rows");
  for (size_t i = 0; i < lengths.size(); ++i) {
    LLMTK_CHECK(lengths[i] >= 0 && lengths[i] <= lengths_[i], "truncate to ", lengths[i], " of ", lengths_[i]);
    lengths_[i] = lengths[i];
  }
}

}  // namespace llmtk::nn
