#include "io/safetensors.h"

#include <chrono>
#include <cstring>

#include "core/error.h"
#include "io/json.h"
#include "test.h"

namespace llmtk::io {
namespace {

std::string file_of(const std::string& header, size_t data_bytes) {
  const uint64_t size = header.size();
  std::string text(8, '\0');
  std::memcpy(text.data(), &size, 8);
  return text + header + std::string(data_bytes, '\1');
}

/// Opens a file of these bytes and returns the message, or "" when it opens.
std::string message_of(const std::string& bytes) {
  test::TemporaryFolder folder;
  write_file_atomic(folder / "x.safetensors", bytes);
  try {
    SafetensorsFile file(folder / "x.safetensors");
    return "";
  } catch (const Error& error) {
    CHECK(error.exit() == Exit::file);
    CHECK(error.parts().where.find("x.safetensors") != std::string::npos);
    return error.what();
  }
}

using test::says;

TEST_CASE("a whole file opens") {
  CHECK(message_of(file_of(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})", 8)).empty());
  CHECK(message_of(file_of(R"({})", 0)).empty());
  CHECK(message_of(file_of(R"({"__metadata__":{"format":"pt"}}    )", 0)).empty());
  // A scalar, an empty tensor, and an order in the header that is not that of the bytes.
  CHECK(message_of(file_of(R"({"b":{"dtype":"BF16","shape":[],"data_offsets":[4,6]},)"
                           R"("e":{"dtype":"F32","shape":[0,3],"data_offsets":[4,4]},)"
                           R"("a":{"dtype":"I32","shape":[1],"data_offsets":[0,4]}})",
                           6))
            .empty());
}

TEST_CASE("a file that is not whole or not valid is refused, and the message says why") {
  const auto tensor = [](const std::string& entry, size_t bytes) {
    return message_of(file_of("{\"w\":" + entry + "}", bytes));
  };
  CHECK(says(message_of("abc"), "too short"));
  std::string huge(8, '\0');
  huge[7] = '\x10';  // a header of 2^60 bytes
  CHECK(says(message_of(huge), "the header is too long"));
  std::string beyond(8, '\0');
  beyond[0] = 100;
  CHECK(says(message_of(beyond + "{}"), "beyond the end"));
  CHECK(says(message_of(file_of("{\"w\"", 0)), "not valid JSON"));
  CHECK(says(message_of(file_of("[]", 0)), "not a JSON object"));
  CHECK(says(message_of(file_of(std::string(100000, '['), 0)), "nested too deep"));
  CHECK(says(tensor("3", 0), "tensor 'w' is not described"));
  CHECK(says(tensor(R"({"dtype":"F32","shape":[1]})", 4), "tensor 'w' must have"));
  CHECK(says(tensor(R"({"dtype":"F31","shape":[1],"data_offsets":[0,4]})", 4),
             "tensor 'w' has an unknown dtype: got 'F31'"));
  CHECK(says(tensor(R"({"dtype":"F32","shape":[-1],"data_offsets":[0,4]})", 4), "tensor 'w' has a dimension"));
  CHECK(says(tensor(R"({"dtype":"F32","shape":[1.5],"data_offsets":[0,4]})", 4), "tensor 'w' has a dimension"));
  CHECK(says(tensor(R"({"dtype":"F32","shape":[4294967296,4294967296,2],"data_offsets":[0,4]})", 4), "more elements"));
  CHECK(says(tensor(R"({"dtype":"F32","shape":[2],"data_offsets":[0,4]})", 4), "do not fit its shape"));
  CHECK(says(tensor(R"({"dtype":"F32","shape":[1],"data_offsets":[0,18446744073709551615]})", 4),
             "beyond the end of the file"));
  CHECK(says(tensor(R"({"dtype":"F32","shape":[1],"data_offsets":[8,4]})", 8), "no range"));
  CHECK(says(tensor(R"({"dtype":"F32","shape":[1],"data_offsets":[4,8]})", 8), "leaves a gap"));
  CHECK(says(tensor(R"({"dtype":"F32","shape":[1],"data_offsets":[0,4]})", 5), "bytes after the last tensor"));
  CHECK(says(tensor(R"({"dtype":"F32","dtype":"F32","shape":[1],"data_offsets":[0,4]})", 4), "given twice"));
  CHECK(says(
      message_of(file_of(
          R"({"w":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"w":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})",
          2)),
      "key 'w' is given twice"));
  CHECK(says(
      message_of(file_of(
          R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[4],"data_offsets":[2,6]}})",
          6)),
      "tensor 'b' overlaps"));
  CHECK(says(message_of(file_of(R"({"__metadata__":{"x":1}})", 0)), "__metadata__"));
}

