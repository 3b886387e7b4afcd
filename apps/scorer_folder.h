#pragma once
// Folders that give a text one number: reward models, and what values begin as.

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "models/registry.h"
#include "nn/model.h"

namespace llmtk {

/// A sequence classifier with one label, as rlhf-reward and transformers save it, or an adapter with the head of one.
class ScorerFolder {
 public:
  /// new_head: a language model gets a head that is drawn from LoadOptions::seed. Throws Error(file).
  explicit ScorerFolder(const std::string& path_or_name, bool new_head = false);

  const std::filesystem::path& path() const { return folder_; }
  /// Of the weights: an adapter's base.
  const std::filesystem::path& base() const { return base_; }
  /// On the meta device: every size, no memory. Throws Error(usage) where it has another number of labels.
  std::shared_ptr<nn::Model> shape() const;
  /// In evaluation mode; an adapter stays a branch. Throws as shape().
  std::shared_ptr<nn::Model> load(models::LoadOptions options) const;

 private:
  models::LoadOptions with_head(models::LoadOptions options) const;

  std::filesystem::path folder_, base_;
  std::vector<std::string> adapters_;
  bool new_head_;
};

/// Throws Error(usage) for anything but a sequence classifier with one label.
void check_scorer(const nn::Model& model, const std::string& where);

}  // namespace llmtk
