#include "core/log.h"
#include "fuzz.h"
#include "io/gguf.h"
#include "text/gguf_read.h"

using namespace llmtk;

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  log::set_level(log::Level::error);  // some warn of what they lack
  test::read_or_refuse([&] {
    const test::MemoryFile memory({reinterpret_cast<const char*>(data), size});
    const io::GgufFile file(memory.path());
    size_t sum = 0;
    for (const io::GgufTensor& tensor : file.tensors())
      for (const std::byte byte : file.bytes(tensor)) sum += static_cast<size_t>(byte);  // touches what is mapped
    if (sum == SIZE_MAX) std::abort();                                                   // never: keeps the loop
    text::gguf_chat_template(file);
    const auto tokenizer = text::read_gguf_tokenizer(file);
    std::vector<text::TokenId> ids;
    tokenizer->encode("Hello, 世界 <s> 12", ids, true);
    tokenizer->decode(ids, false);
  });
  return 0;
}
