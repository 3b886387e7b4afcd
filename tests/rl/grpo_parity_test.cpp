// Steps of GRPO against what TRL's own trainer computes of the same responses: grpo_reference.py.

#include <ATen/ATen.h>

#include "dist/parallel.h"
#include "models/parity.h"
#include "rl/grpo.h"
#include "rl/trl_run.h"
#include "test.h"
#include "train/gradients.h"
#include "train/update.h"

using namespace llmtk;
using at::Tensor;

namespace {

/// The settings of a case, by the field list of the section `grpo`; those of the trainer apart.
rl::GrpoConfig grpo_config(nlohmann::ordered_json settings) {
  for (const char* key : {"gradient_accumulation_steps", "per_device_train_batch_size"}) settings.erase(key);
  settings["num_generations"] = 4;
  settings["max_completion_length"] = 7;
  return config::parse<rl::GrpoConfig>(settings.dump(), "grpo");
}

}  // namespace

TEST_CASE("steps of GRPO are TRL's, in each way to take the mean") {
  if (trl_folder().empty()) LLMTK_SKIP("no reference: the Python peers are not there");
  TrlRun trl(trl_folder());
  const auto reference_model = trl.model<nn::CausalModel>("reference");
  for (const auto& [name, settings] : trl.figures["settings"].items()) {
    INFO(name);
    const rl::GrpoConfig config = grpo_config(settings);
    const auto B = static_cast<int64_t>(trl.responses.size());
    train::TrainerConfig trainer;
    trainer.per_device_train_batch_size = settings.value("per_device_train_batch_size", B / 2);
    trainer.gradient_accumulation_steps = settings["gradient_accumulation_steps"];
    const int64_t steps_per_pass = config.steps_per_generation / trainer.gradient_accumulation_steps;
    REQUIRE(rl::grpo_batch_size(config, trainer) == B);

    const auto policy = trl.model<nn::CausalModel>("policy");
    const auto reference = [&](const rl::ResponseBatch& batch) {
      const at::NoGradGuard no_gradients;
      return rl::response_log_probs(*reference_model, batch, config.temperature);
    };
    rl::Grpo grpo(config, policy, config.beta > 0 ? rl::ReferenceLogProbs(reference) : rl::ReferenceLogProbs(),
                  steps_per_pass * config.num_iterations > 1);
    Tensor ended = at::empty({B}, at::kBool);
    for (int64_t i = 0; i < B; ++i) ended[i] = trl.responses[i].ended;
    rl::Rollout rollout{.batch = rl::make_batch(trl.responses, at::kCPU), .scores = trl.all["rewards"], .ended = ended};
    grpo.collect(rollout, at::arange(B).split(3));
    const auto& rows_of_log = trl.figures["figures"][name];
    const auto objective = grpo.objective(rollout);
    for (const auto& [key, value] : objective.items()) {
      INFO(key);
      CHECK(value.get<double>() == Approx(rows_of_log[0][key].get<double>()).margin(1e-5));
    }

    train::OptimizerConfig sgd;
    sgd.type = "sgd";
    sgd.learning_rate = 0.05;
    sgd.max_grad_norm = 0;
    const auto optimizer = train::make_optimizer(sgd, *policy, std::nullopt);
    train::Gradients gradients(optimizer->parameters(), false);
    const auto alone = dist::single_process();
    const int64_t per_step = B / steps_per_pass;
    for (int64_t step = 0; step < steps_per_pass * config.num_iterations; ++step) {
      const Tensor rows = at::arange(B).narrow(0, step % steps_per_pass * per_step, per_step);
      const rl::StepSize size = rl::size_of(rollout, rows);
      train::MetricSums sums;  // of micro-batches' means, which is what TRL reports
      double ratio_error = 0;
      Tensor total = at::zeros({});
      for (const Tensor& part : rows.split(trainer.per_device_train_batch_size)) {
        train::MetricSums of_part;
        Tensor loss = grpo.loss(rollout, part, size, of_part, ratio_error);
        loss.backward();
        total += loss.detach();
        const auto means_of_part = of_part.means();
        for (const auto& [key, value] : means_of_part.items()) sums.add(key, value.get<double>(), 1);
      }
      if (step == 0) CHECK(ratio_error < 1e-4);
      INFO("step " << step);
      CHECK(total.item<double>() == Approx(rows_of_log[step]["loss"].get<double>()).epsilon(1e-4).margin(1e-6));
      const auto means = sums.means();
      for (const auto& [key, value] : means.items()) {
        INFO(key);
        CHECK(value.get<double>() == Approx(rows_of_log[step][key].get<double>()).epsilon(1e-4).margin(1e-6));
      }
      CHECK(train::update(*optimizer, gradients, sgd, 1.0, total, *alone).finite);
    }
    size_t compared = 0;
    for (const auto& parameter : policy->named_parameters()) {
      INFO(parameter.key());
      const Tensor& expected = trl.all.at(name + "." + parameter.key());
      CHECK(difference(parameter.value().detach(), expected) < 5e-5);
      ++compared;
    }
    CHECK(compared > 15);
  }
}
