#include "io/gguf.h"

#include <algorithm>
#include <bit>
#include <charconv>
#include <cstring>
#include <limits>
#include <type_traits>

#include "core/error.h"
#include "core/utf8.h"

namespace llmtk::io {
namespace {

static_assert(std::endian::native == std::endian::little, "GGUF is little-endian, and so is this reader");

constexpr std::string_view kMagic = "GGUF";
constexpr uint64_t kDefaultAlignment = 32;
constexpr size_t kMostDims = 4;
/// Of a list in the metadata: what a vocabulary may hold. A longer one is an attack.
constexpr uint64_t kMostElements = uint64_t{1} << 24;

/// The kinds of value, with the format's own numbers.
enum Kind : uint32_t { kU8, kI8, kU16, kI16, kU32, kI32, kF32, kBool, kString, kArray, kU64, kI64, kF64 };

size_t kind_size(uint32_t kind) {
  switch (kind) {
    case kU8:
    case kI8:
    case kBool:
      return 1;
    case kU16:
    case kI16:
      return 2;
    case kU32:
    case kI32:
    case kF32:
      return 4;
    case kString:
    case kU64:
    case kI64:
    case kF64:
      return 8;  // of a string at least its length
    default:
      return 0;
  }
}

[[noreturn]] void damaged(const fs::path& path, const std::string& what, const std::string& got = {},
                          const std::string& expected = {}) {
  throw Error(Exit::file, {.what = what,
                           .where = path.string(),
                           .got = got,
                           .expected = expected,
                           .hint = "the file is damaged or not a GGUF file; fetch or convert it again"});
}

/// Reads the header front to back; every length is checked against what is left.
class Cursor {
 public:
  Cursor(const fs::path& path, std::string_view bytes) : path_(path), bytes_(bytes) {}

  size_t position() const { return at_; }
  size_t left() const { return bytes_.size() - at_; }

  std::string_view take(uint64_t count, const char* what) {
    if (count > left())
      damaged(path_, std::string(what) + " reaches beyond the end of the file", std::to_string(count) + " bytes",
              "at most " + std::to_string(left()));
    const std::string_view bytes = bytes_.substr(at_, count);
    at_ += count;
    return bytes;
  }
  template <class T>
  T number(const char* what) {
    T value;
    std::memcpy(&value, take(sizeof value, what).data(), sizeof value);
    return value;
  }
  std::string_view string(const char* what) { return take(number<uint64_t>(what), what); }
  /// How many of something follow, of which each takes at least `least` bytes.
  uint64_t count(uint64_t announced, uint64_t least, const std::string& what) const {
    if (announced > left() / least)
      damaged(path_, what + " has more entries than the file has bytes for", std::to_string(announced),
              "at most " + std::to_string(left() / least));
    return announced;
  }

  GgufValue value(uint32_t kind, const std::string& key) {
    switch (kind) {
      case kU8:
        return uint32_t{number<uint8_t>("a value")};
      case kI8:
        return int32_t{number<int8_t>("a value")};
      case kU16:
        return uint32_t{number<uint16_t>("a value")};
      case kI16:
        return int32_t{number<int16_t>("a value")};
      case kU32:
        return number<uint32_t>("a value");
      case kI32:
        return number<int32_t>("a value");
      case kF32:
        return number<float>("a value");
      case kBool:
        return number<uint8_t>("a value") != 0;
      case kString:
        return std::string(string("a value"));
      case kU64:
        return number<uint64_t>("a value");
      case kI64:
        return number<int64_t>("a value");
      case kF64:
        return number<double>("a value");
      case kArray:
        return list(key);
      default:
        damaged(path_, "key " + in_quotes(key) + " has a value of an unknown kind", std::to_string(kind), "0 to 12");
    }
  }

