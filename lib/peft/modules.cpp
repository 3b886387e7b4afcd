#include "peft/modules.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/suggest.h"
#include "nn/causal_model.h"
#include "nn/encoder_model.h"
#include "nn/seq2seq_model.h"
#include "nn/sequence_classifier.h"

namespace llmtk::peft {

std::vector<NamedModule> base_modules(const nn::Model& model) {
  std::vector<NamedModule> modules;
  std::string branch;  // the path of the branch that is being left out
  for (const auto& item : model.named_modules("", /*include_self=*/false)) {
    const bool is_branch = std::dynamic_pointer_cast<nn::LinearBranch>(item.value()) ||
                           std::dynamic_pointer_cast<nn::EmbeddingBranch>(item.value());
    if (is_branch) branch = item.key();
    if (!branch.empty() && (item.key() == branch || item.key().starts_with(branch + "."))) continue;
    modules.push_back({item.key(), item.value()});
  }
  return modules;
}

const nn::Linear* output_embedding(const nn::Model& model) {
  auto& mutable_model = const_cast<nn::Model&>(model);
  if (auto* causal = dynamic_cast<nn::CausalModel*>(&mutable_model)) return &causal->lm_head();
  if (auto* seq2seq = dynamic_cast<nn::Seq2SeqModel*>(&mutable_model)) return &seq2seq->lm_head();
  if (model.head() != nn::Head::masked_lm) return nullptr;
  for (const auto& [path, module] : base_modules(model))
    if (const auto* linear = dynamic_cast<const nn::Linear*>(module.get()); linear && linear->is_tied()) return linear;
  return nullptr;
}

std::string task_type(const nn::Model& model) {
  switch (model.head()) {
    case nn::Head::causal_lm:
      return "CAUSAL_LM";
    case nn::Head::seq2seq_lm:
      return "SEQ_2_SEQ_LM";
    case nn::Head::sequence_classification:
      return "SEQ_CLS";
    case nn::Head::token_classification:
      return "TOKEN_CLS";
    case nn::Head::none:
      return "FEATURE_EXTRACTION";
    case nn::Head::masked_lm:
      return "";
  }
  return "";
}

void freeze(nn::Model& model) {
  for (at::Tensor parameter : model.parameters()) parameter.requires_grad_(false);
}

std::vector<std::string> saved_module_names(const nn::Model& model, std::vector<std::string> names) {
  const std::string task = task_type(model);
  if (task == "SEQ_CLS" || task == "TOKEN_CLS")
    for (const char* head : {"classifier", "score"})  // peft's PeftModelForSequenceClassification
      if (std::ranges::find(names, head) == names.end()) names.emplace_back(head);
  constexpr const char* kOfT5 = "classification_head";  // which peft would leave at random
  if (dynamic_cast<const nn::Seq2SeqClassifier*>(&model) && std::ranges::find(names, kOfT5) == names.end())
    names.emplace_back(kOfT5);
  return names;
}

namespace {

[[noreturn]] void refuse_unknown(const nn::Model& model, const std::string& name) {
  std::vector<std::string> last;
  std::string listed;
  for (const auto& [path, module] : base_modules(model)) {
    const std::string end = path.substr(path.rfind('.') + 1);
    if (std::isdigit(static_cast<unsigned char>(end[0])) || std::ranges::find(last, end) != last.end()) continue;
    last.push_back(end);
    listed += (listed.empty() ? "" : ", ") + end;
  }
  const std::string near = nearest(name, last);
  throw Error(Exit::usage, {.what = "no module of the model is called so",
                            .where = "modules_to_save",
                            .got = "'" + name + "'",
                            .expected = listed,
                            .hint = near.empty() ? "" : "did you mean '" + near + "'?"});
}

}  // namespace

std::vector<std::string> take_modules(nn::Model& model, const std::vector<std::string>& names,
                                      const std::vector<std::string>& required) {
  const auto modules = base_modules(model);
  const auto heads = saved_module_names(model, {});  // of other families too
  for (const std::string& name : required)
    if (std::ranges::find(heads, name) == heads.end() &&
        std::ranges::none_of(modules, [&](const NamedModule& one) { return one.path.ends_with(name); }))
      refuse_unknown(model, name);
  std::vector<std::string> taken;
  for (const auto& [path, module] : modules) {
    if (std::ranges::none_of(names, [&](const std::string& name) { return path.ends_with(name); })) continue;
    for (const auto& below : module->modules()) {
      if (const auto* table = dynamic_cast<nn::Embedding*>(below.get())) {
        refuse_shared_table(model, path);
        refuse_quantized_table(*table, path);
        untie_from(model, table->weight);
      }
      if (const auto* head = dynamic_cast<nn::Linear*>(below.get()); head && head->is_tied())
        untie_from(model, head->weight);
    }
    for (const auto& parameter : module->named_parameters()) taken.push_back(path + "." + parameter.key());
  }
  std::ranges::sort(taken);
  taken.erase(std::unique(taken.begin(), taken.end()), taken.end());
  return taken;
}

void refuse_quantized_table(const nn::Embedding& table, const std::string& path) {
  if (table.storage())
    throw Error(Exit::usage, {.what = "an adapter changes the token table '" + path + "', which is quantized here",
                              .hint = "use a base whose table stays as it is"});
}

void refuse_shared_table(const nn::Model& model, const std::string& path) {
  if (!dynamic_cast<const nn::Seq2SeqModel*>(&model) && !dynamic_cast<const nn::Seq2SeqClassifier*>(&model)) return;
  throw Error(Exit::usage, {.what = "encoder and decoder share this token table, and peft would change it for neither",
                            .where = path,
                            .expected = "matrices: q, k, v, o, wi, wo, lm_head"});
}

void untie_from(nn::Model& model, const at::Tensor& table) {
  for (const auto& [path, module] : base_modules(model)) {
    auto* head = dynamic_cast<nn::Linear*>(module.get());
    if (!head || head->storage() || !head->is_tied() || !head->weight.is_same(table)) continue;
    if (dynamic_cast<nn::EncoderModel*>(&model))
      throw Error(Exit::usage, {.what = "the head of this model is always its token table: neither can change alone",
                                .where = path,
                                .got = model.config().value("model_type", "")});
    head->untie();
  }
}

void assign(at::Tensor parameter, const at::Tensor& value, const std::string& name, const std::string& where) {
  if (parameter.sizes() != value.sizes())
    throw Error(Exit::file, {.what = "tensor '" + name + "' has another shape than the model's",
                             .where = where,
                             .got = detail::concat(value.sizes()),
                             .expected = detail::concat(parameter.sizes())});
  const at::NoGradGuard no_grad;
  parameter.set_data(
      value.detach().to(parameter.options().requires_grad(false), /*non_blocking=*/false, /*copy=*/true));
}

}  // namespace llmtk::peft
