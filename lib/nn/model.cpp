#include "nn/model.h"

#include <nlohmann/json.hpp>

#include "core/error.h"

namespace llmtk::nn {

c10::ScalarType Model::dtype() const { return parameters().front().scalar_type(); }

c10::Device Model::device() const { return parameters().front().device(); }

int64_t Model::max_positions() const { return num_positions() - (virtual_tokens_ ? virtual_tokens_->length() : 0); }

std::vector<std::string> Model::label_names() const {
  const auto json = config();
  const auto names = json.find("id2label");
  std::vector<std::string> found;
  for (int64_t i = 0; i < num_labels(); ++i) {
    const std::string number = std::to_string(i);
    const bool named = names != json.end() && names->is_object() && names->contains(number);
    const auto& name = named ? names->at(number) : nlohmann::ordered_json();
    found.push_back(name.is_string() ? name.get<std::string>() : "LABEL_" + number);
  }
  return found;
}

at::Tensor Model::class_logits(const Texts&) { LLMTK_CHECK(false, kind(), " that does not classify"); }

void Model::initialize_parameter(const std::string& name, const at::Tensor&, uint64_t) {
  LLMTK_CHECK(false, "'", name, "' has no random start of its own");
}

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
