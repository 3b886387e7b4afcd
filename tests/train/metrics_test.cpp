#include "train/metrics.h"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <limits>

#include "core/error.h"
#include "core/file.h"
#include "test.h"
#include "train/loss_curve.h"
#include "train/tensorboard.h"

namespace llmtk::train {
namespace {

constexpr const char* kHeader = "{\"schema\":\"llmtk-metrics\",\"version\":1}\n";

void append(const std::filesystem::path& path, const std::string& text) { std::ofstream(path, std::ios::app) << text; }

TEST_CASE("metrics.jsonl: a header, and rows in the order of their keys") {
  test::TemporaryFolder folder;
  const auto path = folder / "metrics.jsonl";
  MetricsFile file(path, 0);
  CHECK(read_file(path) == kHeader);
  file.add({{"step", 1}, {"loss", 2.5}});
  CHECK(read_file(path) == std::string(kHeader) + "{\"step\":1,\"loss\":2.5}\n");
  file.sync();
}

TEST_CASE("metrics.jsonl: what is no number becomes null, what is no UTF-8 a replacement character") {
  test::TemporaryFolder folder;
  const auto path = folder / "metrics.jsonl";
  MetricsFile file(path, 0);
  file.add({{"step", 1}, {"loss", std::nan("")}, {"grad_norm", std::numeric_limits<double>::infinity()}});
  file.add({{"step", 2}, {"sample", "\xe4\xba"}});
  CHECK(read_file(path) ==
        std::string(kHeader) +
            "{\"step\":1,\"loss\":null,\"grad_norm\":null}\n{\"step\":2,\"sample\":\"\xef\xbf\xbd\"}\n");
}

TEST_CASE("metrics.jsonl of a resumed run keeps the rows up to its step") {
  test::TemporaryFolder folder;
  const auto path = folder / "metrics.jsonl";
  {
    MetricsFile file(path, 0);
    for (int step = 1; step <= 5; ++step) file.add({{"step", step}, {"loss", 6 - step}});
  }
  append(path, "not JSON\n[1]\n{\"step\":\"2\"}\n{\"step\":2,\"lo");  // a damaged file, and half a line
  const std::string before = read_file(path);
  std::vector<Row> kept;
  MetricsFile file(path, 3, [&](const Row& row) { kept.push_back(row); });
  REQUIRE(kept.size() == 3);
  CHECK(kept[2] == Row({{"step", 3}, {"loss", 3}}));
  CHECK(read_file(path) == before);  // a run that adds nothing takes nothing away
  file.add({{"step", 4}, {"loss", 9}});
  CHECK(read_file(path) == std::string(kHeader) +
                               "{\"step\":1,\"loss\":5}\n{\"step\":2,\"loss\":4}\n{\"step\":3,\"loss\":3}\n"
                               "{\"step\":4,\"loss\":9}\n");
}

TEST_CASE("metrics.jsonl of a resumed run that saves without a row in between keeps nothing beyond its checkpoint") {
  test::TemporaryFolder folder;
  const auto path = folder / "metrics.jsonl";
  append(path, std::string(kHeader) + "{\"step\":1}\n{\"step\":2}\n{\"step\":3}\n");
  MetricsFile file(path, 2);
  file.sync();
  CHECK(read_file(path) == std::string(kHeader) + "{\"step\":1}\n{\"step\":2}\n");
}

TEST_CASE("metrics.jsonl that cannot be read is an error, not a file without rows") {
  test::TemporaryFolder folder;
  const auto path = folder / "metrics.jsonl";
  std::filesystem::create_symlink("/proc/self/mem", path);  // opens, and gives an error where it is read
  CHECK_THROWS_WITH(MetricsFile(path, 2), Catch::Contains("metrics.jsonl: cannot read"));
}

TEST_CASE("metrics.jsonl: a whole row without its line feed is half a row") {
  test::TemporaryFolder folder;
  const auto path = folder / "metrics.jsonl";
  append(path, std::string(kHeader) + "{\"step\":1}\n{\"step\":2}");
  MetricsFile file(path, 10);
  file.add({{"step", 2}, {"loss", 1}});
  CHECK(read_file(path) == std::string(kHeader) + "{\"step\":1}\n{\"step\":2,\"loss\":1}\n");
}

TEST_CASE("metrics.jsonl of a run that begins holds nothing of an earlier one") {
  test::TemporaryFolder folder;
  const auto path = folder / "metrics.jsonl";
  append(path, std::string(kHeader) + "{\"step\":1}\n");
  MetricsFile file(path, 0);
  CHECK(read_file(path) == kHeader);
}

TEST_CASE("crc32c") {
  CHECK(crc32c("123456789") == 0xE3069283u);  // the check value of CRC-32C
  CHECK(crc32c("") == 0u);
  CHECK(crc32c(std::string(32, '\0')) == 0x8A9136AAu);  // RFC 3720, B.4
  CHECK(crc32c(std::string(32, '\xff')) == 0x62A8AB43u);
}

TEST_CASE("The loss curve leaves out what is no number") {
  const std::vector<Row> rows = {
      {{"step", 1}, {"loss", 4.0}},     {{"step", 2}, {"loss", std::nan("")}},
      {{"step", 3}, {"loss", nullptr}}, {{"step", 4}, {"loss", std::numeric_limits<double>::infinity()}},
      {{"step", 5}, {"loss", 2.0}},     {{"step", 5}, {"eval_loss", 3.0}},
      {{"step", 5}, {"sample", "loss"}}};
  LossCurve curve;
  for (const Row& row : rows) curve.add(row);
  const std::string svg = curve.svg("a < b & c");
  CHECK(svg.find("nan") == svg.npos);
  CHECK(svg.find("inf") == svg.npos);
  CHECK(svg.find("<title>a &lt; b &amp; c</title>") != svg.npos);
  const size_t line = svg.find("class=\"line train\" points=\"");
  REQUIRE(line != svg.npos);
  const size_t begin = svg.find("points=\"", line) + 8;
  CHECK(std::count(svg.begin() + static_cast<ptrdiff_t>(begin),
                   svg.begin() + static_cast<ptrdiff_t>(svg.find('"', begin)), ',') == 2);
  CHECK(svg.find("<circle") == svg.rfind("<circle"));
}

TEST_CASE("A curve keeps its shape and its mean in bounded memory") {
  Curve curve;
  const int count = 64'000;
  for (int step = 1; step <= count; ++step) curve.add(step, step % 2 ? 3 : 1);
  const auto& points = curve.points();
  CHECK(points.size() >= Curve::kMost / 2);
  CHECK(points.size() < Curve::kMost);
  CHECK(points.front().step < count / 100);
  CHECK(points.back().step > count - count / 100);
  CHECK(std::ranges::all_of(points, [](const auto& p) { return p.value == 2; }));
  CHECK(std::ranges::is_sorted(points, {}, &Curve::Point::step));
}

TEST_CASE("A curve reaches its newest value") {
  Curve curve;
  const auto count =
      static_cast<int>(Curve::kMost) + 3;  // of two values to a point, the last three make one and a half
  for (int step = 1; step <= count; ++step) curve.add(step, step);
  CHECK(curve.points().size() == Curve::kMost / 2 + 2);
  CHECK(curve.points().back().step == count);
  CHECK(curve.last() == count);
  curve.add(count + 1, 7);
  CHECK(curve.points().back().step == count + 0.5);
  CHECK(curve.last() == 7);
}

TEST_CASE("The loss curve's legend has the last loss as it was reported") {
  LossCurve curve;
  for (int step = 1; step <= static_cast<int>(Curve::kMost) + 1; ++step) curve.add({{"step", step}, {"loss", 2.0}});
  curve.add({{"step", 2002}, {"loss", 1.5}});
  CHECK(curve.svg("run").find(">train 1.5<") != std::string::npos);
}

TEST_CASE("The loss curve of no rows, and of one") {
  for (const auto& rows : {std::vector<Row>{}, std::vector<Row>{{{"step", 1}, {"loss", 2.0}}},
                           std::vector<Row>{{{"step", 1}, {"loss", std::nan("")}}}}) {
    LossCurve curve;
    for (const Row& row : rows) curve.add(row);
    const std::string svg = curve.svg("run");
    CHECK(svg.starts_with("<svg"));
    CHECK(svg.ends_with("</svg>\n"));
    CHECK(svg.find("nan") == svg.npos);
  }
}

}  // namespace
}  // namespace llmtk::train
