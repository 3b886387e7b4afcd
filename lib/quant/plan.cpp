#include "quant/plan.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "nn/linear.h"

namespace llmtk::quant {
namespace {

/// Where a model's head stands, by the first name of its path.
constexpr const char* kHeadModules[] = {"lm_head", "embed_out", "score", "classifier", "qa_outputs", "cls"};

std::vector<std::string> default_ignore(const nn::Model& model, const std::vector<SchemeGroup>& groups) {
  std::vector<std::string> patterns;
  for (const char* head : kHeadModules) patterns.push_back("re:" + std::string(head) + "(\\.|$)");
  const bool nf4 = std::ranges::any_of(groups, [](const SchemeGroup& group) { return group.scheme.nf4; });
  if (nf4 && model.config().value("model_type", "") == "t5") patterns.emplace_back("re:.*\\.wo$");
  return patterns;
}

struct Candidate {
  std::string path;
  std::shared_ptr<torch::nn::Module> module;
  bool is_table, is_tied;
};

std::vector<Candidate> candidates_of(const nn::Model& model) {
  std::vector<Candidate> found;
  for (const auto& item : model.named_modules()) {
    const auto layer = std::dynamic_pointer_cast<nn::Linear>(item.value());
    const auto table = std::dynamic_pointer_cast<nn::Embedding>(item.value());
    if (layer || table) found.push_back({item.key(), item.value(), table != nullptr, layer && layer->is_tied()});
  }
  return found;
}

void check_used(const Pattern& pattern, const std::vector<Candidate>& candidates, const char* where) {
  if (pattern.is_class(false) || pattern.is_class(true)) return;
  if (std::ranges::any_of(candidates, [&](const Candidate& c) { return pattern.names(c.path); })) return;
  std::string some;
  for (size_t i = 0; i < std::min<size_t>(candidates.size(), 9); ++i) some += (i ? ", " : "") + candidates[i].path;
  throw Error(Exit::usage, {.what = std::string(where) + " names no linear layer and no table",
                            .got = "'" + pattern.text() + "'",
                            .expected = "a path, or re: and a regular expression for its beginning",
                            .hint = "there are " + some + ", ..."});
}

void check_width(const PlannedMatrix& m) {
  const int64_t group = m.scheme.format.group_size;
  if (group == 0 || m.columns % group == 0) return;
  std::string fit;
  for (const int64_t size : {128, 64, 32})
    if (m.columns % size == 0) fit += (fit.empty() ? "" : ", ") + std::to_string(size);
  throw Error(Exit::usage, {.what = "the width of '" + m.path + "' is no multiple of the group size",
                            .got = std::to_string(m.columns) + " columns in groups of " + std::to_string(group),
                            .expected = fit.empty() ? "" : "a group size of " + fit,
                            .hint = fit.empty() ? "no group size fits it: leave it as it is with --ignore " + m.path
                                                : "--group-size " + fit.substr(0, fit.find(','))});
}

}  // namespace

at::Tensor PlannedMatrix::weight() const {
  if (const auto* table = dynamic_cast<const nn::Embedding*>(module.get())) return table->weight.detach();
  return dynamic_cast<const nn::Linear&>(*module).base_weight().detach();
}

const PlannedMatrix* Plan::find(const std::string& path) const {
  const auto found = std::ranges::find(matrices, path, &PlannedMatrix::path);
  return found == matrices.end() ? nullptr : &*found;
}

Plan make_plan(const nn::Model& model, std::vector<SchemeGroup> groups,
               const std::optional<std::vector<std::string>>& ignore) {
  const std::vector<Candidate> candidates = candidates_of(model);
  std::vector<Pattern> ignored;
  for (const std::string& text : ignore.value_or(default_ignore(model, groups))) ignored.emplace_back(text);
  if (ignore)
    for (const Pattern& pattern : ignored) check_used(pattern, candidates, "a pattern of what stays as it is");
  for (const SchemeGroup& group : groups)
    for (const Pattern& target : group.targets) check_used(target, candidates, "a target");

  Plan plan{.groups = std::move(groups)};
  for (const Candidate& c : candidates) {
    // What is named takes a module out of what stays by default.
    const bool named = std::ranges::any_of(plan.groups, [&](const SchemeGroup& group) {
      return std::ranges::any_of(group.targets, [&](const Pattern& t) { return t.names(c.path); });
    });
    const SchemeGroup* group =
        c.is_tied ? nullptr
                  : group_of(plan.groups, named && !ignore ? std::vector<Pattern>() : ignored, c.path, c.is_table);
    if (!group) {
      if (!c.is_table) plan.ignored.push_back(c.path);
      continue;
    }
    const auto shape = nn::storage_shape(*c.module);
    plan.matrices.push_back({c.path, c.module, group->scheme, shape->first, shape->second, c.is_table});
    const PlannedMatrix& m = plan.matrices.back();
    check_width(m);
    if (m.scheme.nf4 && (m.is_table || plan.groups.size() > 1))
      throw Error(Exit::usage,
                  {.what = "bitsandbytes keeps NF4 of linear layers alone, and nothing beside it",
                   .got = m.path,
                   .hint = "give tables and other layers a scheme of integers, or leave them as they are"});
  }
  // GPT-NeoX's head, which its files call embed_out, is lm_head to transformers 5, which looks for it here.
  if (std::ranges::find(plan.ignored, "embed_out") != plan.ignored.end()) plan.ignored.emplace_back("lm_head");
  if (plan.matrices.empty()) throw Error(Exit::usage, {.what = "nothing is left to quantize", .hint = "see --ignore"});
  return plan;
}

}  // namespace llmtk::quant
