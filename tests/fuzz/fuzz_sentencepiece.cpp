#include "fuzz.h"
#include "text/sentencepiece.h"

using namespace llmtk;

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  test::read_or_refuse([&] {
    const test::MemoryFile memory({reinterpret_cast<const char*>(data), size});
    const auto tokenizer = text::read_sentencepiece(memory.path());
    std::vector<text::TokenId> ids;
    for (const char* text : {"", "Hello, 世界 <s> 12\n", " ab  abc\tÄé"}) tokenizer->encode(text, ids, true);
    tokenizer->decode(ids, false);
  });
  return 0;
}
