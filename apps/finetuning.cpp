#include "finetuning.h"

#include <algorithm>

#include "core/device.h"
#include "core/error.h"
#include "core/log.h"
#include "core/progress.h"
#include "data/noise.h"
#include "evaluators.h"
#include "finetune_context.h"
#include "generate/generate.h"
#include "io/model_folder.h"
#include "io/tensors.h"
#include "models/registry.h"
#include "quant/quantize_linears.h"
#include "text/tokenizer.h"
#include "train/losses.h"
#include "train/parameters.h"

namespace llmtk {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;
using data::Batch;
using data::Objective;

train::ProblemType problem_of(const std::string& name) {
  switch (data::parse_problem_type(name)) {
    case data::ClassificationTask::regression:
      return train::ProblemType::regression;
    case data::ClassificationTask::multi_label:
      return train::ProblemType::multi_label_classification;
    default:
      return train::ProblemType::single_label_classification;
  }
}

class Finetuning final : public TrainingCommand {
 public:
  Finetuning(FinetuneSections config, FinetuneConfigAsText text, config::Places places, std::unique_ptr<Method> method)
      : config_(std::move(config)), text_(std::move(text)), places_(std::move(places)), method_(std::move(method)) {}

  void prepare() override;
  Json plan() override;
  Json run() override;

 private:
  void resolve_model();
  void choose_objective();
  void open_tokenizer();
  void choose_padding(int64_t pad);
  void open_data();
  void name_classes();
  void make_shape();
  void check_samples();
  std::shared_ptr<nn::Model> make(c10::ScalarType dtype, c10::Device device) const;
  int quantized_bits() const;
  RunShape shape() const;
  Json resolved() const;
  void make_model();
  void check_pooler() const;
  train::LossFunction loss() const;
  std::unique_ptr<train::Evaluator> evaluator(const std::shared_ptr<nn::Model>& model,
                                              const train::LossFunction& loss) const;
  void save(const fs::path& folder) const;
  ModelOrigin origin() const {
    return {model_config_.weights.value_or(fs::path()), config_.model.name_or_path, tokenizer_.get()};
  }

