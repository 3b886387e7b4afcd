#include "finetuning.h"

#include <algorithm>

#include "core/device.h"
#include "core/error.h"
#include "core/log.h"
#include "core/progress.h"
#include "evaluators.h"
#include "finetuning_setup.h"
#include "generate/generate.h"
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
  Finetuning(FinetuneSections config, FinetuneConfigAsText text, config::Places places, std::unique_ptr<Method> method,
             std::unique_ptr<Teaching> teaching)
      : config_(std::move(config)),
        text_(std::move(text)),
        places_(std::move(places)),
        method_(std::move(method)),
        teaching_(std::move(teaching)) {}

  void prepare() override;
  Json plan() override;
  Json run() override;

 private:
  void check_samples();
  int quantized_bits() const;
  RunShape shape() const;
  Json resolved() const;
  void make_model();
  void check_pooler() const;
  train::LossFunction loss() const;
  std::unique_ptr<train::Evaluator> evaluator(const std::shared_ptr<nn::Model>& model,
                                              const train::LossFunction& loss) const;
  void save(const fs::path& folder) const;
  bool writes() const {  // texts, not classes or hidden words
    return setup_.head == nn::Head::causal_lm || setup_.head == nn::Head::seq2seq_lm;
  }

  FinetuneSections config_;
  FinetuneConfigAsText text_;
  config::Places places_;
  std::unique_ptr<Method> method_;
  std::unique_ptr<Teaching> teaching_;  // null: the objective's own
  c10::Device device_ = c10::kCPU;
  train::Start start_;
  FinetuningSetup setup_{config_, places_, *method_, teaching_.get()};
  generate::GenerationConfig samples_, answers_;
  std::shared_ptr<nn::Model> model_;
  std::unique_ptr<dist::Parallel> parallel_ = dist::single_process();
};

void Finetuning::prepare() {
  device_ = resolve_device(config_.trainer.device);
  start_ = train::find_start(config_.trainer);
  setup_.open_model();
  check_samples();
  setup_.open_data(*parallel_);
  train::best_metric(config_.trainer, evaluator(setup_.shape, {}).get());
}

void Finetuning::check_samples() {
  generate::GenerationConfig special;
  if (setup_.tokenizer && writes()) {
    std::vector<std::string> of_other_tasks;
    special = generate::config_from_hf(setup_.model.config, setup_.model.where, of_other_tasks);
    generate::adopt_special_tokens(special, *setup_.tokenizer);
  }
  answers_.bos_token_id = special.bos_token_id;
  answers_.eos_token_ids = special.eos_token_ids;
  answers_.max_new_tokens = config_.evaluation.generation_max_length;
  answers_.num_beams = config_.evaluation.generation_num_beams;
  answers_.do_sample = false;
  if (config_.evaluation.predict_with_generate && !writes())
    throw Error(Exit::usage, {.what = "with this objective a model writes no answers",
                              .where = places_.of("evaluation.predict_with_generate"),
                              .hint = "leave it out"});
  if (config_.evaluation.predict_with_generate && !setup_.tokenizer)
    throw Error(Exit::usage, {.what = "answers are written with a tokenizer, and the model's folder has none",
                              .where = places_.of("evaluation.predict_with_generate"),
                              .hint = "set tokenizer.name_or_path"});
  if (config_.samples.prompts.empty()) return;
  if (!writes())
    throw Error(Exit::usage, {.what = "with this objective a model goes on with no text",
                              .where = places_.of("samples.prompts"),
                              .hint = "leave it out"});
  samples_ = generation_config(config_.samples, static_cast<uint64_t>(config_.trainer.seed));
  samples_.bos_token_id = special.bos_token_id;
  samples_.eos_token_ids = special.eos_token_ids;
  generate::check_prompts(*setup_.shape, *setup_.tokenizer, config_.samples.prompts, samples_);
}

Json Finetuning::resolved() const {
  Json json = text_.json;
  json["model"] = {{"config", setup_.model.config}};
  json["data"]["opened"] = setup_.rows.description;
  return json;
}

int Finetuning::quantized_bits() const {
  const auto* quantization = method_->quantization();
  return !quantization ? 0 : quantization->load_in_4bit ? 4 : 8;
}

