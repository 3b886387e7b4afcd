#include "open_encoder.h"

#include <ATen/ops/full.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <future>

#include "core/device.h"
#include "core/error.h"
#include "core/runtime.h"
#include "models/registry.h"
#include "quant/folder.h"

namespace llmtk {

OpenEncoder open_encoder(const ModelOptions& options, const std::filesystem::path& weights,
                         std::optional<nn::Head> head) {
  models::LoadOptions load{.map = true, .head = head, .storages = quant::open_storages};
  if (options.dtype != "auto") load.dtype = parse_dtype(options.dtype);
  setup_runtime(options.threads);
  load.device = resolve_device(options.device);
  expect_adapters(load, weights, options.adapters);
  OpenEncoder open{.folder = weights};
  auto tokenizer = std::async(std::launch::async, [&] { return open_tokenizer(options, weights); });
  open.model = models::load<nn::EncoderModel>(weights.string(), load);
  add_adapters(*open.model, options.adapters);
  open.tokenizer = tokenizer.get();
  return open;
}

void check_ids(const nn::Model& model, const std::vector<text::TokenId>& ids, const std::string& where) {
  for (const auto id : ids)
    if (id < 0 || id >= model.vocab_size())
      throw Error(Exit::data, {.what = "the tokenizer gives an id that the model does not know",
                               .where = where,
                               .got = std::to_string(id),
                               .expected = "less than vocab_size " + std::to_string(model.vocab_size()),
                               .hint = "this tokenizer does not belong to this model"});
}

EncoderBatch encoder_batch(std::span<const std::vector<text::TokenId>* const> rows, const nn::Model& model,
                           const text::Tokenizer& tokenizer) {
  size_t longest = 0;
  for (const auto* row : rows) longest = std::max(longest, row->size());
  const auto B = static_cast<int64_t>(rows.size()), T = static_cast<int64_t>(longest);
  const auto pad = std::max(tokenizer.special_tokens().pad, text::TokenId{0});  // masked: any id would do
  EncoderBatch batch{.input_ids = at::full({B, T}, pad, at::kLong), .attention_mask = at::zeros({B, T}, at::kBool)};
  for (int64_t b = 0; b < B; ++b) {
    const auto& row = *rows[static_cast<size_t>(b)];
    const auto length = static_cast<int64_t>(row.size());
    std::ranges::copy(row, batch.input_ids.data_ptr<int64_t>() + b * T);
    batch.attention_mask[b].slice(0, 0, length).fill_(true);
  }
  const auto device = model.device();
  return {batch.input_ids.to(device), batch.attention_mask.to(device)};
}

}  // namespace llmtk
