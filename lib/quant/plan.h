#pragma once
// Which matrices of a model become what.

#include <optional>
#include <string>
#include <vector>

#include "nn/model.h"
#include "quant/scheme.h"

namespace llmtk::quant {

struct PlannedMatrix {
  std::string path;  ///< of the module; its parameter is path.weight
  std::shared_ptr<torch::nn::Module> module;
  Scheme scheme;
  int64_t rows = 0, columns = 0;  ///< out, in
  bool is_table = false;

  /// [out, in], whatever way the parameter lies.
  at::Tensor weight() const;
};

struct Plan {
  std::vector<SchemeGroup> groups;
  std::vector<PlannedMatrix> matrices;  ///< in the model's order
  std::vector<std::string> ignored;     ///< linear layers that stay as they are, by path

  const PlannedMatrix* find(const std::string& path) const;
};

/// groups: as in a config of compressed-tensors; ignore: patterns of modules that stay. Without a list these are the
/// heads that score tokens or classes and, under NF4, T5's `wo`, which transformers leaves out too. A head that is tied
/// to a table stays unless the table is named. Throws Error(usage) for a pattern that means no module, where nothing is
/// left to quantize, for NF4 beside other schemes or of a table, and for a matrix whose width is no multiple of the
/// group size, naming the sizes that fit.
Plan make_plan(const nn::Model& model, std::vector<SchemeGroup> groups,
               const std::optional<std::vector<std::string>>& ignore);

}  // namespace llmtk::quant