RunShape Finetuning::shape() const {
  return {.trainer = config_.trainer,
          .optimizer = config_.optimizer,
          .device = device_,
          .steps = train::total_steps(config_.trainer, config_.scheduler, *setup_.rows.train),
          .model = *setup_.shape,
          .max_length = setup_.rows.max_length,
          .saves_all = method_->is_full(),
          .matrix_bits = quantized_bits()};
}

Json Finetuning::plan() {
  if (start_.checkpoint) train::read_trainer_state(*start_.checkpoint, resolved(), text_.add_defaults);
  const RunShape shape = this->shape();
  const Needs needs = needs_of(shape);
  train::warn_of_length(config_.trainer, config_.scheduler, shape.steps);
  check_needs(shape, needs);
  Json plan = describe(shape, needs);
  plan["objective"] = data::to_string(setup_.objective);
  if (!setup_.rows.problem_type.empty()) plan["problem_type"] = setup_.rows.problem_type;
  if (!setup_.rows.label_names.empty()) plan["labels"] = setup_.rows.label_names;
  plan["train"] = setup_.rows.train_statistics.json();
  plan["validation"] = setup_.rows.validation ? setup_.rows.validation_statistics.json() : Json();
  if (start_.checkpoint) plan["resume_from"] = start_.checkpoint->path.string();
  return plan;
}

void Finetuning::make_model() {
  const auto seed = static_cast<uint64_t>(config_.trainer.seed);
  const auto dtype = parse_dtype(config_.trainer.dtype);
  if (const auto* quantization = method_->quantization()) {
    // Mapped, and packed matrix by matrix: the model never stands in memory whole.
    models::LoadOptions options{.map = true, .seed = seed, .overrides = setup_.model.config};
    if (setup_.another_head) options.head = setup_.head;
    model_ = models::load_model(setup_.model.weights->string(), options);
    log::info(quant::quantize_linears(*model_, *quantization, device_).text());
    quant::own_parameters(*model_, dtype, device_);
  } else {
    model_ = setup_.make(method_->is_full() ? at::kFloat : dtype, device_);
    if (setup_.model.weights)
      models::load_weights(*model_, io::WeightFiles(*setup_.model.weights), setup_.model.weights->string(),
                           /*map=*/false, setup_.another_head ? std::optional(seed) : std::nullopt);
    else
      model_->initialize(seed);
  }
  method_->apply(*model_, setup_.origin(), seed);
  check_pooler();
  model_->set_gradient_checkpointing(config_.trainer.gradient_checkpointing);
  parallel_->broadcast_parameters(model_->parameters());
}

/// An adapter holds the classifier, not the pooler before it: one that the base lacks would be lost with its random
/// start.
void Finetuning::check_pooler() const {
  if (method_->is_full() || !setup_.model.weights) return;
  const auto is_pooler = [](const std::string& name) { return name.ends_with("pooler.dense.weight"); };
  for (const auto& parameter : model_->named_parameters()) {
    if (!is_pooler(parameter.key()) || parameter.value().requires_grad()) continue;
    const io::WeightFiles files(*setup_.model.weights);
    if (std::ranges::any_of(files.tensors(), [&](const auto& entry) { return is_pooler(entry.first); })) return;
    throw Error(Exit::usage, {.what = "the base has no pooler, and an adapter would not keep the random one",
                              .where = setup_.model.weights->string(),
                              .hint = "train it too (lora.modules_to_save: [pooler]), fine-tune the whole model, or take "
                                      "a base with a pooler"});
  }
}

train::LossFunction Finetuning::loss() const {
  if (teaching_) return teaching_->loss();
  if (setup_.objective == Objective::causal_lm)
    return [model = models::as<nn::CausalModel>(model_, "model")](const Batch& batch, double scale) {
      return train::causal_lm_loss(*model, batch, scale);
    };
  if (setup_.objective == Objective::seq2seq)
    return [model = models::as<nn::Seq2SeqModel>(model_, "model")](const Batch& batch, double scale) {
      return train::seq2seq_loss(*model, batch, scale);
    };
  if (setup_.objective == Objective::sequence_classification)
    return [model = model_, problem = problem_of(setup_.rows.problem_type)](const Batch& batch, double scale) {
      return train::sequence_classification_loss(train::class_logits(*model, batch), batch, scale, problem);
    };
  const auto encoder = models::as<nn::EncoderModel>(model_, "model");
  return [encoder](const Batch& batch, double scale) { return train::masked_lm_loss(*encoder, batch, scale); };
}

