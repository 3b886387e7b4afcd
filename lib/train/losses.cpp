#include "train/losses.h"

#include <ATen/ATen.h>

#include <nlohmann/json.hpp>

#include "core/error.h"

namespace llmtk::train {
namespace {

/// values: [B, N], row-major. Returns them on `device`.
template <class T>
at::Tensor on_device(const std::vector<T>& values, int64_t rows, c10::Device device) {
  auto* data = const_cast<T*>(values.data());  // from_blob asks for it; the copy below only reads
  const int64_t columns = static_cast<int64_t>(values.size()) / rows;
  if constexpr (std::is_same_v<T, float>) return at::from_blob(data, {rows, columns}, at::kFloat).to(device, at::kFloat);
  else return at::from_blob(data, {rows, columns}, at::kInt).to(device, at::kLong);
}

/// [B, T] bool, false at padding; undefined where there is none.
at::Tensor attention_mask(const data::Batch& batch, c10::Device device) {
  if (batch.lengths.empty()) return {};
  const at::Tensor lengths = on_device(batch.lengths, batch.rows, device);  // [B, 1]
  return at::arange(batch.length, lengths.options()).unsqueeze(0) < lengths;
}

nn::Texts texts_of(const data::Batch& batch, c10::Device device) {
  LLMTK_CHECK(batch.position_ids.empty(), "these rows are one text each");
  nn::Texts texts{.input_ids = on_device(batch.input_ids, batch.rows, device),
                  .attention_mask = attention_mask(batch, device)};
  if (!batch.token_type_ids.empty()) texts.token_type_ids = on_device(batch.token_type_ids, batch.rows, device);
  return texts;
}

at::Tensor labels_of(const data::Batch& batch, c10::Device device) {
  LLMTK_CHECK(!batch.labels.empty(), "the batch has no labels");
  return on_device(batch.labels, batch.rows, device);  // [B, U]
}

/// What the decoder sees of its labels.
std::vector<int32_t> shifted_right(const data::Batch& batch, int64_t start, int64_t pad) {
  std::vector<int32_t> ids(batch.labels.size());
  const auto length = static_cast<size_t>(batch.label_length());
  for (size_t i = 0; i < ids.size(); ++i) {
    const int32_t before = i % length == 0 ? static_cast<int32_t>(start) : batch.labels[i - 1];
    ids[i] = before == data::kIgnore ? static_cast<int32_t>(pad) : before;
  }
  return ids;
}

at::Tensor summed_cross_entropy(const at::Tensor& logits, const at::Tensor& labels, double scale) {
  return at::cross_entropy_loss(logits.to(at::kFloat), labels, {}, at::Reduction::Sum, data::kIgnore) * scale;
}

}  // namespace

at::Tensor causal_lm_loss(nn::CausalModel& model, const data::Batch& batch, double scale) {
  const c10::Device device = model.device();
  nn::ForwardContext context;
  // Padding stands behind the text, where a decoder does not look.
  if (!batch.position_ids.empty()) context.position_ids = on_device(batch.position_ids, batch.rows, device);
  const at::Tensor hidden = model.forward(on_device(batch.input_ids, batch.rows, device), context);  // [B, T, H]
  return model.cross_entropy(hidden.flatten(0, 1), labels_of(batch, device).flatten(), scale, data::kIgnore);
}

at::Tensor masked_lm_loss(nn::EncoderModel& model, const data::Batch& batch, double scale) {
  const auto [ids, mask, types] = texts_of(batch, model.device());
  const at::Tensor hidden = model.forward(ids, {.attention_mask = mask, .token_type_ids = types});  // [B, T, H]
  return model.token_cross_entropy(hidden.flatten(0, 1), labels_of(batch, model.device()).flatten(), scale,
                                   data::kIgnore);
}

at::Tensor token_classification_loss(nn::EncoderModel& model, const data::Batch& batch, double scale) {
  return masked_lm_loss(model, batch, scale);  // the head makes the difference
}

at::Tensor seq2seq_loss(nn::Seq2SeqModel& model, const data::Batch& batch, double scale) {
  const c10::Device device = model.device();
  const at::Tensor mask = attention_mask(batch, device);
  const at::Tensor encoded = model.encode(on_device(batch.input_ids, batch.rows, device), {.attention_mask = mask});
  const at::Tensor labels = labels_of(batch, device);  // [B, U]
  const auto ids = shifted_right(batch, model.decoder_start_token_id(), model.pad_token_id());
  const at::Tensor hidden = model.decode(on_device(ids, batch.rows, device),
                                         {.encoder_hidden = encoded, .encoder_attention_mask = mask});  // [B, U, H]
  return model.cross_entropy(hidden.flatten(0, 1), labels.flatten(), scale, data::kIgnore);
}

at::Tensor class_logits(nn::Model& model, const data::Batch& batch) {
  return model.class_logits(texts_of(batch, model.device()));
}

at::Tensor token_classification_loss(const at::Tensor& logits, const data::Batch& batch, double scale) {
  return summed_cross_entropy(logits.flatten(0, 1), labels_of(batch, logits.device()).flatten(), scale);
}

at::Tensor sequence_classification_loss(const at::Tensor& logits, const data::Batch& batch, double scale,
                                        ProblemType problem) {
  if (problem == ProblemType::single_label_classification)
    return summed_cross_entropy(logits, labels_of(batch, logits.device()).squeeze(1), scale);
  LLMTK_CHECK(batch.num_values() == logits.size(1), "values for ", batch.num_values(), " labels, the head has ",
              logits.size(1));
  const at::Tensor values = on_device(batch.values, batch.rows, logits.device());  // [B, K]
  const at::Tensor asked = values.isnan().logical_not();
  const at::Tensor wanted = values.nan_to_num();
  const at::Tensor losses = problem == ProblemType::regression
                                ? (logits.to(at::kFloat) - wanted).square()
                                : at::binary_cross_entropy_with_logits(logits.to(at::kFloat), wanted, {}, {},
                                                                       at::Reduction::None);
  return (losses * asked).sum() * scale;
}

}  // namespace llmtk::train
