#include "train/state.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <nlohmann/json.hpp>

#include "core/error.h"
#include "test.h"
#include "train/signals.h"

using namespace llmtk;
using namespace llmtk::train;
using Json = nlohmann::ordered_json;

TEST_CASE("the loop's state comes back to the last bit") {
  LoopState state;
  state.step = 123;
  state.window_loss = 0.1 + 0.2;
  state.best_eval_loss = 1.0 / 3.0;
  const LoopState back = LoopState::from_json(Json::parse(state.to_json().dump()), "x");
  CHECK(back.step == 123);
  CHECK(back.window_loss == state.window_loss);
  CHECK(back.best_eval_loss == state.best_eval_loss);
  state.best_eval_loss.reset();
  CHECK(!LoopState::from_json(Json::parse(state.to_json().dump()), "x").best_eval_loss);
}

TEST_CASE("where no metric was named, the best was that of the loss") {
  LoopState state;
  state.best_eval_loss = 0.25;
  Json json = state.to_json();
  json.erase("best_metric");
  CHECK(LoopState::from_json(json, "x").best_metric == 0.25);
}

TEST_CASE("a state that lacks a key names it") {
  Json json = LoopState().to_json();
  json.erase("tokens");
  CHECK_THROWS_WITH(LoopState::from_json(json, "trainer_state.json"),
                    Catch::Contains("trainer_state.json") && Catch::Contains("'tokens'"));
}

TEST_CASE("a changed config is told by key") {
  const Json before = {{"model", {{"hidden_size", 64}}},
                       {"optimizer", {{"learning_rate", 0.1}}},
                       {"data", {{"train", Json::array({{{"path", "a.txt"}, {"weight", 1}}})}}},
                       {"trainer", {{"output_dir", "a"}, {"logging_steps", 1}, {"eval_steps", 5}, {"seed", 1}}}};
  Json after = before;
  after["trainer"]["output_dir"] = "b";
  after["trainer"]["logging_steps"] = 10;
  after["data"]["train"][0]["path"] = "moved/a.txt";
  after["data"]["limit"] = nullptr;  // as if it were not there
  CHECK(compare_configs(before, after).empty());
  after["data"]["train"][0]["weight"] = 2;
  after["model"]["hidden_size"] = 65;
  after["optimizer"]["learning_rate"] = 0.2;
  after["optimizer"]["momentum"] = 0.9;
  after["trainer"]["seed"] = 2;
  const auto changes = compare_configs(before, after);
  REQUIRE(changes.size() == 5);
  CHECK(changes[0].key == "data.train.0.weight");
  CHECK(changes[0].kind == ConfigChange::Kind::refused);
  CHECK(changes[1].key == "model.hidden_size");
  CHECK(changes[1].kind == ConfigChange::Kind::refused);
  CHECK(changes[2].key == "optimizer.learning_rate");
  CHECK(changes[2].before == "0.1");
  CHECK(changes[2].after == "0.2");
  CHECK(changes[2].kind == ConfigChange::Kind::warned);
  CHECK(changes[3].key == "optimizer.momentum");
  CHECK(changes[4].key == "trainer.seed");
  CHECK(changes[4].kind == ConfigChange::Kind::refused);
}

TEST_CASE("the first signal is noted") {
  StopSignals signals;
  CHECK(signals.received() == 0);
  ::raise(SIGTERM);
  CHECK(signals.received() == SIGTERM);
}

TEST_CASE("the second signal ends the process with its number") {
  for (const int signal : {SIGTERM, SIGINT}) {
    const pid_t child = ::fork();
    if (child == 0) {
      const StopSignals signals;
      ::raise(SIGTERM);
      ::raise(signal);
      ::_exit(0);
    }
    int status = 0;
    REQUIRE(::waitpid(child, &status, 0) == child);
    CHECK(WIFEXITED(status));
    CHECK(WEXITSTATUS(status) == 128 + signal);
  }
}