 private:
  GgufValue list(const std::string& key) {
    const auto kind = number<uint32_t>("a list");
    const auto announced = number<uint64_t>("a list");
    if (kind_size(kind) == 0)
      damaged(path_, "key " + in_quotes(key) + " is a list of what this program cannot read",
              "kind " + std::to_string(kind), "numbers, booleans or strings");
    if (announced > kMostElements)
      damaged(path_, "key " + in_quotes(key) + " has too many elements", std::to_string(announced),
              "at most " + std::to_string(kMostElements));
    const uint64_t n = count(announced, kind_size(kind), "key " + in_quotes(key));
    switch (kind) {
      case kString: {
        std::vector<std::string> strings(n);
        for (auto& text : strings) text = string("a list's element");
        return strings;
      }
      case kU8:
        return numbers<uint8_t, int32_t>(n);
      case kI8:
        return numbers<int8_t, int32_t>(n);
      case kBool:
        return numbers<uint8_t, int32_t>(n);
      case kU16:
        return numbers<uint16_t, int32_t>(n);
      case kI16:
        return numbers<int16_t, int32_t>(n);
      case kI32:
        return numbers<int32_t, int32_t>(n);
      case kU32:
        return numbers<uint32_t, int64_t>(n);
      case kU64:
        return numbers<uint64_t, int64_t>(n);
      case kI64:
        return numbers<int64_t, int64_t>(n);
      case kF32:
        return numbers<float, float>(n);
      default:
        return numbers<double, float>(n);
    }
  }
  template <class Stored, class T>
  std::vector<T> numbers(uint64_t n) {
    std::vector<T> out(n);
    for (T& value : out) value = static_cast<T>(number<Stored>("a list's element"));
    return out;
  }