TEST_CASE("every cut of a valid file is refused") {
  const std::string whole = file_of(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})", 8);
  for (size_t n = 0; n < whole.size(); ++n) CHECK_FALSE(message_of(whole.substr(0, n)).empty());
}

TEST_CASE("what is written piece by piece is read") {
  test::TemporaryFolder folder;
  const fs::path path = folder / "w.safetensors";
  const std::vector<float> a = {1, 2, 3, 4, 5, 6};
  const std::vector<uint8_t> b = {7, 8, 9};
  std::string checksum;
  {
    SafetensorsWriter writer(path, {{.name = "中文.a", .dtype = DType::f32, .shape = {2, 3}},
                                    {.name = "b", .dtype = DType::u8, .shape = {3}}});
    writer.write(std::as_bytes(std::span(a).first(4)));
    writer.write(std::as_bytes(std::span(a).subspan(4)));
    CHECK_THROWS_AS(writer.finish(), CheckFailed);  // b is not there yet
    writer.write(std::as_bytes(std::span(b)));
    CHECK_FALSE(fs::exists(path));
    checksum = writer.finish();
  }
  CHECK(checksum == checksum_file(path));
  const SafetensorsFile file(path);
  REQUIRE(file.find("中文.a"));
  CHECK(file.find("中文.a")->shape == std::vector<int64_t>{2, 3});
  CHECK(std::memcmp(file.bytes(*file.find("中文.a")).data(), a.data(), 24) == 0);
  CHECK(std::memcmp(file.bytes(*file.find("b")).data(), b.data(), 3) == 0);
  CHECK(file.metadata().at("format") == "pt");
  CHECK_FALSE(file.find("c"));
}

TEST_CASE("a config's errors name file and key") {
  const Json json = parse_json(R"({"n": 0, "x": "y", "p": 1.5, "none": null, "big": 18446744073709551615})", "c.json");
  ObjectReader reader(json, "c.json");
  const auto fails = [&](auto&& body, const std::string& part) {
    try {
      body();
    } catch (const Error& error) {
      INFO(error.what());
      return std::string(error.what()).starts_with("c.json: ") &&
             std::string(error.what()).find(part) != std::string::npos;
    }
    return false;
  };
  CHECK(fails([&] { reader.integer("missing"); }, "key 'missing' is missing"));
  CHECK(fails([&] { reader.integer("none"); }, "key 'none' is missing"));
  CHECK(fails([&] { reader.integer("n"); },
              "key 'n' has a value that cannot be used: got 0, expected an integer of at least 1"));
  CHECK(fails([&] { reader.integer("big"); }, "'big'"));
  CHECK(fails([&] { reader.number("x"); }, "got \"y\", expected a number"));
  CHECK(fails([&] { reader.probability_or("p", 0); }, "'p'"));
  CHECK(fails([&] { reader.only("x", "z"); }, "the only value supported"));
  CHECK(fails([&] { parse_json("{\"a\": 1,}", "c.json"); }, "not valid JSON"));
  CHECK(fails([&] { parse_json("{\"a\": 1, \"a\": 2}", "c.json"); }, "key 'a' is given twice"));
  CHECK(reader.integer_or("none", 5) == 5);
}

TEST_CASE("JSON of very many objects is parsed in no time") {
  std::string text = "{\"k\": {}";
  for (int i = 0; i < 200000; ++i) text += ", \"layers." + std::to_string(i) + "\": {\"shape\": [1]}";
  const auto start = std::chrono::steady_clock::now();
  CHECK(parse_json<SortedJson>(text + "}", "c.json").size() == 200001);
  CHECK(std::chrono::steady_clock::now() - start < std::chrono::seconds(20));  // with a watching callback: minutes
}

TEST_CASE("keys that nobody read are known") {
  const Json json = {{"a", 1}, {"b", 2}, {"c", 3}};
  ObjectReader reader(json, "c.json");
  reader.integer("a");
  reader.ignore({"b"});
  CHECK(reader.unread() == std::vector<std::string>{"c"});
}

}  // namespace
}  // namespace llmtk::io
