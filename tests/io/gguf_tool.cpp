// For gguf_parity.py: gguf_tool decode FILE writes every tensor's numbers as raw float32 to stdout, in the order of the
// file; gguf_tool encode TYPE reads raw float32 from stdin and writes
// their blocks of Q8_0, Q4_0 or Q4_1.

#include <cstring>
#include <iostream>
#include <iterator>

#include "core/error.h"
#include "io/gguf.h"

using namespace llmtk;

namespace {

void put(std::span<const std::byte> bytes) {
  std::cout.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
}

void decode(const char* path) {
  const io::GgufFile file(path);
  for (const auto& tensor : file.tensors()) {
    std::vector<float> numbers(static_cast<size_t>(tensor.count()));
    io::dequantize(tensor.type, file.bytes(tensor), numbers);
    put(std::as_bytes(std::span(numbers)));
  }
}

void encode(std::string_view name) {
  auto type = io::GgufType::f32;
  for (const auto one : {io::GgufType::q8_0, io::GgufType::q4_0, io::GgufType::q4_1})
    if (io::gguf_type_name(one) == name) type = one;
  const std::string bytes(std::istreambuf_iterator<char>(std::cin), {});
  std::vector<float> numbers(bytes.size() / sizeof(float));
  std::memcpy(numbers.data(), bytes.data(), bytes.size());
  std::vector<std::byte> blocks(numbers.size() / 32 * io::block_bytes(type));
  io::quantize(type, numbers, blocks);
  put(blocks);
}

}  // namespace

int main(int argc, char** argv) {
  try {
    if (argc == 3 && std::string_view(argv[1]) == "decode")
      decode(argv[2]);
    else
      encode(argv[argc - 1]);
    return 0;
  } catch (const std::exception& error) {
    std::cerr << error.what() << std::endl;
    return 1;
  }
}
