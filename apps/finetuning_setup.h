#pragma once
// What a fine-tuning run knows before there is a model: its config.json, objective, tokenizer, every size, and the rows
// as that model will see them. `finetune` and `lora` go on from here; `data` shows it.

#include <memory>

#include "data/finetuning.h"
#include "dist/parallel.h"
#include "finetuning_config.h"
#include "finetuning_method.h"
#include "models/config.h"
#include "teaching.h"

namespace llmtk {

bool is_classification(data::Objective objective);
/// The head that an objective trains.
nn::Head head_of(data::Objective objective);

class FinetuningSetup {
 public:
  /// All must outlive it. teaching: null where the config's objective says what is learnt.
  FinetuningSetup(const FinetuneSections& config, const config::Places& places, Method& method,
                  const Teaching* teaching = nullptr)
      : config_(config), places_(places), method_(method), teaching_(teaching) {}

  /// Everything but the rows; allocates nothing. Throws Error(usage, file).
  void open_model();
  /// Reads the rows, and names what they are classified as. Throws what data::open_finetuning_data() throws.
  void open_data(const dist::Parallel& parallel);

  /// A model without weights and without the method's change.
  std::shared_ptr<nn::Model> make(c10::ScalarType dtype, c10::Device device) const;
  ModelOrigin origin() const;

  models::ResolvedModel model;  ///< config.json as the run has it
  data::Objective objective = data::Objective::causal_lm;
  nn::Head head = nn::Head::causal_lm;
  bool another_head = false;                   ///< than the weights are of
  std::unique_ptr<text::Tokenizer> tokenizer;  ///< null where none is named
  std::shared_ptr<nn::Model> shape;            ///< on the meta device, as the method changes it
  data::FinetuningData rows;

 private:
  void resolve_model();
  void choose_objective();
  void choose_teaching();
  void open_tokenizer();
  void choose_padding(int64_t pad);
  void make_shape();
  data::FinetuneContext context(const dist::Parallel& parallel) const;
  void name_classes();

  const FinetuneSections& config_;
  const config::Places& places_;
  Method& method_;
  const Teaching* teaching_;
};

}  // namespace llmtk
