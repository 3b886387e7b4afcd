#include "nn/model.h"

#include "core/error.h"

namespace llmtk::nn {

c10::ScalarType Model::dtype() const { return parameters().front().scalar_type(); }

c10::Device Model::device() const { return parameters().front().device(); }

int64_t Model::max_positions() const { return num_positions() - (virtual_tokens_ ? virtual_tokens_->length() : 0); }

void Model::set_virtual_tokens(std::shared_ptr<VirtualTokens> tokens) {
  constexpr const char* kName = "prompt_encoder";
  if (virtual_tokens_) unregister_module(kName);
  virtual_tokens_ = std::move(tokens);
  if (!virtual_tokens_) return;
  register_module(kName, virtual_tokens_);
  if (max_positions() < 1)
    throw Error(Exit::usage, {.what = "virtual tokens leave no room for a text",
                              .got = std::to_string(virtual_tokens_->length()) + " virtual tokens",
                              .expected = "fewer than the model's " + std::to_string(num_positions()) + " positions"});
}

VirtualInputs Model::virtual_inputs() const {
  if (!virtual_tokens_) return {};
  const auto own = [this](const at::Tensor& tensor) {
    return tensor.defined() ? tensor.to(device(), dtype()) : tensor;
  };
  return {own(virtual_tokens_->keys_values()), own(virtual_tokens_->embeddings())};
}

int64_t Model::num_parameters() const {
  int64_t count = 0;
  for (const at::Tensor& parameter : parameters()) count += parameter.numel();
  return count;
}

}  // namespace llmtk::nn
