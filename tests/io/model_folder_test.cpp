#include "io/model_folder.h"

#include <chrono>
#include <cstdlib>
#include <map>

#include "core/error.h"
#include "test.h"

namespace llmtk::io {
namespace {

void write_tensor(const fs::path& path, const std::vector<std::string>& names) {
  std::vector<TensorInfo> infos;
  for (const auto& name : names) infos.push_back({.name = name, .dtype = DType::u8, .shape = {1}});
  SafetensorsWriter writer(path, infos);
  for (size_t i = 0; i < names.size(); ++i) writer.write(std::as_bytes(std::span("x", 1)));
  writer.finish();
}

std::string error_of(const fs::path& folder) {
  try {
    WeightFiles files(folder);
    return "";
  } catch (const Error& error) {
    CHECK(error.exit() == Exit::file);
    return error.what();
  }
}

using test::says;

TEST_CASE("shards are one set of tensors, and must agree with their index") {
  test::TemporaryFolder folder;
  const fs::path root = folder.path();
  write_tensor(root / "s1.safetensors", {"a", "b"});
  write_tensor(root / "s2.safetensors", {"c"});
  const auto index = [&](const Json& map) { write_json(root / kWeightsIndex, {{"weight_map", map}}); };
  index({{"a", "s1.safetensors"}, {"b", "s1.safetensors"}, {"c", "s2.safetensors"}});
  CHECK(WeightFiles(root).tensors().size() == 3);
  index({{"a", "s1.safetensors"}, {"c", "s2.safetensors"}});
  CHECK(says(error_of(root), "tensor 'b' of s1.safetensors is not in the index"));
  index({{"a", "s1.safetensors"}, {"b", "s2.safetensors"}, {"c", "s2.safetensors"}});
  CHECK(says(error_of(root), "tensor 'b' is not in s2.safetensors"));
  index({{"a", "s3.safetensors"}});
  CHECK(says(error_of(root), "a shard is missing: s3.safetensors"));
  index({{"a", "../s1.safetensors"}});
  CHECK(says(error_of(root), "lies in no file of this folder"));
  write_json(root / kWeightsIndex, {{"weights", 1}});
  CHECK(says(error_of(root), "'weight_map' is missing"));
}

TEST_CASE("an index of very many tensors is read in no time") {
  test::TemporaryFolder folder;
  std::map<std::string, std::string> map;
  for (int i = 0; i < 100; ++i) {
    const std::string shard = "s" + std::to_string(i) + ".safetensors";
    std::vector<std::string> names;
    for (int j = 0; j < 1000; ++j)
      map.emplace(names.emplace_back("layers." + std::to_string(i) + ".experts." + std::to_string(j)), shard);
    write_tensor(folder / shard, names);
  }
  write_json(folder / kWeightsIndex, {{"weight_map", map}});
  const auto start = std::chrono::steady_clock::now();
  CHECK(WeightFiles(folder.path()).tensors().size() == map.size());
  CHECK(std::chrono::steady_clock::now() - start < std::chrono::seconds(30));  // with linear searches: minutes
}

TEST_CASE("pickled weights are refused with the line that converts them") {
  test::TemporaryFolder folder;
  CHECK(says(error_of(folder.path()), "no weights in this folder"));
  write_file_atomic(folder / "pytorch_model.bin", "x");
  CHECK(says(error_of(folder.path()), "save_pretrained"));
}

TEST_CASE("a name is looked up in the local Hugging Face cache") {
  test::TemporaryFolder folder;
  ::setenv("HF_HUB_CACHE", folder.path().c_str(), 1);
  try {
    find_model("someone/model");
    FAIL("found a model that is not there");
  } catch (const Error& error) {
    CHECK(says(error.what(), "hf download someone/model"));
  }
  const fs::path repository = folder / "models--someone--model";
  fs::create_directories(repository / "snapshots" / "abc");
  fs::create_directories(repository / "snapshots" / "def");
  fs::create_directories(repository / "refs");
  write_file_atomic(repository / "refs" / "main", "abc\n");
  CHECK(find_model("someone/model") == repository / "snapshots" / "abc");
  fs::create_directories(folder / "models--openai-community--gpt2/snapshots/1");
  CHECK(find_model("gpt2") == folder / "models--openai-community--gpt2/snapshots/1");
  CHECK(find_model(folder.path().string()) == folder.path());
  CHECK_THROWS_AS(find_model("./no/such/folder"), Error);
  ::unsetenv("HF_HUB_CACHE");
}

TEST_CASE("the tokenizer's files travel with the model, and a sentence encoder's") {
  test::TemporaryFolder from, to;
  fs::create_directories(from / "1_Pooling");
  write_file_atomic(from / "1_Pooling/config.json", "[]");
  write_file_atomic(from / "tokenizer.json", "{}");
  write_file_atomic(from / "generation_config.json", "{\"a\":1}");
  write_file_atomic(from / "other.txt", "x");
  write_file_atomic(to / "generation_config.json", "{}");
  copy_companion_files(from.path(), to.path());
  CHECK(fs::exists(to / "tokenizer.json"));
  CHECK(read_file(to / "1_Pooling/config.json") == "[]");
  CHECK_FALSE(fs::exists(to / "other.txt"));
  CHECK(read_file(to / "generation_config.json") == "{}");
  test::TemporaryFolder third;
  copy_companion_files(from.path(), third.path(), Companions::but_tokenizer);
  CHECK_FALSE(fs::exists(third / "tokenizer.json"));
  CHECK(read_file(third / "generation_config.json") == "{\"a\":1}");
  copy_companion_files(from.path(), from.path());
  CHECK(read_file(from / "tokenizer.json") == "{}");
}

}  // namespace
}  // namespace llmtk::io
