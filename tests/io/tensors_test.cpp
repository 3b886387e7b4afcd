#include "io/tensors.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <fstream>

#include "core/error.h"
#include "test.h"

namespace llmtk::io {
namespace {

TEST_CASE("tensors come back bit by bit, as views that keep the map alive") {
  test::TemporaryFolder folder;
  const NamedTensors written = {
      {"f", at::randn({3, 5})},
      {"h", at::randn({4}).to(at::kHalf)},
      {"b", at::randn({2, 2}).to(at::kBFloat16)},
      {"i", at::arange(7)},
      {"u", at::arange(3).to(at::kByte)},
      {"t", at::randn({4, 6}).t()},
      {"s", at::scalar_tensor(3.5)},
      {"e", at::empty({0, 4})},
      {"bool", at::ones({3}, at::kBool)},
      {"d", at::randn({2}).to(at::kDouble)},
  };
  save_tensors(folder / "x.safetensors", written);
  const NamedTensors read = load_tensors(folder / "x.safetensors");
  fs::remove(folder / "x.safetensors");  // the map stays
  REQUIRE(read.size() == written.size());
  for (const auto& [name, tensor] : read) {
    INFO(name);
    const auto original = std::ranges::find(written, name, &std::pair<std::string, at::Tensor>::first);
    CHECK(tensor.scalar_type() == original->second.scalar_type());
    CHECK(at::equal(tensor, original->second));
  }
}

TEST_CASE("opening and viewing touch no data") {
  test::TemporaryFolder folder;
  save_tensors(folder / "x.safetensors", {{"big", at::zeros({64 << 20}, at::kByte)}});
  const auto resident = [] {
    std::ifstream statm("/proc/self/statm");
    long total = 0, pages = 0;
    statm >> total >> pages;
    return pages * 4096;
  };
  const long before = resident();
  const NamedTensors tensors = load_tensors(folder / "x.safetensors");
  CHECK(resident() - before < (8 << 20));
  CHECK(tensors[0].second[12345].item<int>() == 0);
}

TEST_CASE("weights are cut into shards, and those of an earlier save go") {
  test::TemporaryFolder folder;
  NamedTensors tensors;
  for (int i = 0; i < 5; ++i)
    tensors.emplace_back(std::string("t").append(std::to_string(i)), at::full({100}, static_cast<float>(i)));
  const auto written = save_weights(folder.path(), tensors, 900);  // two tensors of 400 bytes each fit
  REQUIRE(written.size() == 4);
  CHECK(written[0].name == "model-00001-of-00003.safetensors");
  for (const auto& file : written) CHECK(file.checksum == checksum_file(folder / file.name));
  const WeightFiles files(folder.path());
  CHECK(files.tensors().size() == 5);
  CHECK(tensor_view(files.tensors().at("t3"))[0].item<float>() == 3);
  const Json index = read_json(folder / kWeightsIndex);
  CHECK(index["metadata"]["total_size"] == 2000);
  save_weights(folder.path(), {{"b", tensors[0].second}, {"a", tensors[1].second}}, 400);
  CHECK(read_json(folder / kWeightsIndex)["weight_map"].begin().key() == "a");  // sorted

  save_weights(folder.path(), tensors);
  CHECK(fs::exists(folder / kWeightsFile));
  CHECK_FALSE(fs::exists(folder / kWeightsIndex));
  CHECK_FALSE(fs::exists(folder / "model-00001-of-00003.safetensors"));
  CHECK(WeightFiles(folder.path()).tensors().size() == 5);
}

}  // namespace
}  // namespace llmtk::io
