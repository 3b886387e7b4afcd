#pragma once
// Rows in a folder of their own, and how fine-tuning opens them: what its tests begin with.

#include <string>

#include "data/finetuning.h"
#include "support.h"

namespace llmtk::test {

struct RowsOnDisk {
  TemporaryFolder folder;
  ByteTokenizer bytes{0, true, true};
  data::FinetuneDataConfig config;
  data::FinetuneContext context;

  explicit RowsOnDisk(data::Objective objective) {
    context.objective = objective;
    context.tokenizer = &bytes;
    context.tokenizer_path = folder.path().string();
    context.loader = {.batch_size = 2, .eval_batch_size = 2, .epochs = 1, .seed = 1, .vocab_size = 258};
    config.shuffle = false;
    config.preprocessing_num_workers = 2;
  }
  std::string write(const std::string& name, const std::string& text) {
    write_file_atomic(folder / name, text);
    return (folder / name).string();
  }
};

}  // namespace llmtk::test
