#include "open_model.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <future>

#include "core/device.h"
#include "core/error.h"
#include "core/runtime.h"
#include "core/utf8.h"
#include "io/model_folder.h"
#include "models/registry.h"
#include "peft/adapter.h"
#include "peft/adapter_folder.h"
#include "peft/methods.h"

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

namespace {

peft::AdapterSource parse_adapter(const std::string& spec) {
  const size_t equals = spec.rfind('=');
  if (equals == std::string::npos || std::filesystem::exists(spec)) return {.folder = spec};
  peft::AdapterSource source{.folder = spec.substr(0, equals)};
  const char *begin = spec.data() + equals + 1, *end = spec.data() + spec.size();
  const auto [stop, error] = std::from_chars(begin, end, source.weight);
  if (error != std::errc() || stop != end || !std::isfinite(source.weight))
    throw Error(Exit::usage, {.what = "an adapter's weight is no number",
                              .where = "--adapter",
                              .got = "'" + spec + "'",
                              .expected = "FOLDER or FOLDER=WEIGHT"});
  return source;
}

}  // namespace

std::filesystem::path adapter_folder(const std::string& spec) { return parse_adapter(spec).folder; }

void expect_adapters(models::LoadOptions& load, const std::filesystem::path& base,
                     const std::vector<std::string>& specs) {
  for (const std::string& spec : specs) {
    const peft::AdapterTask task = peft::read_task(adapter_folder(spec));
    if (task.num_labels == 0 || load.head) continue;
    if (task.task_type == "SEQ_CLS") load.head = nn::Head::sequence_classification;
    if (task.task_type == "TOKEN_CLS") load.head = nn::Head::token_classification;
    if (!load.head) continue;
    io::Json labels = task.id2label;
    if (labels.is_null()) labels = io::read_model_config(base).value("id2label", io::Json());
    if (!labels.is_object() || labels.size() != static_cast<size_t>(task.num_labels)) {
      labels = io::Json::object();
      for (int64_t i = 0; i < task.num_labels; ++i) labels[std::to_string(i)] = "LABEL_" + std::to_string(i);
    }
    load.overrides["id2label"] = labels;
    load.overrides["num_labels"] = task.num_labels;
    if (!task.pad_token_id.is_null()) load.overrides["pad_token_id"] = task.pad_token_id;
  }
}

void add_adapters(nn::Model& model, const std::vector<std::string>& specs) {
  std::vector<peft::AdapterSource> sources;
  for (const std::string& spec : specs) {
    sources.push_back(parse_adapter(spec));
    if (!peft::is_method_folder(sources.back().folder)) continue;
    if (specs.size() > 1 || sources.back().weight != 1)
      throw Error(Exit::usage, {.what = "an adapter that is not LoRA's has neither a weight nor others beside it",
                                .where = "--adapter",
                                .got = specs.size() > 1 ? std::to_string(specs.size()) + " adapters" : spec,
                                .expected = sources.back().folder.string() + " alone"});
    return peft::load_method(model, sources.back().folder);
  }
  peft::load_adapters(model, sources);
}

std::unique_ptr<text::Tokenizer> open_tokenizer(const ModelOptions& options,
                                                const std::filesystem::path& model_folder) {
  return text::load_tokenizer(options.tokenizer.empty() ? model_folder : std::filesystem::path(options.tokenizer));
}

OpenModel open_model(const ModelOptions& options) {
  models::LoadOptions load{.map = true};
  if (options.dtype != "auto") load.dtype = parse_dtype(options.dtype);
  OpenModel open{.folder = io::find_model(options.model)};
  setup_runtime(options.threads);
  load.device = resolve_device(options.device);
  expect_adapters(load, open.folder, options.adapters);
  auto tokenizer = std::async(std::launch::async, [&] { return open_tokenizer(options, open.folder); });
  open.model = models::load_model(open.folder.string(), load);
  add_adapters(*open.model, options.adapters);
  open.tokenizer = tokenizer.get();
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
