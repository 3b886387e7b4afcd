#include "quantize_gguf.h"

#include "gguf_target.h"

namespace llmtk {

nlohmann::ordered_json quantize_to_gguf(const QuantizeConfig& config, const QuantizeSource& source) {
  const auto written = write_gguf(*source.load(), {.source = source.path,
                                                   .target = config.output_dir,
                                                   .type = parse_gguf_type(config.scheme, c10::kFloat),
                                                   .tokenizer = source.tokenizer.get()});
  return {{"output", config.output_dir}, {"scheme", config.scheme}, {"method", config.method}, {"gguf", written}};
}

}  // namespace llmtk
