#include <vector>

#include "core/log.h"
#include "fuzz.h"
#include "io/gguf.h"
#include "models/gguf_config.h"
#include "text/gguf_read.h"

using namespace llmtk;

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  log::set_level(log::Level::error);  // some warn of what they lack
  test::read_or_refuse([&] {
    const test::MemoryFile memory({reinterpret_cast<const char*>(data), size});
    const io::GgufFile file(memory.path());
    std::vector<float> numbers;
    for (const io::GgufTensor& tensor : file.tensors()) {
      numbers.resize(static_cast<size_t>(tensor.count()));
      io::dequantize(tensor.type, file.bytes(tensor), numbers);
    }
    test::read_or_refuse([&] { models::gguf_config(file).dump(); });
    test::read_or_refuse([&] { text::gguf_chat_templates(file); });
    const auto tokenizer = text::read_gguf_tokenizer(file);
    std::vector<text::TokenId> ids;
    tokenizer->encode("Hello, 世界 <s> 12", ids, true);
    tokenizer->decode(ids, false);
  });
  return 0;
}
