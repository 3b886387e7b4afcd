#include "open_model.h"

#include <future>

#include "core/allocator.h"
#include "core/device.h"
#include "core/error.h"
#include "core/runtime.h"
#include "core/utf8.h"
#include "io/model_folder.h"
#include "models/registry.h"
#include "quant/folder.h"

namespace llmtk {

void add_model_options(CLI::App& app, ModelOptions& options) {
  app.add_option("model,--model", options.model, "Model folder, GGUF file, or a name in the local Hugging Face cache")
      ->required();
  app.add_option("--tokenizer", options.tokenizer, "Folder or file of the tokenizer, where it is not the model's own");
  app.add_option("--device", options.device, "auto (a GPU where there is one), cpu, cuda or cuda:N")
      ->capture_default_str();
  app.add_option("--dtype", options.dtype, "auto (as stored), float32, bfloat16 or float16")->capture_default_str();
  app.add_option("--threads", options.threads, "Compute threads on the CPU; 0: as many as the process may use")
      ->check(CLI::Range(0, 4096))
      ->capture_default_str();
  app.add_option("--adapter", options.adapters,
                 "Folder of an adapter, as PEFT or AdapterHub saves it; of LoRA also FOLDER=WEIGHT, or several times: what "
                 "they add is summed")
      ->allow_extra_args(false);
}

std::unique_ptr<text::Tokenizer> open_tokenizer(const ModelOptions& options,
                                                const std::filesystem::path& model_folder) {
  return text::load_tokenizer(options.tokenizer.empty() ? model_folder : std::filesystem::path(options.tokenizer));
}

OpenModel open_model(const ModelOptions& options) {
  models::LoadOptions load{.map = true, .storages = quant::open_storages};
  if (options.dtype != "auto") load.dtype = parse_dtype(options.dtype);
  OpenModel open{.folder = io::find_model(options.model)};
  setup_runtime(options.threads);
  load.device = resolve_device(options.device);
  expect_adapters(load, open.folder, options.adapters);
  auto tokenizer = std::async(std::launch::async, [&] { return open_tokenizer(options, open.folder); });
  open.model = models::load_model(open.folder.string(), load);
  open.adapters = AdapterSwitch(*open.model, options.adapters);
  open.tokenizer = tokenizer.get();
  release_cached();  // what parsing took, several times what it left
  return open;
}

std::vector<text::TokenId> encode_text(const text::Tokenizer& tokenizer, const std::string& text,
                                       bool add_special_tokens, const std::string& where) {
  if (const size_t at = find_invalid_utf8(text); at != std::string_view::npos)
    throw Error(Exit::data, {.what = "the text is not UTF-8",
                             .where = where,
                             .got = "an invalid byte at offset " + std::to_string(at),
                             .hint = "convert it, for example with `iconv -f GB18030 -t UTF-8`"});
  std::vector<text::TokenId> ids;
  tokenizer.encode(text, ids, add_special_tokens);
  return ids;
}

}  // namespace llmtk
