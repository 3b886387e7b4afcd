#include "train/tensorboard.h"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstring>

#include "core/error.h"

namespace llmtk::train {
namespace {

// The wire format of protobuf: a key of field number and type, then the value.

void put_varint(std::string& out, uint64_t value) {
  for (; value >= 0x80; value >>= 7) out += static_cast<char>(value | 0x80);
  out += static_cast<char>(value);
}

void put_key(std::string& out, int field, int wire_type) { put_varint(out, static_cast<uint64_t>(field << 3 | wire_type)); }

template <class T>
void put_fixed(std::string& out, int field, T value) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8);
  put_key(out, field, sizeof(T) == 8 ? 1 : 5);
  out.append(reinterpret_cast<const char*>(&value), sizeof value);  // little-endian, as every processor aimed at
}

void put_integer(std::string& out, int field, int64_t value) {
  put_key(out, field, 0);
  put_varint(out, static_cast<uint64_t>(value));
}

void put_bytes(std::string& out, int field, std::string_view bytes) {
  put_key(out, field, 2);
  put_varint(out, bytes.size());
  out += bytes;
}

std::string event_head(double unix_seconds, int64_t step) {
  std::string event;
  put_fixed(event, 1, unix_seconds);
  put_integer(event, 2, step);
  return event;
}

std::string event_with(double unix_seconds, int64_t step, const std::string& value) {
  std::string summary, event = event_head(unix_seconds, step);
  put_bytes(summary, 1, value);
  put_bytes(event, 5, summary);
  return event;
}

uint32_t masked(uint32_t crc) { return ((crc >> 15) | (crc << 17)) + 0xA282EAD8u; }

double now() { return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count(); }

}  // namespace

uint32_t crc32c(std::string_view bytes) {
  static const auto table = [] {
    std::array<uint32_t, 256> made{};
    for (uint32_t i = 0; i < 256; ++i) {
      uint32_t crc = i;
      for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ (crc & 1 ? 0x82F63B78u : 0);
      made[i] = crc;
    }
    return made;
  }();
  uint32_t crc = 0xFFFFFFFFu;
  for (const char c : bytes) crc = (crc >> 8) ^ table[(crc ^ static_cast<unsigned char>(c)) & 0xFF];
  return ~crc;
}

EventFile::EventFile(const std::filesystem::path& folder) {
  char host[256] = "localhost";
  ::gethostname(host, sizeof host - 1);
  path_ = folder / ("events.out.tfevents." + std::to_string(static_cast<int64_t>(now())) + "." + host + "." +
                    std::to_string(::getpid()) + kEventFileEnd);
  fd_ = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0644);
  if (fd_ < 0)
    throw Error(Exit::file, {.what = std::string("cannot write: ") + std::strerror(errno), .where = path_.string()});
  std::string first;
  put_fixed(first, 1, now());
  put_bytes(first, 3, "brain.Event:2");
  write(first);
}

EventFile::~EventFile() {
  if (fd_ >= 0) ::close(fd_);
}

void EventFile::scalar(const std::string& tag, int64_t step, double value, double unix_seconds) {
  std::string entry;
  put_bytes(entry, 1, tag);
  put_fixed(entry, 2, static_cast<float>(value));
  write(event_with(unix_seconds, step, entry));
}

void EventFile::text(const std::string& tag, int64_t step, std::string_view markdown, double unix_seconds) {
  std::string plugin, metadata, dimension, shape, tensor, entry;
  put_bytes(plugin, 1, "text");
  put_bytes(metadata, 1, plugin);
  put_integer(dimension, 1, 1);
  put_bytes(shape, 2, dimension);
  put_integer(tensor, 1, 7);  // DT_STRING
  put_bytes(tensor, 2, shape);
  put_bytes(tensor, 8, markdown);
  put_bytes(entry, 1, tag);
  put_bytes(entry, 8, tensor);
  put_bytes(entry, 9, metadata);
  write(event_with(unix_seconds, step, entry));
}

void EventFile::write(const std::string& event) {
  const uint64_t size = event.size();
  std::string frame(reinterpret_cast<const char*>(&size), 8);
  const auto put_crc = [&](std::string_view bytes) {
    const uint32_t crc = masked(crc32c(bytes));
    frame.append(reinterpret_cast<const char*>(&crc), 4);
  };
  put_crc(std::string_view(frame).substr(0, 8));
  frame += event;
  put_crc(event);
  for (size_t done = 0; done < frame.size();) {
    const ssize_t n = ::write(fd_, frame.data() + done, frame.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0)
      throw Error(Exit::file, {.what = std::string("cannot write: ") + std::strerror(errno), .where = path_.string()});
    done += static_cast<size_t>(n);
  }
}

}  // namespace llmtk::train