  FinetuneSections config_;
  FinetuneConfigAsText text_;
  config::Places places_;
  std::unique_ptr<Method> method_;
  c10::Device device_ = c10::kCPU;
  train::Start start_;
  std::unique_ptr<text::Tokenizer> tokenizer_;
  models::ResolvedModel model_config_;
  Objective objective_ = Objective::causal_lm;
  bool another_head_ = false;         // than the weights are of
  std::shared_ptr<nn::Model> shape_;  // on the meta device: every size, no memory
  data::FinetuningData data_;
  generate::GenerationConfig samples_, answers_;
  std::shared_ptr<nn::Model> model_;
  std::unique_ptr<dist::Parallel> parallel_ = dist::single_process();
};

void Finetuning::prepare() {
  device_ = resolve_device(config_.trainer.device);
  start_ = train::find_start(config_.trainer);
  resolve_model();
  choose_objective();
  open_tokenizer();
  make_shape();  // virtual tokens leave less room for a text
  check_samples();
  open_data();
  if (is_classification(objective_)) {
    name_classes();
    make_shape();
  }
  train::best_metric(config_.trainer, evaluator(shape_, {}).get());
}

void Finetuning::make_shape() {
  shape_ = make(at::kFloat, c10::kMeta);
  method_->apply(*shape_, origin(), static_cast<uint64_t>(config_.trainer.seed));
}

std::shared_ptr<nn::Model> Finetuning::make(c10::ScalarType dtype, c10::Device device) const {
  return models::make_model(model_config_.config, model_config_.where, {dtype, device, &model_config_.typed_keys});
}

void Finetuning::resolve_model() {
  model_config_ = models::resolve_model(config_.model, places_);
  std::error_code none;
  if (model_config_.weights && fs::equivalent(*model_config_.weights, config_.trainer.output_dir, none))
    throw Error(Exit::usage, {.what = "trainer.output_dir is the folder of the model that is fine-tuned",
                              .where = config_.trainer.output_dir,
                              .hint = "give the run another folder"});
  if (!model_config_.weights && !method_->is_full())
    throw Error(Exit::usage, {.what = "an adapter needs a base with weights",
                              .where = places_.of("model"),
                              .hint = "name one in model.name_or_path"});
}

void Finetuning::choose_objective() {
  io::Json config = model_config_.config;
  if (!config.contains("vocab_size")) config["vocab_size"] = 1;  // the tokenizer will say
  shape_ = models::make_model(config, model_config_.where, {at::kFloat, c10::kMeta, &model_config_.typed_keys});
  objective_ = llmtk::choose_objective(config_.objective, *shape_, model_config_.where);
  if (is_classification(objective_) || objective_ == Objective::masked_lm)
    another_head_ = models::choose_head(model_config_.config, head_of(objective_), model_config_.where);
}

void Finetuning::open_tokenizer() {
  if (config_.tokenizer.name_or_path.empty()) return;
  tokenizer_ = text::load_tokenizer(config_.tokenizer.name_or_path);
  const auto special = tokenizer_->special_tokens();
  const auto size = static_cast<int64_t>(tokenizer_->vocab_size());
  models::adopt_vocabulary(model_config_, size, special.bos, special.eos, special.pad);
  if (const int64_t vocab_size = model_config_.config.value("vocab_size", int64_t{0}); size > vocab_size)
    throw Error(Exit::usage, {.what = "the tokenizer has more tokens than the model's vocab_size",
                              .where = places_.of("model"),
                              .got = std::to_string(size),
                              .expected = "at most " + std::to_string(vocab_size)});
  if (objective_ == Objective::sequence_classification && another_head_) choose_padding(special.pad);
}

/// A decoder's head looks at the last token that is not pad_token_id: a new one says which that is.
void Finetuning::choose_padding(int64_t pad) {
  io::Json& config = model_config_.config;
  if (shape_->kind() != std::string_view(nn::CausalModel::kKind) || !config.value("pad_token_id", io::Json()).is_null())
    return;
  if (pad >= 0)
    config["pad_token_id"] = pad;
  else
    log::warn(model_config_.where + ": neither model nor tokenizer has a token for padding; transformers takes no two texts "
              "at once of such a model (set model.config.pad_token_id)");
}

void Finetuning::check_samples() {
  generate::GenerationConfig special;
  if (tokenizer_ && (objective_ == Objective::causal_lm || objective_ == Objective::seq2seq)) {
    std::vector<std::string> of_other_tasks;
    special = generate::config_from_hf(model_config_.config, model_config_.where, of_other_tasks);
    generate::adopt_special_tokens(special, *tokenizer_);
  }
  answers_.bos_token_id = special.bos_token_id;
  answers_.eos_token_ids = special.eos_token_ids;
  answers_.max_new_tokens = config_.evaluation.generation_max_length;
  answers_.num_beams = config_.evaluation.generation_num_beams;
  answers_.do_sample = false;
  if (config_.evaluation.predict_with_generate && (is_classification(objective_) || objective_ == Objective::masked_lm))
    throw Error(Exit::usage, {.what = "with this objective a model writes no answers",
                              .where = places_.of("evaluation.predict_with_generate"),
                              .hint = "leave it out"});
  if (config_.evaluation.predict_with_generate && !tokenizer_)
    throw Error(Exit::usage, {.what = "answers are written with a tokenizer, and the model's folder has none",
                              .where = places_.of("evaluation.predict_with_generate"),
                              .hint = "set tokenizer.name_or_path"});
  if (config_.samples.prompts.empty()) return;
  if (is_classification(objective_) || objective_ == Objective::masked_lm)
    throw Error(Exit::usage, {.what = "with this objective a model goes on with no text",
                              .where = places_.of("samples.prompts"),
                              .hint = "leave it out"});
  samples_ = generation_config(config_.samples, static_cast<uint64_t>(config_.trainer.seed));
  samples_.bos_token_id = special.bos_token_id;
  samples_.eos_token_ids = special.eos_token_ids;
  generate::check_prompts(*shape_, *tokenizer_, config_.samples.prompts, samples_);
}

void Finetuning::open_data() {
  // A model that classifies already says what its classes are.
  const bool classifies = model_config_.weights && !another_head_ && model_config_.config.contains("id2label");
  data::FinetuneContext context = finetune_context(objective_, *shape_, model_config_.config, classifies,
                                                   tokenizer_.get(), config_.tokenizer.name_or_path);
  context.loader.batch_size = config_.trainer.per_device_train_batch_size;
  context.loader.eval_batch_size = config_.trainer.per_device_eval_batch_size;
  context.loader.epochs = config_.trainer.max_steps > 0 ? 0 : config_.trainer.num_train_epochs;
  context.loader.seed = static_cast<uint64_t>(config_.trainer.seed);
  context.loader.rank = parallel_->rank();
  context.loader.world_size = parallel_->world_size();
  if (objective_ == Objective::masked_lm && tokenizer_)
    context.transform = data::TokenMasker(config_.data.masked_lm.value_or(data::MaskedLmConfig()), *tokenizer_,
                                          config_.tokenizer.name_or_path);
  else if (config_.data.masked_lm)
    throw Error(Exit::usage, {.what = "data.masked_lm has no effect with objective " + data::to_string(objective_),
                              .where = places_.of("data.masked_lm"),
                              .hint = "leave it out"});
  data_ = data::open_finetuning_data(config_.data, context);
}

/// What the classes are called goes into config.json.
void Finetuning::name_classes() {
  io::Json &config = model_config_.config, names = io::Json::object(), ids = io::Json::object();
  for (size_t i = 0; i < data_.label_names.size(); ++i) {
    names[std::to_string(i)] = data_.label_names[i];
    ids[data_.label_names[i]] = i;
  }
  config.erase("num_labels");
  config["id2label"] = names;
  config["label2id"] = ids;
  if (objective_ == Objective::sequence_classification) config["problem_type"] = data_.problem_type;
}

Json Finetuning::resolved() const {
  Json json = text_.json;
  json["model"] = {{"config", model_config_.config}};
  json["data"]["opened"] = data_.description;
  return json;
}

int Finetuning::quantized_bits() const {
  const auto* quantization = method_->quantization();
  return !quantization ? 0 : quantization->load_in_4bit ? 4 : 8;
}

RunShape Finetuning::shape() const {
  return {.trainer = config_.trainer,
          .optimizer = config_.optimizer,
          .scheduler = config_.scheduler,
          .device = device_,
          .model = *shape_,
          .train = *data_.train,
          .max_length = data_.max_length,
          .saves_all = method_->is_full(),
          .matrix_bits = quantized_bits()};
}

Json Finetuning::plan() {
  if (start_.checkpoint) train::read_trainer_state(*start_.checkpoint, resolved(), text_.add_defaults);
  const Needs needs = needs_of(shape());
  train::warn_of_length(config_.trainer, config_.scheduler, needs.steps);
  check_needs(shape(), needs);
  Json plan = describe(shape(), needs);
  plan["objective"] = data::to_string(objective_);
  if (!data_.problem_type.empty()) plan["problem_type"] = data_.problem_type;
  if (!data_.label_names.empty()) plan["labels"] = data_.label_names;
  plan["train"] = data_.train_statistics.json();
  plan["validation"] = data_.validation ? data_.validation_statistics.json() : Json();
  if (start_.checkpoint) plan["resume_from"] = start_.checkpoint->path.string();
  return plan;
}

void Finetuning::make_model() {
  const auto seed = static_cast<uint64_t>(config_.trainer.seed);
  const auto dtype = parse_dtype(config_.trainer.dtype);
  if (const auto* quantization = method_->quantization()) {
    // Mapped, and packed matrix by matrix: the model never stands in memory whole.
    models::LoadOptions options{.map = true, .seed = seed, .overrides = model_config_.config};
    if (another_head_) options.head = head_of(objective_);
    model_ = models::load_model(model_config_.weights->string(), options);
    log::info(quant::quantize_linears(*model_, *quantization, device_).text());
    quant::own_parameters(*model_, dtype, device_);
  } else {
    model_ = make(method_->is_full() ? at::kFloat : dtype, device_);
    if (model_config_.weights)
      models::load_weights(*model_, io::WeightFiles(*model_config_.weights), model_config_.weights->string(),
                           /*map=*/false, another_head_ ? std::optional(seed) : std::nullopt);
    else
      model_->initialize(seed);
  }
  method_->apply(*model_, origin(), seed);
  check_pooler();
  model_->set_gradient_checkpointing(config_.trainer.gradient_checkpointing);
  parallel_->broadcast_parameters(model_->parameters());
}

/// An adapter holds the classifier, not the pooler before it: one that the base lacks would be lost with its random
/// start.
void Finetuning::check_pooler() const {
  if (method_->is_full() || !model_config_.weights) return;
  const auto is_pooler = [](const std::string& name) { return name.ends_with("pooler.dense.weight"); };
  for (const auto& parameter : model_->named_parameters()) {
    if (!is_pooler(parameter.key()) || parameter.value().requires_grad()) continue;
    const io::WeightFiles files(*model_config_.weights);
    if (std::ranges::any_of(files.tensors(), [&](const auto& entry) { return is_pooler(entry.first); })) return;
    throw Error(Exit::usage, {.what = "the base has no pooler, and an adapter would not keep the random one",
                              .where = model_config_.weights->string(),
                              .hint = "train it too (lora.modules_to_save: [pooler]), fine-tune the whole model, or take "
                                      "a base with a pooler"});
  }
}

train::LossFunction Finetuning::loss() const {
  if (objective_ == Objective::causal_lm)
    return [model = models::as<nn::CausalModel>(model_, "model")](const Batch& batch, double scale) {
      return train::causal_lm_loss(*model, batch, scale);
    };
  if (objective_ == Objective::seq2seq)
    return [model = models::as<nn::Seq2SeqModel>(model_, "model")](const Batch& batch, double scale) {
      return train::seq2seq_loss(*model, batch, scale);
    };
  if (objective_ == Objective::sequence_classification)
    return [model = model_, problem = problem_of(data_.problem_type)](const Batch& batch, double scale) {
      return train::sequence_classification_loss(train::class_logits(*model, batch), batch, scale, problem);
    };
  const auto encoder = models::as<nn::EncoderModel>(model_, "model");
  return [encoder](const Batch& batch, double scale) { return train::masked_lm_loss(*encoder, batch, scale); };
}

std::unique_ptr<train::Evaluator> Finetuning::evaluator(const std::shared_ptr<nn::Model>& model,
                                                        const train::LossFunction& loss) const {
  if (objective_ == Objective::sequence_classification)
    return make_text_class_evaluator(model, problem_of(data_.problem_type), data_.label_names);
  if (objective_ == Objective::token_classification)
    return make_token_class_evaluator(model, data_.label_names);
  if (config_.evaluation.predict_with_generate) return make_writing_evaluator(*model, *tokenizer_, loss, answers_);
  return nullptr;
}

void Finetuning::save(const fs::path& folder) const {
  method_->save(folder, origin());
  if (tokenizer_ && method_->is_full()) tokenizer_->save(folder);
  // Names of classes, for whoever opens an adapter with its head.
  if (!method_->is_full() && is_classification(objective_)) io::write_json(folder / "config.json", model_config_.config);
}

Json Finetuning::run() {
  check_needs(shape(), needs_of(shape()));
  make_model();
  const auto trained = static_cast<double>(train::count_parameters(*model_, true));
  log::info(format_count(trained) + " of " + format_count(static_cast<double>(model_->num_parameters())) +
            " parameters are trained, on " + std::to_string(data_.train_statistics.rows) + " rows of " +
            format_count(static_cast<double>(data_.train_statistics.tokens)) + " tokens, on " + device_.str() + " in " +
            config_.trainer.dtype);
  const train::LossFunction loss = this->loss();
  const auto evaluator = this->evaluator(model_, loss);
  RunParts parts{.trainer = config_.trainer,
                 .optimizer = config_.optimizer,
                 .scheduler = config_.scheduler,
                 .task = {.module = model_,
                          .loss = loss,
                          .evaluator = evaluator.get(),
                          .train = data_.train.get(),
                          .eval = data_.validation.get(),
                          .parallel = parallel_.get(),
                          .save_model = [this](const fs::path& folder) { save(folder); },
                          .load_weights =
                              method_->is_full() ? [this](const fs::path& folder) { method_->load(folder); }
                                                 : std::function<void(const fs::path&)>(),
                          .saves_all = method_->is_full(),
                          .converts = method_->is_full(),
                          .learning_rates = method_->learning_rates(config_.optimizer.learning_rate),
                          .run_config = resolved(),
                          .add_defaults = text_.add_defaults},
                 .resolved_yaml = provenance(data_.description, device_) + text_.yaml};
  if (!config_.samples.prompts.empty())
    parts.sample = [this](int64_t step, train::RunLog& log) {
      const auto& prompts = config_.samples.prompts;
      const auto texts = generate::sample_texts(*model_, *tokenizer_, prompts, samples_);
      for (size_t i = 0; i < texts.size(); ++i) log.sampled(step, prompts[i], texts[i]);
    };
  return run_trainer(std::move(parts), start_, exit_code_);
}

}  // namespace

void Method::load(const fs::path& folder) { LLMTK_CHECK(false, "checkpoints hold what is trained: ", folder.string()); }

std::unique_ptr<TrainingCommand> make_finetuning(FinetuneSections sections, FinetuneConfigAsText text,
                                                 config::Places places, std::unique_ptr<Method> method) {
  return std::make_unique<Finetuning>(std::move(sections), std::move(text), std::move(places), std::move(method));
}

}  // namespace llmtk
