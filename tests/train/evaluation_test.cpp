// Evaluations in the loop: before the first step, early stopping, the best model.

#include <signal.h>

#include "core/file.h"
#include "test.h"
#include "toy.h"

using namespace llmtk;
using namespace llmtk::train;

namespace {

/// Says what it was told to, evaluation by evaluation.
class Scores : public Evaluator {
 public:
  explicit Scores(std::vector<double> scores) : scores_(std::move(scores)) {}
  void begin() override { batches_ = 0; }
  at::Tensor loss(const data::Batch& batch) override {
    ++batches_;
    return torch::full({}, static_cast<double>(batch.targets));
  }
  Json metrics() override { return {{"score", batches_ > 0 ? scores_.at(next_++) : 0.0}, {"rows", 3}}; }

 private:
  std::vector<double> scores_;
  size_t next_ = 0;
  int64_t batches_ = 0;
};

}  // namespace

TEST_CASE("early stopping where no evaluation is finite") {
  test::TemporaryFolder folder;
  Setup setup;
  setup.evaluate = setup.bad_evaluations = true;
  setup.trainer.output_dir = folder.path();
  setup.trainer.max_steps = 60;
  setup.trainer.eval_steps = 2;
  setup.trainer.early_stopping_patience = 3;
  const Outcome outcome = run(setup);
  CHECK(outcome.result.step == 6);
  CHECK_FALSE(outcome.result.best_eval_loss.has_value());
}

TEST_CASE("the metric that is asked for decides which checkpoint is the best") {
  test::TemporaryFolder folder;
  Scores scores({0.1, 0.5, 0.9, 0.3, 0.9, 0.2});
  Setup setup;
  setup.evaluate = true;
  setup.evaluator = &scores;
  setup.trainer.output_dir = folder.path();
  setup.trainer.max_steps = 12;
  setup.trainer.eval_steps = setup.trainer.save_steps = 2;
  setup.trainer.save_total_limit = 1;
  setup.trainer.load_best_model_at_end = true;
  setup.trainer.metric_for_best_model = "eval_score";
  SECTION("higher is better") {
    const Outcome outcome = run(setup);
    CHECK(outcome.best == std::vector<int64_t>{2, 4, 6});
    CHECK(outcome.result.best_metric == 0.9);
    CHECK(outcome.result.best_step == 6);
    CHECK(read_file(folder / "model.safetensors") == read_file(folder / "checkpoint-6" / "model.safetensors"));
    CHECK(fs::exists(folder / "checkpoint-12"));
    CHECK_FALSE(fs::exists(folder / "checkpoint-10"));
  }
  SECTION("or lower, where that is said") {
    setup.trainer.greater_is_better = false;
    CHECK(run(setup).best == std::vector<int64_t>{2});
  }
  SECTION("early stopping looks at it too") {
    setup.trainer.early_stopping_patience = 2;
    CHECK(run(setup).result.step == 10);
  }
  SECTION("a name that no evaluation gives") {
    setup.trainer.metric_for_best_model = "rows";
    CHECK_THROWS_WITH(run(setup), Catch::Contains("'rows'") && Catch::Contains("loss, perplexity, score"));
  }
}

TEST_CASE("an evaluation before the first step changes nothing and is not repeated") {
  test::TemporaryFolder plain, folder;
  Setup setup;
  setup.evaluate = true;
  setup.dropout = 0.3;
  setup.trainer.max_steps = 4;
  setup.trainer.eval_steps = 2;
  setup.trainer.output_dir = plain.path();
  const Outcome without = run(setup);
  CHECK(without.evaluated == std::vector<int64_t>{2, 4});
  setup.trainer.eval_on_start = true;
  setup.trainer.output_dir = folder.path();
  setup.meddle = [](int64_t call, at::Tensor&) {
    if (call == 3) ::raise(SIGTERM);
  };
  const Outcome begun = run(setup);
  CHECK(begun.evaluated == std::vector<int64_t>{0, 2});
  CHECK(begun.best == std::vector<int64_t>{2});
  setup.meddle = {};
  setup.trainer.resume_from_checkpoint = "auto";
  const Outcome rest = run(setup);
  CHECK(rest.evaluated == std::vector<int64_t>{4});
  CHECK(difference(without, rest) == 0);
}

TEST_CASE("early stopping, and the best model at the end") {
  test::TemporaryFolder folder;
  Setup setup;
  setup.evaluate = true;
  setup.optimizer.learning_rate = 3;  // so large that the loss soon rises
  setup.optimizer.max_grad_norm = 0;
  setup.trainer.output_dir = folder.path();
  setup.trainer.max_steps = 60;
  setup.trainer.eval_steps = setup.trainer.save_steps = 2;
  setup.trainer.save_total_limit = 1;
  setup.trainer.early_stopping_patience = 3;
  setup.trainer.load_best_model_at_end = true;
  const Outcome outcome = run(setup);
  CHECK(outcome.result.end == RunResult::End::stopped_early);
  CHECK(outcome.result.step < 60);
  const auto kept = list_checkpoints(folder.path());
  REQUIRE(kept.size() == 2);
  const auto best = io::load_tensors(kept.front().path / "model.safetensors");
  const auto final = io::load_tensors(folder / "model.safetensors");
  for (size_t i = 0; i < best.size(); ++i) CHECK(torch::equal(best[i].second, final[i].second));
}
