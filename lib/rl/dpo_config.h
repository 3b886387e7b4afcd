#pragma once
// The `dpo` section of a config, in the words of TRL's DPOConfig, KTOConfig and ORPOConfig.

#include <cstdint>
#include <string>

#include "config/config.h"
#include "data/finetuning.h"

namespace llmtk::rl {

struct DpoConfig {
  std::string loss_type = "sigmoid";
  double beta = 0.1;
  double label_smoothing = 0;
  double desirable_weight = 1, undesirable_weight = 1;
  bool disable_dropout = true;
  int64_t precompute_ref_batch_size = 0;

  template <class V>
  void fields(V& v) {
    v("loss_type", loss_type,
      "sigmoid: DPO; hinge, ipo, robust: its kin; orpo: without a reference; kto: of answers that are rated one by one",
      config::one_of({"sigmoid", "hinge", "ipo", "robust", "orpo", "kto"}));
    v("beta", beta, "How much leaving the reference costs; of ipo the paper's tau, of orpo the weight of the odds",
      config::above(0));
    v("label_smoothing", label_smoothing, "sigmoid, robust: share of pairs taken to be the wrong way round",
      config::at_least(0), config::below(0.5));
    v("desirable_weight", desirable_weight, "kto: of wanted answers", config::at_least(0));
    v("undesirable_weight", undesirable_weight, "kto: of answers that are not wanted", config::at_least(0));
    v("disable_dropout", disable_dropout,
      "Train without dropout, so that policy and reference differ by training alone");
    v("precompute_ref_batch_size", precompute_ref_batch_size,
      "Rows at a time when the reference reads the data, once before training; 0: as many as an evaluation takes",
      config::at_least(0));
  }
  void validate(config::Problems& problems) const;

  bool is_kto() const { return loss_type == "kto"; }
  data::Objective objective() const {
    return is_kto() ? data::Objective::unpaired_preference : data::Objective::preference;
  }
  bool has_reference() const { return loss_type != "orpo"; }
};

}  // namespace llmtk::rl
