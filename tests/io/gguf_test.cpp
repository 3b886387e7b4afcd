#include "io/gguf.h"

#include <chrono>
#include <cmath>
#include <cstring>
#include <limits>

#include "core/error.h"
#include "test.h"

namespace llmtk::io {
namespace {

template <class T>
std::string raw(T value) {
  return {reinterpret_cast<const char*>(&value), sizeof value};
}
std::string text(std::string_view value) { return raw(uint64_t{value.size()}) + std::string(value); }

/// The header of a file with so many tensors and keys.
std::string header(uint64_t tensors, uint64_t keys, uint32_t version = 3) {
  return "GGUF" + raw(version) + raw(tensors) + raw(keys);
}
std::string key(std::string_view name, uint32_t kind, const std::string& value) {
  return text(name) + raw(kind) + value;
}
std::string tensor(std::string_view name, const std::vector<uint64_t>& dims, uint32_t type, uint64_t offset) {
  std::string entry = text(name) + raw(static_cast<uint32_t>(dims.size()));
  for (const uint64_t dim : dims) entry += raw(dim);
  return entry + raw(type) + raw(offset);
}
/// The tensors' bytes begin at a multiple of 32.
std::string file_of(std::string head, size_t data_bytes) {
  head.resize((head.size() + 31) / 32 * 32);
  return head + std::string(data_bytes, '\1');
}

/// Opens a file of these bytes and returns the message, or "" when it opens; within a second in any case.
std::string message_of(const std::string& bytes) {
  test::TemporaryFolder folder;
  write_file_atomic(folder / "x.gguf", bytes);
  const auto start = std::chrono::steady_clock::now();
  std::string message;
  try {
    GgufFile file(folder / "x.gguf");
  } catch (const Error& error) {
    CHECK(error.exit() == Exit::file);
    CHECK(error.parts().where.find("x.gguf") != std::string::npos);
    message = error.what();
    CHECK(message.find('\n') == std::string::npos);
  }
  CHECK(std::chrono::steady_clock::now() - start < std::chrono::seconds(1));
  return message;
}

using test::says;

TEST_CASE("a whole GGUF file opens, of version 2 and 3") {
  CHECK(message_of(header(0, 0)).empty());
  CHECK(message_of(header(0, 0, 2)).empty());
  CHECK(message_of(file_of(header(2, 1) + key("general.alignment", 4, raw(uint32_t{32})) + tensor("b", {2}, 0, 32) +
                               tensor("a", {32, 2}, 8, 64),
                           64 + 2 * 34))
            .empty());
}

TEST_CASE("a GGUF file that is not whole or not valid is refused, and the message says why") {
  CHECK(says(message_of("GG"), "too short"));
  CHECK(says(message_of(std::string(100, 'x')), "not a GGUF file"));
  CHECK(says(message_of(header(0, 0, 1)), "a version of GGUF that this program does not read: got 1"));
  CHECK(says(message_of(header(0, 0, 0x03000000)), "big-endian"));
  // Counts and lengths of 2^60, and those that overflow when they are multiplied.
  const uint64_t huge = uint64_t{1} << 60;
  CHECK(says(message_of(header(0, huge)), "the metadata has more entries than the file has bytes for"));
  CHECK(says(message_of(header(huge, 0)), "the list of tensors has more entries"));
  CHECK(says(message_of(header(0, 1) + raw(huge) + std::string(20, 'k')), "a key reaches beyond the end"));
  CHECK(says(message_of(header(0, 1) + key("k", 8, raw(huge))), "a value reaches beyond the end"));
  CHECK(says(message_of(header(0, 1) + key("k", 9, raw(uint32_t{4}) + raw(huge))), "key 'k' has too many elements"));
  CHECK(says(message_of(header(0, 1) + key("k", 9, raw(uint32_t{8}) + raw(uint64_t{1} << 24))),
             "key 'k' has more entries"));
  CHECK(says(message_of(header(0, 1) + key("k", 9, raw(uint32_t{9}) + raw(uint64_t{1}))), "a list of what"));
  CHECK(says(message_of(header(0, 1) + key("k", 77, "")), "a value of an unknown kind"));
  CHECK(says(message_of(header(0, 2) + key("k", 0, "\1") + key("k", 0, "\1")), "key 'k' is given twice"));
  CHECK(says(message_of(header(0, 1) + key("general.alignment", 4, raw(uint32_t{24}))), "a power of two"));
  CHECK(says(message_of(header(0, 1) + key("general.alignment", 8, text("x"))), "expected an integer"));
  CHECK(says(message_of(header(0, 1) + key("split.count", 2, raw(uint16_t{3}))), "one of the 3 parts"));

  const auto one = [](const std::string& entry, size_t bytes) {
    return message_of(file_of(header(1, 0) + entry, bytes));
  };
  CHECK(says(one(tensor("w", {1, 1, 1, 1, 1}, 0, 0), 4), "tensor 'w' has too many dimensions"));
  CHECK(says(one(tensor("w", {0}, 0, 0), 4), "tensor 'w' has a dimension that is not a size: got 0"));
  CHECK(says(one(tensor("w", {~uint64_t{0}}, 0, 0), 4), "tensor 'w' has a dimension that is not a size: got -1"));
  CHECK(says(one(tensor("w", {huge, huge}, 0, 0), 4), "tensor 'w' has more elements than can be counted"));
  CHECK(says(one(tensor("w", {uint64_t{1} << 62}, 0, 0), 4), "tensor 'w' has more bytes than can be counted"));
  CHECK(says(one(tensor("w", {1}, 0, ~uint64_t{0} - 1), 4), "tensor 'w' has more bytes than can be counted"));
  CHECK(says(one(tensor("w", {1}, 99, 0), 4), "tensor 'w' has an element type that this program does not read"));
  CHECK(says(one(tensor("w", {33}, 8, 0), 40), "rows that are not whole blocks of Q8_0"));
  CHECK(says(one(tensor("w", {2}, 0, 0), 4), "tensor 'w' reaches beyond the end of the file"));
  CHECK(says(one(tensor("w", {2}, 0, 8), 40), "tensor 'w' is not aligned"));
  CHECK(says(one(tensor(std::string("\x1b[2J"), {2}, 0, 8), 40), "tensor '\\x1b[2J'"));
  CHECK(says(message_of(file_of(header(2, 0) + tensor("a", {16}, 0, 0) + tensor("b", {16}, 0, 32), 96)),
             "tensor 'b' overlaps tensor 'a'"));
  CHECK(says(message_of(file_of(header(2, 0) + tensor("a", {8}, 0, 0) + tensor("a", {8}, 0, 32), 64)),
             "tensor 'a' is given twice"));
}

TEST_CASE("every cut of a valid GGUF file is refused") {
  const std::string whole =
      file_of(header(1, 2) + key("a", 8, text("name")) +
                  key("b", 9, raw(uint32_t{8}) + raw(uint64_t{1}) + text("token")) + tensor("w", {4}, 0, 0),
              16);
  REQUIRE(message_of(whole).empty());
  for (size_t n = 0; n < whole.size(); ++n) CHECK_FALSE(message_of(whole.substr(0, n)).empty());
}

TEST_CASE("what is written as GGUF is read") {
  test::TemporaryFolder folder;
  const fs::path path = folder / "w.gguf";
  const GgufMetadata metadata = {{"general.architecture", "llama"},
                                 {"n", uint32_t{7}},
                                 {"negative", int32_t{-3}},
                                 {"large", uint64_t{1} << 40},
                                 {"eps", 1e-5f},
                                 {"exact", 0.1},
                                 {"flag", true},
                                 {"tokens", std::vector<std::string>{"a", "▁b", ""}},
                                 {"kinds", std::vector<int32_t>{1, 3, 6}},
                                 {"scores", std::vector<float>{0, -1.5, -2}}};
  const std::vector<float> a = {1, 2, 3, 4, 5, 6};
  const std::vector<std::byte> b(34, std::byte{5});
  {
    GgufWriter writer(path, metadata,
                      {{.name = "a", .shape = {2, 3}}, {.name = "b", .type = GgufType::q8_0, .shape = {32}}});
    writer.write(std::as_bytes(std::span(a).first(4)));
    writer.write(std::as_bytes(std::span(a).subspan(4)));
    CHECK_THROWS_AS(writer.finish(), CheckFailed);  // b is not there yet
    CHECK_FALSE(fs::exists(path));
    writer.write(b);
    const uint64_t size = writer.finish();
    CHECK(size == fs::file_size(path));
  }
  const GgufFile file(path);
  CHECK(file.string("general.architecture") == "llama");
  CHECK(file.integer("n") == 7);
  CHECK(file.integer("negative") == -3);
  CHECK(file.integer("large") == int64_t{1} << 40);
  CHECK(file.number("eps") == 1e-5);  // not 9.99999974e-06
  CHECK(file.number("exact") == 0.1);
  CHECK(file.number("n") == 7);
  CHECK(file.find_boolean("flag") == true);
  CHECK(*file.find_strings("tokens") == std::vector<std::string>{"a", "▁b", ""});
  CHECK(*file.find_integers("kinds") == std::vector<int32_t>{1, 3, 6});
  CHECK(*file.find_numbers("scores") == std::vector<float>{0, -1.5, -2});
  CHECK_FALSE(file.find_integer("missing"));
  CHECK_THROWS_WITH(file.integer("missing"), Catch::Contains("key 'missing' is missing"));
  CHECK_THROWS_WITH(file.integer("eps"), Catch::Contains("key 'eps' has a value that cannot be used"));
  CHECK_THROWS_WITH(file.find_boolean("n"), Catch::Contains("expected true or false"));
  CHECK_THROWS_WITH(file.find_strings("kinds"), Catch::Contains("expected a list of strings"));
  REQUIRE(file.find_tensor("a"));
  CHECK(file.find_tensor("a")->shape == std::vector<int64_t>{2, 3});
  CHECK(std::memcmp(file.bytes(*file.find_tensor("a")).data(), a.data(), 24) == 0);
  CHECK(std::memcmp(file.bytes(*file.find_tensor("b")).data(), b.data(), 34) == 0);
  CHECK_FALSE(file.find_tensor("c"));
}

TEST_CASE("Q8_0 keeps numbers to half a step of their block's largest") {
  std::vector<float> numbers(64), again(64);
  for (size_t i = 0; i < 64; ++i) numbers[i] = std::sin(static_cast<float>(i)) * (i < 32 ? 1.0f : 1e-3f);
  std::vector<std::byte> blocks(68);
  quantize(GgufType::q8_0, numbers, blocks);
  dequantize(GgufType::q8_0, blocks, again);
  for (size_t i = 0; i < 64; ++i) {
    const float step = (i < 32 ? 1.0f : 1e-3f) / 127;
    CHECK(std::abs(numbers[i] - again[i]) < 0.52f * step);
  }
  CHECK(std::abs(numbers[40] - again[40]) > 0);
  // Blocks of nothing, and of what is nearly nothing, are zeros.
  numbers.assign(64, 0);
  numbers[40] = std::numeric_limits<float>::denorm_min();
  quantize(GgufType::q8_0, numbers, blocks);
  dequantize(GgufType::q8_0, blocks, again);
  for (const float number : again) CHECK(number == 0);
}

}  // namespace
}  // namespace llmtk::io
