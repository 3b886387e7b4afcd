#include "rl/dpo_config.h"

#include "core/error.h"

namespace llmtk::rl {

void DpoConfig::validate(config::Problems& problems) const {
  const DpoConfig defaults;
  const auto idle = [&](const char* key, bool set) {
    if (set) problems.add(key, {.what = "has no effect with loss_type " + loss_type, .hint = "leave it out"});
  };
  idle("label_smoothing", label_smoothing > 0 && loss_type != "sigmoid" && loss_type != "robust");
  idle("desirable_weight", desirable_weight != defaults.desirable_weight && !is_kto());
  idle("undesirable_weight", undesirable_weight != defaults.undesirable_weight && !is_kto());
  idle("precompute_ref_batch_size", precompute_ref_batch_size > 0 && !has_reference());
  if (is_kto() && desirable_weight == 0 && undesirable_weight == 0)
    problems.add("desirable_weight", {.what = "both weights are 0: nothing would be learnt"});
}

}  // namespace llmtk::rl
