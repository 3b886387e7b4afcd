#pragma once
// A run of the loop with a model and data of its own: a table of embeddings, dropout, a product.

#include <torch/torch.h>

#include <functional>
#include <vector>

#include "core/error.h"
#include "io/tensors.h"
#include "train/trainer.h"

namespace llmtk::train {

using Json = nlohmann::ordered_json;

constexpr int64_t kVocab = 19, kHidden = 8;

struct ToyImpl : torch::nn::Module {
  explicit ToyImpl(double dropout) : dropout(dropout) {
    torch::manual_seed(7);
    wte = register_parameter("wte", torch::randn({kVocab, kHidden}) * 0.5);
    head = register_parameter("head", torch::randn({kVocab, kHidden}) * 0.5);
    bias = register_parameter("bias", torch::zeros({kVocab}));
  }
  at::Tensor forward(const at::Tensor& ids) {
    auto hidden = torch::embedding(wte, ids);
    hidden = torch::dropout(hidden, dropout, is_training());
    return torch::linear(hidden, head, bias);
  }
  double dropout;
  at::Tensor wte, head, bias;
};

inline at::Tensor to_tensor(const std::vector<int32_t>& values) { return torch::tensor(values).to(torch::kLong); }

inline at::Tensor toy_loss(ToyImpl& model, const data::Batch& batch, double scale) {
  const auto logits = model.forward(to_tensor(batch.input_ids)).to(torch::kFloat);
  return at::cross_entropy_loss(logits, to_tensor(batch.labels), {}, at::Reduction::Sum, data::kIgnore) * scale;
}

/// Row n of an endless or finite stream; every second row has half of its labels masked.
class Rows : public data::BatchSource {
 public:
  Rows(int64_t rows_per_batch, int64_t batches, int64_t without = -1)
      : rows_(rows_per_batch), batches_(batches), without_(without) {}
  bool next(data::Batch& batch) override {
    if (next_ == without_) ++next_;
    if (next_ >= batches_) return false;
    batch = {.rows = rows_, .length = 6};
    for (int64_t row = next_ * rows_; row < (next_ + 1) * rows_; ++row) {
      for (int64_t t = 0; t < batch.length; ++t) {
        batch.input_ids.push_back(static_cast<int32_t>((row * 7 + t * 3) % kVocab));
        const bool masked = row % 2 == 1 && t < 4;
        batch.labels.push_back(masked ? data::kIgnore : static_cast<int32_t>((row * 7 + t * 3 + 3) % kVocab));
        batch.targets += masked ? 0 : 1;
      }
    }
    ++next_;
    return true;
  }
  Json state() const override { return {{"next", next_}}; }
  void load_state(const Json& state) override { next_ = state.at("next"); }
  int64_t total_batches() const override { return batches_; }

 private:
  int64_t rows_, batches_, without_, next_ = 0;
};

struct Setup {
  TrainerConfig trainer;
  OptimizerConfig optimizer{.learning_rate = 0.01};
  SchedulerConfig scheduler{.lr_scheduler_type = "cosine", .warmup_steps = 2};
  double dropout = 0.0;
  int64_t rows = 2, batches = 1000, without_batch = -1;
  bool evaluate = false, bad_evaluations = false;
  Evaluator* evaluator = nullptr;
  std::function<void(int64_t call, at::Tensor& loss)> meddle;  // with each micro-batch's loss
};

struct Outcome {
  RunResult result;
  std::vector<at::Tensor> weights;  // as float32
  std::vector<double> losses;
  std::vector<int64_t> evaluated, best;  // steps
};

class Record : public Observer {
 public:
  explicit Record(Outcome& outcome) : outcome_(outcome) {}
  void stepped(const StepReport& report) override { outcome_.losses.push_back(report.loss); }
  void evaluated(const EvalReport& report) override {
    outcome_.evaluated.push_back(report.step);
    if (report.best) outcome_.best.push_back(report.step);
  }

 private:
  Outcome& outcome_;
};

inline Outcome run(const Setup& setup) {
  auto model = std::make_shared<ToyImpl>(setup.dropout);
  Rows train(setup.rows, setup.batches, setup.without_batch), eval(2, 3);
  const auto parallel = dist::single_process();
  Outcome outcome;
  Record record(outcome);
  int64_t calls = 0;
  Task task{.module = model,
            .loss =
                [&](const data::Batch& batch, double scale) {
                  at::Tensor loss = toy_loss(*model, batch, scale);
                  if (setup.meddle && model->is_training()) setup.meddle(++calls, loss);
                  if (setup.bad_evaluations && !model->is_training()) loss = loss * std::nan("");
                  return loss;
                },
            .evaluator = setup.evaluator,
            .train = &train,
            .eval = setup.evaluate ? &eval : nullptr,
            .parallel = parallel.get(),
            .observer = &record,
            .save_model =
                [&](const fs::path& folder) {
                  io::NamedTensors tensors;
                  for (const auto& item : model->named_parameters())
                    tensors.emplace_back(item.key(), item.value().detach());
                  io::save_tensors(folder / "model.safetensors", tensors);
                },
            .load_weights =
                [&](const fs::path& folder) {
                  torch::NoGradGuard no_grad;
                  for (const auto& [name, tensor] : io::load_tensors(folder / "model.safetensors"))
                    model->named_parameters()[name].copy_(tensor);
                },
            .run_config = {{"trainer", {{"seed", 1}}}}};
  const Start start = find_start(setup.trainer);
  Trainer trainer(setup.trainer, setup.optimizer, setup.scheduler, task);
  outcome.result = trainer.run(start);
  for (const auto& parameter : model->parameters())
    outcome.weights.push_back(parameter.detach().to(torch::kFloat).clone());
  return outcome;
}

inline double difference(const Outcome& a, const Outcome& b) {
  double largest = 0;
  for (size_t i = 0; i < a.weights.size(); ++i)
    largest = std::max(largest, (a.weights[i] - b.weights[i]).abs().max().item<double>());
  return largest;
}

}  // namespace llmtk::train
