#include "fuzz.h"
#include "text/hf_tokenizer.h"

using namespace llmtk;

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  test::read_or_refuse([&] {
    const std::string json(reinterpret_cast<const char*>(data), size);
    const auto tokenizer = text::parse_tokenizer_json(json, "tokenizer.json", {});
    std::vector<text::TokenId> ids;
    for (const char* text : {"", "Hello, 世界 <s> 12\n", " the  quick\tÄé\xF0\x9F\x99\x82 it's"})
      tokenizer->encode(text, ids, true);
    tokenizer->decode(ids, false);
    tokenizer->decode(ids, true);
  });
  return 0;
}
