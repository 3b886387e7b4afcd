// The loop: its steps, their resumption, what is not finite, how long it is.

#include <signal.h>

#include "core/file.h"
#include "test.h"
#include "toy.h"

using namespace llmtk;
using namespace llmtk::train;

TEST_CASE("twenty AdamW steps are torch.optim's, with clipping, decay of matrices only and a cosine") {
  test::TemporaryFolder folder;
  Setup setup;
  setup.trainer.output_dir = folder.path();
  setup.trainer.max_steps = 20;
  setup.optimizer.weight_decay = 0.1;
  setup.optimizer.max_grad_norm = 0.3;
  const Outcome ours = run(setup);

  ToyImpl model(0);
  Rows rows(setup.rows, setup.batches);
  using torch::optim::AdamWOptions;
  std::vector<torch::optim::OptimizerParamGroup> groups;
  groups.emplace_back(std::vector<at::Tensor>{model.wte, model.head},
                      std::make_unique<AdamWOptions>(AdamWOptions().weight_decay(0.1)));
  groups.emplace_back(std::vector<at::Tensor>{model.bias},
                      std::make_unique<AdamWOptions>(AdamWOptions().weight_decay(0)));
  torch::optim::AdamW optimizer(groups, AdamWOptions());
  data::Batch batch;
  const Schedule schedule = setup.scheduler.make(20);
  for (int step = 0; step < 20; ++step) {
    REQUIRE(rows.next(batch));
    optimizer.zero_grad();
    toy_loss(model, batch, 1.0 / static_cast<double>(batch.targets)).backward();
    torch::nn::utils::clip_grad_norm_(model.parameters(), 0.3);
    for (auto& group : optimizer.param_groups()) group.options().set_lr(0.01 * schedule.factor(step));
    optimizer.step();
  }
  Outcome theirs;
  for (const auto& parameter : model.parameters()) theirs.weights.push_back(parameter.detach());
  CHECK(difference(ours, theirs) < 1e-6);
  CHECK(ours.result.end == RunResult::End::finished);
  CHECK(ours.losses.back() < 0.95 * ours.losses.front());
}

TEST_CASE("four micro-batches of one are one of four, with unequal targets") {
  const std::string dtype = GENERATE("float32", "bfloat16");
  test::TemporaryFolder a, b;
  Setup whole, parts;
  whole.trainer.output_dir = a.path();
  whole.trainer.max_steps = parts.trainer.max_steps = 6;
  whole.trainer.dtype = parts.trainer.dtype = dtype;
  whole.rows = 4;
  parts.trainer.output_dir = b.path();
  parts.rows = 1;
  parts.trainer.gradient_accumulation_steps = 4;
  const Outcome one = run(whole), four = run(parts);
  CHECK(one.losses.size() == 6);
  for (size_t i = 0; i < 6; ++i)
    CHECK(one.losses[i] == Approx(four.losses[i]).epsilon(dtype == "float32" ? 1e-5 : 1e-2));
  CHECK(difference(one, four) < (dtype == "float32" ? 1e-5 : 2e-2));
}

TEST_CASE("a resumed run ends with the same bits") {
  const std::string dtype = GENERATE("float32", "bfloat16");
  const std::string type = GENERATE("adamw", "sgd");
  test::TemporaryFolder a, b;
  Setup setup;
  setup.dropout = 0.2;
  setup.evaluate = true;
  setup.optimizer.type = type;
  setup.optimizer.momentum = 0.9;
  setup.trainer.dtype = dtype;
  setup.trainer.max_steps = 9;
  setup.trainer.eval_steps = 2;
  setup.trainer.save_steps = 4;
  setup.trainer.gradient_accumulation_steps = 2;
  setup.trainer.output_dir = a.path();
  const Outcome whole = run(setup);

  setup.trainer.output_dir = b.path();
  setup.trainer.resume_from_checkpoint = "auto";
  setup.meddle = [](int64_t call, at::Tensor&) {
    if (call == 13) ::raise(SIGTERM);  // the first micro-batch of step 7
  };
  const Outcome stopped = run(setup);
  CHECK(stopped.result.end == RunResult::End::interrupted);
  CHECK(stopped.result.step == 6);
  CHECK(stopped.result.signal == SIGTERM);
  setup.meddle = {};
  const Outcome rest = run(setup);
  CHECK(rest.result.step == 9);
  CHECK(difference(whole, rest) == 0);
  CHECK(rest.losses == std::vector<double>(whole.losses.begin() + 6, whole.losses.end()));
  CHECK(rest.result.best_eval_loss == whole.result.best_eval_loss);
  // Every tensor of the last checkpoint, masters and moments among them.
  const auto ours = io::load_tensors(a / "checkpoint-9/optimizer.safetensors");
  const auto theirs = io::load_tensors(b / "checkpoint-9/optimizer.safetensors");
  REQUIRE(ours.size() == theirs.size());
  for (size_t i = 0; i < ours.size(); ++i) {
    INFO(ours[i].first);
    CHECK(torch::equal(ours[i].second, theirs[i].second));
  }
}

