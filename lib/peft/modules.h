#pragma once
// A model's modules by name, and what every method of fine-tuning does with whole modules: freeze them, train some of
// them, keep a tied matrix apart.

#include <memory>
#include <string>
#include <vector>

#include "nn/linear.h"
#include "nn/model.h"

namespace llmtk::peft {

struct NamedModule {
  std::string path;
  std::shared_ptr<torch::nn::Module> module;
};
/// Every module below the model but those of branches, in the model's order.
std::vector<NamedModule> base_modules(const nn::Model& model);

/// The head that gives a score to each token of the vocabulary; null where the model has none.
const nn::Linear* output_embedding(const nn::Model& model);

/// peft's word for what the model is for: CAUSAL_LM, SEQ_2_SEQ_LM, SEQ_CLS, TOKEN_CLS; empty for a masked LM, and
/// FEATURE_EXTRACTION for an encoder alone.
std::string task_type(const nn::Model& model);

/// Stops the gradients of every parameter.
void freeze(nn::Model& model);

/// `names`, and of a classifier the names of its head, which peft saves with every adapter.
std::vector<std::string> saved_module_names(const nn::Model& model, std::vector<std::string> names);
/// The names of the parameters of the modules whose path ends with one of `names`. A matrix that such a module shares
/// with another is copied first, so that the other keeps what it has, as in peft. Throws Error(usage) for a name in
/// `required` that means no module.
std::vector<std::string> take_modules(nn::Model& model, const std::vector<std::string>& names,
                                      const std::vector<std::string>& required);

/// Throws Error(usage) for a table whose matrix a storage holds (nn::WeightStorage).
void refuse_quantized_table(const nn::Embedding& table, const std::string& path);
/// Throws Error(usage) for the table of an encoder-decoder: in peft encoder and decoder keep the old one.
void refuse_shared_table(const nn::Model& model, const std::string& path);

/// Ends a tie between the table `table` and a head, either of which may be about to change alone: the head gets a copy.
/// Throws Error(usage) where the family has no such models.
void untie_from(nn::Model& model, const at::Tensor& table);

/// Gives the parameter the value, in its own type and on its device, in new memory: it may lie in a mapped file.
/// Throws Error(file) naming `where` where the shape differs.
void assign(at::Tensor parameter, const at::Tensor& value, const std::string& name, const std::string& where);

}  // namespace llmtk::peft
