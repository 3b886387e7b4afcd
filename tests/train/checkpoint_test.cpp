#include "train/checkpoint.h"

#include <fstream>
#include <random>

#include "core/error.h"
#include "core/file.h"
#include "test.h"

using namespace llmtk;
using namespace llmtk::train;

namespace {

void put(const fs::path& path, const std::string& text) {
  fs::create_directories(path.parent_path());
  std::ofstream(path, std::ios::binary) << text;
}

fs::path make_checkpoint(const fs::path& output, int64_t step, const std::string& weights = std::string(5000, 'w')) {
  CheckpointWriter writer(output, step, 0);
  put(writer.folder() / "model.safetensors", weights);
  put(writer.folder() / "trainer_state.json", "{}");
  return writer.commit();
}

std::vector<int64_t> steps(const fs::path& output) {
  std::vector<int64_t> found;
  for (const auto& checkpoint : list_checkpoints(output)) found.push_back(checkpoint.step);
  return found;
}

size_t entries(const fs::path& folder) {
  return std::distance(fs::directory_iterator(folder), fs::directory_iterator());
}

}  // namespace

TEST_CASE("a checkpoint is there when it is committed, and whole") {
  test::TemporaryFolder output;
  const auto path = make_checkpoint(output.path(), 20);
  CHECK(path.filename() == "checkpoint-20");
  CHECK(!checkpoint_damage(path));
  CHECK(newest_whole_checkpoint(output.path())->step == 20);
  CHECK(entries(output.path()) == 1);
}

TEST_CASE("a checkpoint that is given up leaves nothing") {
  test::TemporaryFolder output;
  make_checkpoint(output.path(), 10);
  {
    CheckpointWriter writer(output.path(), 20, 0);
    put(writer.folder() / "model.safetensors", "half");
  }
  CHECK(entries(output.path()) == 1);
  CHECK(steps(output.path()) == std::vector<int64_t>{10});
}

TEST_CASE("every kind of damage is found and named") {
  test::TemporaryFolder output;
  make_checkpoint(output.path(), 10);
  const auto path = make_checkpoint(output.path(), 20);
  SECTION("a missing file") {
    fs::remove(path / "trainer_state.json");
    CHECK_THAT(*checkpoint_damage(path), Catch::Contains("trainer_state.json is missing"));
  }
  SECTION("a file cut short") {
    fs::resize_file(path / "model.safetensors", 4096);
    CHECK_THAT(*checkpoint_damage(path), Catch::Contains("model.safetensors: 4096 bytes, the manifest says 5000"));
  }
  SECTION("no manifest") {
    fs::remove(path / "manifest.json");
    CHECK_THAT(*checkpoint_damage(path), Catch::Contains("manifest.json is missing"));
  }
  SECTION("another step's manifest") {
    fs::rename(path, output / "checkpoint-30");
    CHECK_THAT(*checkpoint_damage(output / "checkpoint-30"), Catch::Contains("manifest.json says step 20"));
  }
  CHECK(newest_whole_checkpoint(output.path())->step == 10);
}

TEST_CASE("one flipped bit anywhere is found") {
  test::TemporaryFolder output;
  const auto path = make_checkpoint(output.path(), 20);
  std::mt19937 random(1);
  for (const char* name : {"model.safetensors", "trainer_state.json", "manifest.json"}) {
    const std::string good = read_file(path / name);
    for (int i = 0; i < 50; ++i) {
      std::string bad = good;
      bad[random() % bad.size()] ^= static_cast<char>(1 << (random() % 8));
      put(path / name, bad);
      INFO(name << " " << i);
      // White space of the manifest carries nothing: such a flip may pass, and then nothing is wrong.
      const auto squeeze = [](std::string text) {
        std::erase_if(text, [](char c) { return std::isspace(static_cast<unsigned char>(c)); });
        return text;
      };
      CHECK((checkpoint_damage(path).has_value() || squeeze(bad) == squeeze(good)));
    }
    put(path / name, good);
    CHECK(!checkpoint_damage(path));
  }
}

TEST_CASE("rotation keeps the newest and the best") {
  test::TemporaryFolder output;
  for (const int step : {10, 20, 30, 40, 50}) make_checkpoint(output.path(), step, "w");
  SECTION("none") {
    rotate_checkpoints(output.path(), 0, -1);
    CHECK(steps(output.path()).size() == 5);
  }
  SECTION("the last two") {
    rotate_checkpoints(output.path(), 2, -1);
    CHECK(steps(output.path()) == std::vector<int64_t>{40, 50});
  }
  SECTION("the best counts") {
    rotate_checkpoints(output.path(), 2, 20);
    CHECK(steps(output.path()) == std::vector<int64_t>{20, 50});
  }
  SECTION("a limit of one keeps the best beside the newest") {
    rotate_checkpoints(output.path(), 1, 20);
    CHECK(steps(output.path()) == std::vector<int64_t>{20, 50});
  }
}

TEST_CASE("a checkpoint of the same step is replaced in one move") {
  test::TemporaryFolder output;
  make_checkpoint(output.path(), 10, "old");
  const auto path = make_checkpoint(output.path(), 10, "new");
  CHECK(read_file(path / "model.safetensors") == "new");
  CHECK(!checkpoint_damage(path));
  CHECK(entries(output.path()) == 1);
}

TEST_CASE("a disk that is too small is found before anything is touched") {
  test::TemporaryFolder output;
  make_checkpoint(output.path(), 10);
  CHECK_THROWS_WITH(CheckpointWriter(output.path(), 20, uint64_t{1} << 60), Catch::Contains("not enough disk space"));
  CHECK(entries(output.path()) == 1);
}

TEST_CASE("what a killed run left is removed") {
  test::TemporaryFolder output;
  make_checkpoint(output.path(), 10);
  put(output / ".unfinished-checkpoint-20/model.safetensors", "half");
  CHECK(steps(output.path()) == std::vector<int64_t>{10});
  remove_unfinished(output.path());
  CHECK(entries(output.path()) == 1);
}

TEST_CASE("the final model moves into the folder") {
  test::TemporaryFolder output;
  put(output / "config.json", "old");
  put(output / "model-00001-of-00002.safetensors", "of an old model in parts");
  put(output / "model.safetensors.index.json", "of an old model in parts");
  put(output / "model_ema.safetensors", "mine");
  FolderUpdate update(output.path(), 0);
  put(update.folder() / "config.json", "new");
  CHECK(read_file(output / "config.json") == "old");
  update.commit();
  CHECK(read_file(output / "config.json") == "new");
  CHECK_FALSE(fs::exists(output / "model-00001-of-00002.safetensors"));
  CHECK_FALSE(holds_model(output.path()));
  CHECK(fs::exists(output / "model_ema.safetensors"));
}

TEST_CASE("two runs do not share a folder") {
  test::TemporaryFolder output;
  {
    RunLock lock(output / "run");
    CHECK_THROWS_WITH(RunLock(output / "run"), Catch::Contains("another run is writing"));
  }
  RunLock again(output / "run");
}