TEST_CASE("a step that is not finite is skipped; a row of them ends the run") {
  test::TemporaryFolder folder;
  Setup setup;
  setup.trainer.output_dir = folder.path();
  setup.trainer.max_steps = 8;
  setup.trainer.save_steps = 2;
  SECTION("one") {
    setup.meddle = [](int64_t call, at::Tensor& loss) {
      if (call == 4) loss = loss * std::nan("");
    };
    const Outcome outcome = run(setup);
    CHECK(outcome.result.nonfinite_steps == 1);
    for (const auto& weight : outcome.weights) CHECK(weight.isfinite().all().item<bool>());
  }
  SECTION("it is as if its batch had not been there: weights and moments") {
    setup.scheduler = {.lr_scheduler_type = "constant"};
    setup.meddle = [](int64_t call, at::Tensor& loss) {
      if (call == 4) loss = loss * std::nan("");
    };
    const Outcome skipped = run(setup);
    setup.meddle = nullptr;
    setup.trainer.output_dir = folder.path() / "without";
    setup.trainer.max_steps = 7;
    setup.without_batch = 3;
    CHECK(difference(skipped, run(setup)) == 0);
  }
  SECTION("it changes no weight") {
    setup.trainer.max_steps = 4;
    setup.trainer.save_steps = 1;
    setup.meddle = [](int64_t call, at::Tensor& loss) {
      if (call == 4) loss = loss * std::nan("");
    };
    CHECK(run(setup).result.step == 4);
    CHECK(read_file(folder / "model.safetensors") == read_file(folder / "checkpoint-3" / "model.safetensors"));
    CHECK(read_file(folder / "model.safetensors") != read_file(folder / "checkpoint-2" / "model.safetensors"));
  }
  SECTION("a row") {
    setup.meddle = [](int64_t call, at::Tensor& loss) {
      if (call >= 4) loss = loss * std::nan("");
    };
    try {
      run(setup);
      FAIL("no error");
    } catch (const Error& e) {
      CHECK(e.exit() == Exit::diverged);
      CHECK_THAT(e.what(), Catch::Contains("checkpoint-2") && Catch::Contains("step 6"));
    }
  }
}

TEST_CASE("epochs decide where max_steps does not, and the last step may have fewer micro-batches") {
  test::TemporaryFolder folder;
  Setup setup;
  setup.trainer.output_dir = folder.path();
  setup.trainer.num_train_epochs = 1;
  setup.trainer.gradient_accumulation_steps = 4;
  setup.batches = 10;
  const Outcome outcome = run(setup);
  CHECK(outcome.result.step == 3);
  CHECK(outcome.result.tokens == 10 * 2 * 6);
}

TEST_CASE("data that ends before max_steps is the run's length, for the schedule too") {
  test::TemporaryFolder folder;
  Setup setup;
  setup.trainer.output_dir = folder.path();
  setup.trainer.max_steps = 100;
  setup.batches = 10;
  setup.scheduler.lr_scheduler_type = "linear";
  CHECK(total_steps(setup.trainer, setup.scheduler, Rows(2, 10)) == 10);
  CHECK(run(setup).result.step == 10);
}

TEST_CASE("going back to an older checkpoint moves the later ones aside") {
  test::TemporaryFolder folder;
  Setup setup;
  setup.trainer.output_dir = folder.path();
  setup.trainer.max_steps = 30;
  setup.trainer.save_steps = 10;
  run(setup);
  setup.trainer.resume_from_checkpoint = (folder / "checkpoint-10").string();
  setup.trainer.save_total_limit = 2;
  setup.trainer.save_steps = 5;
  // Stopped at step 18: what it saved at 15 and 18 stays, and is what auto goes on from.
  setup.meddle = [](int64_t call, at::Tensor&) {
    if (call == 8) ::raise(SIGTERM);
  };
  CHECK(run(setup).result.step == 18);
  CHECK(fs::exists(folder / "abandoned-checkpoint-30" / "model.safetensors"));
  fs::create_directories(folder / "abandoned-ideas");
  setup.meddle = nullptr;
  const auto names = [&] {
    std::vector<int64_t> steps;
    for (const auto& checkpoint : list_checkpoints(folder.path())) steps.push_back(checkpoint.step);
    return steps;
  };
  CHECK(names() == std::vector<int64_t>{15, 18});
  setup.trainer.resume_from_checkpoint = "auto";
  CHECK(run(setup).losses.size() == 12);
  CHECK(names() == std::vector<int64_t>{25, 30});
  // The way that was left is gone once the other one has come to its end.
  CHECK_FALSE(fs::exists(folder / "abandoned-checkpoint-30"));
  CHECK(fs::exists(folder / "abandoned-ideas"));
}

