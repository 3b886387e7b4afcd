#pragma once
// Protocol buffers' wire format, read by hand: sentencepiece's models are written in it.
// https://protobuf.dev/programming-guides/encoding

#include <cstdint>
#include <limits>
#include <string_view>

namespace llmtk::text {

/// A number, or the bytes of a string, a message or a float.
struct ProtoField {
  uint64_t id = 0, number = 0;
  std::string_view bytes;
};

inline uint64_t take_varint(std::string_view& message) {
  uint64_t value = 0;
  for (int shift = 0; shift < 64 && !message.empty(); shift += 7) {
    const auto byte = static_cast<unsigned char>(message.front());
    message.remove_prefix(1);
    value |= uint64_t{byte & 0x7Fu} << shift;
    if (byte < 0x80) break;
  }
  return value;
}

/// Calls visit(field) for the fields of a message. False: it is none from somewhere on, or it has groups, which nobody
/// writes any more.
template <class Visit>
bool for_each_field(std::string_view message, Visit&& visit) {
  while (!message.empty()) {
    const uint64_t key = take_varint(message), kind = key & 7;
    ProtoField field{.id = key >> 3};
    if (field.id == 0 || key > std::numeric_limits<uint32_t>::max()) return false;
    if (kind == 0) {
      field.number = take_varint(message);
    } else if (kind == 1 || kind == 2 || kind == 5) {
      const uint64_t size = kind == 1 ? 8 : kind == 5 ? 4 : take_varint(message);
      if (size > message.size()) return false;
      field.bytes = message.substr(0, size);
      message.remove_prefix(size);
    } else {
      return false;
    }
    visit(field);
  }
  return true;
}

}  // namespace llmtk::text