  const fs::path& path_;
  std::string_view bytes_;
  size_t at_ = 0;
};

void read_magic(Cursor& cursor, const fs::path& path) {
  if (cursor.left() < 24)
    damaged(path, "too short for a GGUF file", std::to_string(cursor.left()) + " bytes", "24 or more");
  if (const auto magic = cursor.take(4, "the header"); magic != kMagic)
    damaged(path, "not a GGUF file", "the first bytes " + in_quotes(magic), "'GGUF'");
  const auto version = cursor.number<uint32_t>("the header");
  if ((version & 0xFFFF) == 0)
    throw Error(Exit::file, {.what = "a GGUF file for big-endian machines",
                             .where = path.string(),
                             .hint = "convert it with gguf_convert_endian of the Python package gguf"});
  if (version != 2 && version != 3)
    throw Error(Exit::file, {.what = "a version of GGUF that this program does not read",
                             .where = path.string(),
                             .got = std::to_string(version),
                             .expected = "2 or 3",
                             .hint = version == 1 ? "files of version 1 are from 2023; convert the model anew" : ""});
}

/// Sizes and place of one tensor, from its entry in the header.
GgufTensor read_tensor(Cursor& cursor, const fs::path& path) {
  GgufTensor tensor{.name = std::string(cursor.string("a tensor's name"))};
  const std::string who = "tensor " + in_quotes(tensor.name);
  const auto dims = cursor.number<uint32_t>("a tensor's entry");
  if (dims > kMostDims)
    damaged(path, who + " has too many dimensions", std::to_string(dims), "at most " + std::to_string(kMostDims));
  uint64_t count = 1;
  for (uint32_t i = 0; i < dims; ++i) {
    const auto size = cursor.number<uint64_t>("a tensor's entry");
    if (size == 0 || size > static_cast<uint64_t>(INT64_MAX))
      damaged(path, who + " has a dimension that is not a size", std::to_string(static_cast<int64_t>(size)));
    if (__builtin_mul_overflow(count, size, &count) || count > static_cast<uint64_t>(INT64_MAX))
      damaged(path, who + " has more elements than can be counted");
    tensor.shape.insert(tensor.shape.begin(), static_cast<int64_t>(size));
  }
  tensor.type = static_cast<GgufType>(cursor.number<uint32_t>("a tensor's entry"));
  if (!is_known(tensor.type))
    throw Error(Exit::file, {.what = who + " has an element type that this program does not read",
                             .where = path.string(),
                             .got = "type " + std::to_string(static_cast<uint32_t>(tensor.type)),
                             .expected = gguf_type_names()});
  const uint64_t row = tensor.shape.empty() ? 1 : static_cast<uint64_t>(tensor.shape.back());
  if (row % block_elements(tensor.type) != 0)
    damaged(path, who + " has rows that are not whole blocks of " + std::string(gguf_type_name(tensor.type)),
            std::to_string(row) + " elements", "a multiple of " + std::to_string(block_elements(tensor.type)));
  tensor.begin = cursor.number<uint64_t>("a tensor's entry");
  uint64_t bytes = 0;
  if (__builtin_mul_overflow(count / block_elements(tensor.type), block_bytes(tensor.type), &bytes) ||
      __builtin_add_overflow(tensor.begin, bytes, &tensor.end))
    damaged(path, who + " has more bytes than can be counted");
  return tensor;
}

void check_layout(const fs::path& path, const std::vector<GgufTensor>& tensors, uint64_t alignment,
                  uint64_t data_size) {
  const GgufTensor* before = nullptr;
  for (const GgufTensor& tensor : tensors) {
    const std::string who = "tensor " + in_quotes(tensor.name);
    if (tensor.begin % alignment != 0)
      damaged(path, who + " is not aligned", "offset " + std::to_string(tensor.begin),
              "a multiple of " + std::to_string(alignment));
    if (tensor.end > data_size)
      damaged(path, who + " reaches beyond the end of the file", "offset " + std::to_string(tensor.end),
              "at most " + std::to_string(data_size));
    if (before && tensor.begin < before->end)
      damaged(path, who + " overlaps tensor " + in_quotes(before->name), "offset " + std::to_string(tensor.begin),
              "at least " + std::to_string(before->end));
    before = &tensor;
  }
}

}  // namespace

int64_t GgufTensor::count() const {
  int64_t n = 1;
  for (const int64_t dim : shape) n *= dim;
  return n;
}

bool is_gguf_path(const fs::path& path) { return path.extension() == ".gguf"; }

GgufFile::GgufFile(const fs::path& path) : file_(path) {
  Cursor cursor(path, file_.text());
  read_magic(cursor, path);
  const auto tensors = cursor.number<uint64_t>("the header"), keys = cursor.number<uint64_t>("the header");
  cursor.count(keys, 13, "the metadata");
  for (uint64_t i = 0; i < keys; ++i) {
    const std::string key(cursor.string("a key"));
    const auto kind = cursor.number<uint32_t>("a key's value");
    if (!metadata_.emplace(key, cursor.value(kind, key)).second)
      damaged(path, "key " + in_quotes(key) + " is given twice");
  }
  if (const auto parts = find_integer("split.count"); parts && *parts > 1)
    throw Error(Exit::file, {.what = "one of the " + std::to_string(*parts) + " parts of a GGUF file",
                             .where = path.string(),
                             .expected = "a whole file",
                             .hint = "join them: llama-gguf-split --merge FIRST_PART WHOLE.gguf"});

  cursor.count(tensors, 24, "the list of tensors");
  for (uint64_t i = 0; i < tensors; ++i) tensors_.push_back(read_tensor(cursor, path));
  std::ranges::stable_sort(tensors_, {}, &GgufTensor::begin);
  const int64_t alignment = find_integer("general.alignment").value_or(kDefaultAlignment);
  if (alignment < 1 || alignment > 1 << 20 || !std::has_single_bit(static_cast<uint64_t>(alignment)))
    fail("general.alignment", std::to_string(alignment), "a power of two");
  const auto step = static_cast<uint64_t>(alignment);
  data_start_ = (cursor.position() + step - 1) / step * step;
  check_layout(path, tensors_, step, file_.size() > data_start_ ? file_.size() - data_start_ : 0);
  for (size_t i = 0; i < tensors_.size(); ++i)
    if (!index_.emplace(tensors_[i].name, i).second)
      damaged(path, "tensor " + in_quotes(tensors_[i].name) + " is given twice");
}

const GgufTensor* GgufFile::find_tensor(const std::string& name) const {
  const auto found = index_.find(name);
  return found == index_.end() ? nullptr : &tensors_[found->second];
}

std::span<const std::byte> GgufFile::bytes(const GgufTensor& tensor) const {
  return file_.bytes().subspan(data_start_ + tensor.begin, tensor.end - tensor.begin);
}

void GgufFile::fail(const std::string& key, const std::string& got, const std::string& expected,
                    const std::string& hint) const {
  throw Error(Exit::file, {.what = "key " + in_quotes(key) + " has a value that cannot be used",
                           .where = path().string(),
                           .got = got,
                           .expected = expected,
                           .hint = hint});
}

namespace {

/// The number whose shortest decimal is the float's.
double shortest(float value) {
  char text[32];
  const auto end = std::to_chars(text, text + sizeof text, value).ptr;
  double number = value;
  std::from_chars(text, end, number);
  return number;
}

/// A scalar of the metadata as a T; nothing where it is of another kind.
template <class T>
std::optional<T> scalar(const GgufValue& value) {
  return std::visit(
      [](const auto& stored) -> std::optional<T> {
        using Stored = std::decay_t<decltype(stored)>;
        if constexpr (std::is_same_v<Stored, bool> || !std::is_arithmetic_v<Stored>) {
          return std::nullopt;
        } else if constexpr (std::is_integral_v<T>) {
          if constexpr (std::is_integral_v<Stored>)
            if (std::in_range<T>(stored)) return static_cast<T>(stored);
          return std::nullopt;
        } else if constexpr (std::is_same_v<Stored, float>) {
          return shortest(stored);
        } else {
          return static_cast<T>(stored);
        }
      },
      value);
}

template <class T>
T required(const std::optional<T>& value, const GgufFile& file, const std::string& key) {
  if (value) return *value;
  throw Error(Exit::file, {.what = "key " + in_quotes(key) + " is missing", .where = file.path().string()});
}

}  // namespace

std::optional<int64_t> GgufFile::find_integer(const std::string& key) const {
  const auto found = metadata_.find(key);
  if (found == metadata_.end()) return std::nullopt;
  const auto value = scalar<int64_t>(found->second);
  if (!value) fail(key, "another kind of value", "an integer");
  return value;
}

std::optional<double> GgufFile::find_number(const std::string& key) const {
  const auto found = metadata_.find(key);
  if (found == metadata_.end()) return std::nullopt;
  const auto value = scalar<double>(found->second);
  if (!value) fail(key, "another kind of value", "a number");
  return value;
}

std::optional<bool> GgufFile::find_boolean(const std::string& key) const {
  const auto found = metadata_.find(key);
  if (found == metadata_.end()) return std::nullopt;
  if (const bool* value = std::get_if<bool>(&found->second)) return *value;
  fail(key, "another kind of value", "true or false");
}

std::optional<std::string> GgufFile::find_string(const std::string& key) const {
  const auto found = metadata_.find(key);
  if (found == metadata_.end()) return std::nullopt;
  if (const auto* value = std::get_if<std::string>(&found->second)) return *value;
  fail(key, "another kind of value", "a string");
}

template <class T>
const T* GgufFile::find_list(const std::string& key, const char* expected) const {
  const auto found = metadata_.find(key);
  if (found == metadata_.end()) return nullptr;
  if (const T* list = std::get_if<T>(&found->second)) return list;
  fail(key, "another kind of value", expected);
}

const std::vector<std::string>* GgufFile::find_strings(const std::string& key) const {
  return find_list<std::vector<std::string>>(key, "a list of strings");
}
const std::vector<float>* GgufFile::find_numbers(const std::string& key) const {
  return find_list<std::vector<float>>(key, "a list of floating-point numbers");
}
const std::vector<int32_t>* GgufFile::find_integers(const std::string& key) const {
  return find_list<std::vector<int32_t>>(key, "a list of 32-bit integers");
}

int64_t GgufFile::integer(const std::string& key) const { return required(find_integer(key), *this, key); }
double GgufFile::number(const std::string& key) const { return required(find_number(key), *this, key); }
std::string GgufFile::string(const std::string& key) const { return required(find_string(key), *this, key); }

std::vector<int64_t> gguf_end_ids(const GgufFile& file) {
  std::vector<int64_t> ids;
  for (const char* name : {"eos", "eot", "eom"}) {
    const auto id = file.find_integer(std::string("tokenizer.ggml.") + name + "_token_id");
    if (id && (*id < 0 || *id > std::numeric_limits<int32_t>::max()))
      file.fail(std::string("tokenizer.ggml.") + name + "_token_id", std::to_string(*id), "an id of the vocabulary");
    if (id && std::ranges::find(ids, *id) == ids.end()) ids.push_back(*id);
  }
  return ids;
}

}  // namespace llmtk::io
