#include "nn/virtual_tokens.h"

#include <ATen/ops/cat.h>

namespace llmtk::nn {

at::Tensor put_before(const at::Tensor& embeddings, const at::Tensor& tokens) {
  if (!embeddings.defined()) return tokens;
  return at::cat({embeddings.unsqueeze(0).expand({tokens.size(0), -1, -1}), tokens}, 1);  // [B, P + T, E]
}

void put_before(const at::Tensor& keys_values, int64_t layer, at::Tensor& keys, at::Tensor& values) {
  if (!keys_values.defined()) return;
  const auto put = [&](int64_t i, at::Tensor& text) {
    text = at::cat({keys_values[i].unsqueeze(0).expand({text.size(0), -1, -1, -1}), text}, 2);  // [B, K, P + T, D]
  };
  put(2 * layer, keys);
  put(2 * layer + 1, values);
}

}  // namespace llmtk::nn