TEST_CASE("a checkpoint from before a setting existed counts as made with its default") {
  test::TemporaryFolder folder;
  write_file_atomic(
      folder / "trainer_state.json",
      R"({"format": "llmtk-trainer-state", "version": 1, "loop": {}, "data": {}, "config": {"data": {}}})");
  const CheckpointFolder checkpoint{.step = 1, .path = folder.path()};
  const AddDefaults add_defaults = [](Json& config) { config["data"]["shuffle"] = true; };
  CHECK_NOTHROW(read_trainer_state(checkpoint, {{"data", {{"shuffle", true}}}}, add_defaults));
  CHECK_THROWS_WITH(read_trainer_state(checkpoint, {{"data", {{"shuffle", false}}}}, add_defaults),
                    Catch::Contains("data.shuffle was true, is false"));
}

TEST_CASE("a finished model without checkpoints is not overwritten by resume auto") {
  test::TemporaryFolder folder;
  Setup setup;
  setup.trainer.output_dir = folder.path();
  setup.trainer.max_steps = 2;
  run(setup);
  fs::remove_all(folder / "checkpoint-2");
  setup.trainer.resume_from_checkpoint = "auto";
  CHECK_THROWS_WITH(run(setup), Catch::Contains("a finished model") && Catch::Contains("overwrite_output_dir"));
  CHECK(fs::exists(folder / "model.safetensors"));
}

TEST_CASE("only what a run wrote is deleted when it is overwritten") {
  test::TemporaryFolder folder;
  Setup setup;
  setup.trainer.output_dir = folder.path();
  setup.trainer.max_steps = 2;
  run(setup);
  fs::create_directories(folder / "runs" / "mine");
  write_file_atomic(folder / "samples.jsonl", "mine");
  write_file_atomic(folder / "events.out.tfevents.1.other", "mine");
  setup.trainer.overwrite_output_dir = true;
  setup.meddle = [&](int64_t call, at::Tensor&) {
    if (call == 1) CHECK_FALSE(fs::exists(folder / "model.safetensors"));  // the old run's
  };
  run(setup);
  CHECK(fs::exists(folder / "runs" / "mine"));
  CHECK(fs::exists(folder / "samples.jsonl"));
  CHECK(fs::exists(folder / "events.out.tfevents.1.other"));
}

TEST_CASE("a run is not deleted for one that cannot go on") {
  test::TemporaryFolder folder;
  Setup setup;
  setup.trainer.output_dir = (folder / "old").string();
  setup.trainer.max_steps = 2;
  run(setup);
  fs::create_directories(folder / "elsewhere");
  fs::copy(folder / "old" / "checkpoint-2", folder / "elsewhere" / "checkpoint-2", fs::copy_options::recursive);
  setup.trainer.overwrite_output_dir = true;
  setup.trainer.resume_from_checkpoint = (folder / "elsewhere" / "checkpoint-2").string();
  setup.optimizer.type = "sgd";  // whose state the checkpoint does not hold
  CHECK_THROWS_AS(run(setup), Error);
  CHECK(fs::exists(folder / "old" / "model.safetensors"));
  CHECK(fs::exists(folder / "old" / "checkpoint-2"));
}

TEST_CASE("a folder that holds a run is not overwritten unasked") {
  test::TemporaryFolder folder;
  Setup setup;
  setup.trainer.output_dir = folder.path();
  setup.trainer.max_steps = 2;
  run(setup);
  CHECK_THROWS_WITH(run(setup),
                    Catch::Contains("holds a run already") && Catch::Contains("resume_from_checkpoint=auto"));
  setup.trainer.resume_from_checkpoint = "auto";
  const Outcome again = run(setup);
  CHECK(again.losses.empty());  // finished before
  CHECK(again.result.last_loss.has_value());
  setup.trainer.resume_from_checkpoint = "false";
  setup.trainer.overwrite_output_dir = true;
  CHECK(run(setup).losses.size() == 2);
}
