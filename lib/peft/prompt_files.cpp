#include "peft/prompt_files.h"

#include <ATen/core/grad_mode.h>

#include "core/error.h"
#include "nn/seq2seq_model.h"
#include "peft/head.h"
#include "peft/modules.h"
#include "peft/prefix.h"
#include "peft/prompt.h"

namespace llmtk::peft {
namespace {

constexpr const char* kPrefix = "PREFIX_TUNING";
constexpr const char* kPrompt = "PROMPT_TUNING";
constexpr const char* kTable = "prompt_embeddings";
constexpr const char* kHeadPrefix = "base_model.";  // not base_model.model.: nothing is wrapped

int64_t submodules(const nn::Model& model) { return dynamic_cast<const nn::Seq2SeqModel*>(&model) ? 2 : 1; }

void write_shape(io::Json& config, const nn::Model& model, int64_t virtual_tokens, int64_t width) {
  const nn::KeyValueShape shape = model.key_value_shape();
  config["num_virtual_tokens"] = virtual_tokens;
  config["token_dim"] = width;
  config["num_transformer_submodules"] = submodules(model);
  config["num_attention_heads"] = shape.heads;
  config["num_layers"] = shape.layers;
}

io::Json prefix_config(const nn::Model& model, const PrefixTuning& prefix, const std::string& base) {
  const nn::KeyValueShape& shape = prefix.shape();
  const int64_t width = shape.heads * shape.head_dim;
  io::Json config = common_config(model, kPrefix, base);
  write_shape(config, model, prefix.length(), width);
  config["prefix_projection"] = prefix.config().prefix_projection;
  config["encoder_hidden_size"] = prefix.config().encoder_hidden_size.value_or(width);
  config["init_weights"] = nullptr;
  return config;
}

io::Json prompt_config(const nn::Model& model, const PromptTuning& prompt, const std::string& base) {
  const PromptTuningConfig& c = prompt.config();
  const bool text = c.prompt_tuning_init == "TEXT";
  io::Json config = common_config(model, kPrompt, base);
  write_shape(config, model, prompt.length(), prompt.table().size(1));
  config["prompt_tuning_init"] = c.prompt_tuning_init;
  config["prompt_tuning_init_text"] = text ? io::Json(c.prompt_tuning_init_text) : io::Json();
  config["tokenizer_name_or_path"] = text ? io::Json(base) : io::Json();
  config["tokenizer_kwargs"] = nullptr;
  return config;
}

/// The sizes that must be the model's own.
void check_shape(io::ObjectReader& config, const nn::Model& model, int64_t width) {
  const nn::KeyValueShape shape = model.key_value_shape();
  const auto same = [&](const char* key, int64_t own) {
    if (config.integer(key) != own) config.fail(key, std::to_string(own) + ", as the model has it");
  };
  same("token_dim", width);
  same("num_layers", shape.layers);
  same("num_transformer_submodules", submodules(model));
}

/// num_virtual_tokens, which must be the table's rows (of each submodule): no memory is taken for more.
int64_t read_virtual_tokens(io::ObjectReader& config, const at::Tensor& table, int64_t tables) {
  const int64_t virtual_tokens = config.integer("num_virtual_tokens");
  if (table.dim() != 2 || table.size(0) != tables * virtual_tokens)
    config.fail("num_virtual_tokens", "as many as the rows of prompt_embeddings, " + detail::concat(table.sizes()));
  return virtual_tokens;
}

std::shared_ptr<PrefixTuning> read_prefix(nn::Model& model, io::ObjectReader& config, const at::Tensor& table) {
  const nn::KeyValueShape shape = model.key_value_shape();
  check_shape(config, model, shape.heads * shape.head_dim);
  if (config.integer("num_attention_heads") != shape.heads)
    config.fail("num_attention_heads", std::to_string(shape.heads) + ", the model's key-value heads");
  config.ignore({"prefix_projection", "encoder_hidden_size", "init_weights"});  // the table is what they made
  const PrefixTuningConfig read{.num_virtual_tokens = read_virtual_tokens(config, table, 1)};
  return std::make_shared<PrefixTuning>(model, read);
}

std::shared_ptr<PromptTuning> read_prompt(nn::Model& model, io::ObjectReader& config, const at::Tensor& table) {
  const PromptTuningConfig read{.num_virtual_tokens = read_virtual_tokens(config, table, submodules(model))};
  const auto prompt = std::make_shared<PromptTuning>(model, read);
  check_shape(config, model, prompt->table().size(1));
  // How the table began and what attention looks like change nothing.
  config.ignore({"num_attention_heads", "prompt_tuning_init", "prompt_tuning_init_text", "tokenizer_name_or_path",
                 "tokenizer_kwargs"});
  return prompt;
}

}  // namespace

void save_virtual_tokens(nn::Model& model, const std::filesystem::path& folder, const std::string& base) {
  const at::NoGradGuard no_grad;
  auto* prefix = dynamic_cast<PrefixTuning*>(model.virtual_tokens().get());
  auto* prompt = dynamic_cast<PromptTuning*>(model.virtual_tokens().get());
  LLMTK_CHECK(prefix || prompt, "the model has no virtual tokens");
  io::NamedTensors tensors = head_tensors(model, kHeadPrefix);
  tensors.emplace_back(kTable, prefix ? prefix->table() : prompt->table().detach());
  write_adapter_folder(folder, prefix ? prefix_config(model, *prefix, base) : prompt_config(model, *prompt, base),
                       std::move(tensors));
}

void load_virtual_tokens(nn::Model& model, const std::filesystem::path& folder) {
  AdapterFolder files = read_adapter_folder(folder);
  const std::string where = (folder / kConfigFile).string(), tensors = (folder / kTensorsFile).string();
  io::ObjectReader config(files.config, where);
  const bool is_prefix = peft_type(files.config, where) == kPrefix;
  read_common_config(model, config, is_prefix ? kPrefix : kPrompt);
  const at::Tensor table = take_tensor(files.tensors, kTable, tensors);
  std::shared_ptr<nn::VirtualTokens> made;
  if (is_prefix)
    made = read_prefix(model, config, table);
  else
    made = read_prompt(model, config, table);
  for (const std::string& key : config.unread()) config.fail(key, "nothing: this setting is not known here");
  at::Tensor parameter = made->parameters().front();
  assign(parameter, table, kTable, tensors);
  take_head(model, kHeadPrefix, files.tensors, tensors);
  refuse_left(files.tensors, tensors);
  freeze(model);
  for (at::Tensor own : made->parameters()) own.requires_grad_(false);
  model.set_virtual_tokens(made);
}

}  // namespace llmtk::peft
