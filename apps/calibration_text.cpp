#include "calibration_text.h"

#include <algorithm>

#include "core/error.h"
#include "data/files.h"
#include "data/reader.h"

namespace llmtk {

CalibrationText read_calibration(const CalibrationConfig& config, const text::Tokenizer& tokenizer, int64_t held_out) {
  data::BlockReader reader(data::find_text_files(config.files), {});
  const auto asked = static_cast<size_t>(config.num_samples * config.max_length);
  const size_t wanted = asked + static_cast<size_t>(held_out);
  std::vector<text::TokenId> ids;
  data::Block block;
  while (ids.size() < wanted && reader.next(block)) {
    const auto parsed = data::parse_block(block, reader.files()[block.begin.file], {});
    for (size_t i = 0; i < parsed.documents.size() && ids.size() < wanted; ++i)
      tokenizer.encode(parsed.documents[i].text, ids, /*add_special_tokens=*/!(i == 0 && parsed.continues));
  }
  if (ids.size() < asked)
    throw Error(Exit::data, {.what = "the calibration text is too short",
                             .where = config.files.front(),
                             .got = std::to_string(ids.size()) + " tokens, " +
                                    std::to_string(ids.size() / static_cast<size_t>(config.max_length)) +
                                    " pieces of " + std::to_string(config.max_length),
                             .expected = "calibration.num_samples, " + std::to_string(config.num_samples),
                             .hint = "give more text, or lower --num-samples or --max-length"});
  ids.resize(std::min(ids.size(), wanted));
  CalibrationText text;
  for (size_t begin = 0; begin < ids.size(); begin += static_cast<size_t>(config.max_length)) {
    const size_t end = std::min(ids.size(), begin + static_cast<size_t>(config.max_length));
    (begin < asked ? text.samples : text.held_out)
        .emplace_back(ids.begin() + static_cast<ptrdiff_t>(begin), ids.begin() + static_cast<ptrdiff_t>(end));
  }
  if (!text.held_out.empty() && text.held_out.back().size() < 2) text.held_out.pop_back();
  return text;
}

}  // namespace llmtk