std::unique_ptr<train::Evaluator> Finetuning::evaluator(const std::shared_ptr<nn::Model>& model,
                                                        const train::LossFunction& loss) const {
  if (teaching_) return teaching_->evaluator();
  if (setup_.objective == Objective::sequence_classification)
    return make_text_class_evaluator(model, problem_of(setup_.rows.problem_type), setup_.rows.label_names);
  if (setup_.objective == Objective::token_classification)
    return make_token_class_evaluator(model, setup_.rows.label_names);
  if (config_.evaluation.predict_with_generate) return make_writing_evaluator(*model, *setup_.tokenizer, loss, answers_);
  return nullptr;
}

void Finetuning::save(const fs::path& folder) const {
  method_->save(folder, setup_.origin());
  if (setup_.tokenizer && method_->is_full()) setup_.tokenizer->save(folder);
  if (teaching_) teaching_->save(folder);
  // Names of classes, for whoever opens an adapter with its head.
  const bool classifies = setup_.head == nn::Head::sequence_classification || is_classification(setup_.objective);
  if (!method_->is_full() && classifies) io::write_json(folder / "config.json", setup_.model.config);
}

Json Finetuning::run() {
  const RunShape shape = this->shape();
  check_needs(shape, needs_of(shape));
  make_model();
  const auto trained = static_cast<double>(train::count_parameters(*model_, true));
  const data::FinetuneStatistics& found = setup_.rows.train_statistics;
  log::info(format_count(trained) + " of " + format_count(static_cast<double>(model_->num_parameters())) +
            " parameters are trained, on " + std::to_string(found.rows) + " rows of " +
            format_count(static_cast<double>(found.tokens)) + " tokens, on " + device_.str() + " in " +
            config_.trainer.dtype);
  if (teaching_) {
    std::optional<train::Rounded> as_trained;  // a reference that is read now is the model as the run has it
    if (method_->is_full()) as_trained.emplace(*model_, parse_dtype(config_.trainer.dtype));
    teaching_->begin(model_, setup_.rows, start_.checkpoint ? start_.checkpoint->path : fs::path());
  }
  const train::LossFunction loss = this->loss();
  const auto evaluator = this->evaluator(model_, loss);
  RunParts parts{.trainer = config_.trainer,
                 .optimizer = config_.optimizer,
                 .scheduler = config_.scheduler,
                 .task = {.module = model_,
                          .loss = loss,
                          .evaluator = evaluator.get(),
                          .train = setup_.rows.train.get(),
                          .eval = setup_.rows.validation.get(),
                          .parallel = parallel_.get(),
                          .save_model = [this](const fs::path& folder) { save(folder); },
                          .load_weights = method_->is_full() ? [this](const fs::path& folder) { method_->load(folder); }
                                                             : std::function<void(const fs::path&)>(),
                          .saves_all = method_->is_full(),
                          .converts = method_->is_full(),
                          .learning_rates = method_->learning_rates(config_.optimizer.learning_rate),
                          .metrics = teaching_ ? teaching_->metrics() : nullptr,
                          .dropout = !teaching_ || teaching_->dropout(),
                          .run_config = resolved(),
                          .add_defaults = text_.add_defaults},
                 .resolved_yaml = provenance(setup_.rows.description, device_) + text_.yaml};
  if (teaching_) {
    parts.task.save_state = [this](const fs::path& folder) { teaching_->save_state(folder); };
    parts.task.load_state = [this](const fs::path& folder) { teaching_->load(folder); };
  }
  if (!config_.samples.prompts.empty())
    parts.sample = [this](int64_t step, train::RunLog& log) {
      const auto& prompts = config_.samples.prompts;
      const auto texts = generate::sample_texts(*model_, *setup_.tokenizer, prompts, samples_);
      for (size_t i = 0; i < texts.size(); ++i) log.sampled(step, prompts[i], texts[i]);
    };
  return run_trainer(std::move(parts), start_, exit_code_);
}

}  // namespace

std::unique_ptr<TrainingCommand> make_finetuning(FinetuneSections sections, FinetuneConfigAsText text,
                                                 config::Places places, std::unique_ptr<Method> method,
                                                 std::unique_ptr<Teaching> teaching) {
  return std::make_unique<Finetuning>(std::move(sections), std::move(text), std::move(places), std::move(method),
                                      std::move(teaching));
}

}  // namespace llmtk
