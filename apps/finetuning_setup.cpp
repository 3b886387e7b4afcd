#include "finetuning_setup.h"

#include "core/error.h"
#include "core/log.h"
#include "data/noise.h"
#include "models/registry.h"
#include "nn/causal_model.h"
#include "nn/encoder_model.h"
#include "nn/seq2seq_model.h"

namespace llmtk {

namespace fs = std::filesystem;
using data::Objective;

bool is_classification(Objective objective) {
  return objective == Objective::sequence_classification || objective == Objective::token_classification;
}

nn::Head head_of(Objective objective) {
  switch (objective) {
    case Objective::causal_lm:
    case Objective::preference:
    case Objective::unpaired_preference:
      return nn::Head::causal_lm;
    case Objective::seq2seq:
      return nn::Head::seq2seq_lm;
    case Objective::masked_lm:
      return nn::Head::masked_lm;
    case Objective::sequence_classification:
      return nn::Head::sequence_classification;
    case Objective::token_classification:
      return nn::Head::token_classification;
  }
  LLMTK_CHECK(false, "unknown objective");
}

namespace {

/// What `auto` means.
Objective objective_of(const nn::Model& shape, const std::string& where) {
  for (const Objective objective : {Objective::causal_lm, Objective::seq2seq, Objective::masked_lm,
                                    Objective::sequence_classification, Objective::token_classification})
    if (shape.head() == head_of(objective)) return objective;
  throw Error(Exit::usage, {.what = "which objective? The model has no head that would say",
                            .where = where,
                            .hint = "set objective to sequence_classification, token_classification or masked_lm"});
}

/// The kind of model that learns this; null: any classifies texts.
const char* kind_for(Objective objective) {
  switch (objective) {
    case Objective::causal_lm:
      return nn::CausalModel::kKind;
    case Objective::seq2seq:
      return nn::Seq2SeqModel::kKind;
    case Objective::sequence_classification:
      return nullptr;
    default:
      return nn::EncoderModel::kKind;
  }
}

/// What the config's `objective` means for a model.
Objective objective_for(const std::string& wanted, const nn::Model& shape, const std::string& where) {
  const Objective objective = wanted == "auto" ? objective_of(shape, where) : data::parse_objective(wanted);
  const char* kind = kind_for(objective);
  if (kind && std::string_view(shape.kind()) != kind)
    throw Error(Exit::usage, {.what = "objective " + data::to_string(objective) + " needs another kind of model",
                              .where = where,
                              .got = shape.config().value("model_type", "") + ", " + shape.kind(),
                              .expected = kind});
  return objective;
}

}  // namespace

void Method::load(const fs::path& folder) { LLMTK_CHECK(false, "checkpoints hold what is trained: ", folder.string()); }

void FinetuningSetup::open_model() {
  resolve_model();
  choose_objective();
  open_tokenizer();
  make_shape();  // virtual tokens leave less room for a text
}

void FinetuningSetup::open_data(const dist::Parallel& parallel) {
  rows = data::open_finetuning_data(config_.data, context(parallel));
  if (!is_classification(objective)) return;
  name_classes();
  make_shape();
}

ModelOrigin FinetuningSetup::origin() const {
  return {model.weights.value_or(fs::path()), config_.model.name_or_path, tokenizer.get()};
}

std::shared_ptr<nn::Model> FinetuningSetup::make(c10::ScalarType dtype, c10::Device device) const {
  return models::make_model(model.config, model.where, {dtype, device, &model.typed_keys});
}

void FinetuningSetup::make_shape() {
  shape = make(at::kFloat, c10::kMeta);
  method_.apply(*shape, origin(), static_cast<uint64_t>(config_.trainer.seed));
}

void FinetuningSetup::resolve_model() {
  model = models::resolve_model(config_.model, places_);
  std::error_code none;
  if (model.weights && fs::equivalent(*model.weights, config_.trainer.output_dir, none))
    throw Error(Exit::usage, {.what = "trainer.output_dir is the folder of the model that is fine-tuned",
                              .where = config_.trainer.output_dir,
                              .hint = "give the run another folder"});
  if (!model.weights && !method_.is_full())
    throw Error(Exit::usage, {.what = "an adapter needs a base with weights",
                              .where = places_.of("model"),
                              .hint = "name one in model.name_or_path"});
}

void FinetuningSetup::choose_objective() {
  io::Json config = model.config;
  if (!config.contains("vocab_size")) config["vocab_size"] = 1;  // the tokenizer will say
  shape = models::make_model(config, model.where, {at::kFloat, c10::kMeta, &model.typed_keys});
  if (teaching_) return choose_teaching();
  objective = objective_for(config_.objective, *shape, model.where);
  head = head_of(objective);
  if (is_classification(objective) || objective == Objective::masked_lm)
    another_head = models::choose_head(model.config, head_of(objective), model.where);
}

void FinetuningSetup::choose_teaching() {
  objective = teaching_->objective();
  head = teaching_->head();
  if (head == nn::Head::causal_lm) {
    if (shape->head() == head) return;
    throw Error(Exit::usage, {.what = "objective " + data::to_string(objective) + " needs another kind of model",
                              .where = model.where,
                              .got = shape->config().value("model_type", "") + ", " + shape->kind(),
                              .expected = nn::CausalModel::kKind});
  }
  another_head = models::choose_head(model.config, head, model.where);
  if (another_head) {
    model.config.erase("num_labels");
    model.config["id2label"] = {{"0", "LABEL_0"}};
    model.config["label2id"] = {{"LABEL_0", 0}};
  } else if (shape->num_labels() != 1) {
    throw Error(Exit::usage, {.what = "the model has a classifier of several labels, a reward is one number",
                              .where = model.where,
                              .got = std::to_string(shape->num_labels()) + " labels",
                              .expected = "1, or a model without a classifier"});
  }
}

void FinetuningSetup::open_tokenizer() {
  tokenizer = llmtk::open_tokenizer(config_.tokenizer, config_.data, objective);
  if (!tokenizer) return;
  const auto special = tokenizer->special_tokens();
  const auto size = static_cast<int64_t>(tokenizer->vocab_size());
  models::adopt_vocabulary(model, size, special.bos, special.eos, special.pad);
  if (const int64_t vocab_size = model.config.value("vocab_size", int64_t{0}); size > vocab_size)
    throw Error(Exit::usage, {.what = "the tokenizer has more tokens than the model's vocab_size",
                              .where = places_.of("model"),
                              .got = std::to_string(size),
                              .expected = "at most " + std::to_string(vocab_size)});
  if (head == nn::Head::sequence_classification && another_head) choose_padding(special.pad);
}

/// A decoder's head looks at the last token that is not pad_token_id: a new one says which that is.
void FinetuningSetup::choose_padding(int64_t pad) {
  const bool decoder = std::string_view(shape->kind()) == nn::CausalModel::kKind;
  if (!decoder || !model.config.value("pad_token_id", io::Json()).is_null()) return;
  if (pad >= 0)
    model.config["pad_token_id"] = pad;
  else
    log::warn(model.where +
              ": neither model nor tokenizer has a token for padding; transformers takes no two texts at "
              "once of such a model (set model.config.pad_token_id)");
}

data::FinetuneContext FinetuningSetup::context(const dist::Parallel& parallel) const {
  data::FinetuneContext context{
      .objective = objective, .tokenizer = tokenizer.get(), .tokenizer_path = config_.tokenizer.name_or_path};
  context.loader = {.batch_size = config_.trainer.per_device_train_batch_size,
                    .eval_batch_size = config_.trainer.per_device_eval_batch_size,
                    .epochs = config_.trainer.max_steps > 0 ? 0 : config_.trainer.num_train_epochs,
                    .seed = static_cast<uint64_t>(config_.trainer.seed),
                    .rank = parallel.rank(),
                    .world_size = parallel.world_size(),
                    .vocab_size = shape->vocab_size()};
  context.max_positions = shape->max_positions();
  context.token_types = model.config.value("type_vocab_size", int64_t{1}) > 1;
  // A model that classifies already says what its classes are.
  if (is_classification(objective) && model.weights && !another_head && model.config.contains("id2label"))
    context.label_names = shape->label_names();
  const io::Json problem = model.config.value("problem_type", io::Json());
  if (objective == Objective::sequence_classification && problem.is_string())
    context.problem_type = problem.get<std::string>();
  if (objective == Objective::masked_lm && tokenizer)
    context.transform = data::TokenMasker(config_.data.masked_lm.value_or(data::MaskedLmConfig()), *tokenizer,
                                          config_.tokenizer.name_or_path);
  else if (config_.data.masked_lm)
    throw Error(Exit::usage, {.what = "data.masked_lm has no effect with objective " + data::to_string(objective),
                              .where = places_.of("data.masked_lm"),
                              .hint = "leave it out"});
  if (teaching_) teaching_->ask_for(context);
  return context;
}

/// What the classes are called goes into config.json.
void FinetuningSetup::name_classes() {
  io::Json &config = model.config, names = io::Json::object(), ids = io::Json::object();
  for (size_t i = 0; i < rows.label_names.size(); ++i) {
    names[std::to_string(i)] = rows.label_names[i];
    ids[rows.label_names[i]] = i;
  }
  config.erase("num_labels");
  config["id2label"] = names;
  config["label2id"] = ids;
  if (objective == Objective::sequence_classification) config["problem_type"] = rows.problem_type;
}

}  // namespace llmtk
