#include "generate_fill_mask.h"

#include <ATen/ops/softmax.h>
#include <ATen/ops/topk.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <iostream>
#include <nlohmann/json.hpp>
#include <set>

#include "core/error.h"
#include "core/utf8.h"
#include "inspect/table.h"
#include "io/model_folder.h"
#include "open_encoder.h"

namespace llmtk {
namespace {

using FillJson = nlohmann::ordered_json;

struct MaskedPrompt {
  std::vector<text::TokenId> ids;
  std::vector<int64_t> masks;  ///< places in ids
};

MaskedPrompt masked_prompt(const OpenEncoder& open, const Prompt& prompt) {
  MaskedPrompt masked{.ids = encode_text(*open.tokenizer, prompt.text, /*add_special_tokens=*/true, prompt.where)};
  check_ids(*open.model, masked.ids, prompt.where);
  const text::TokenId mask = open.tokenizer->special_tokens().mask;
  for (size_t i = 0; i < masked.ids.size(); ++i)
    if (masked.ids[i] == mask) masked.masks.push_back(static_cast<int64_t>(i));
  if (masked.masks.empty())
    throw Error(Exit::data, {.what = "no mask in the text",
                             .where = prompt.where,
                             .expected = open.tokenizer->id_to_token(mask) + " where a word is to be found"});
  if (static_cast<int64_t>(masked.ids.size()) > open.model->max_positions())
    throw Error(Exit::data, {.what = "the text is longer than the model can see",
                             .where = prompt.where,
                             .got = std::to_string(masked.ids.size()) + " tokens",
                             .expected = "at most " + std::to_string(open.model->max_positions())});
  return masked;
}

/// hidden: [T, H]. A list for each mask.
FillJson candidates(const OpenEncoder& open, const MaskedPrompt& prompt, const at::Tensor& hidden, int64_t top_k) {
  FillJson masks = FillJson::array();
  // As the pipeline has it: other masks stay visible.
  const bool single = prompt.masks.size() == 1;
  for (const int64_t place : prompt.masks) {
    const at::Tensor scores = open.model->logits(hidden[place]).softmax(-1, at::kFloat).cpu();  // [V]
    const auto [best, tokens] = scores.topk(std::min(top_k, scores.size(0)));
    FillJson list = FillJson::array();
    for (int64_t i = 0; i < best.size(0); ++i) {
      const auto token = static_cast<text::TokenId>(tokens[i].item<int64_t>());
      auto filled = prompt.ids;
      filled[static_cast<size_t>(place)] = token;
      std::erase(filled, open.tokenizer->special_tokens().pad);
      list.push_back({{"score", best[i].item<float>()},
                      {"token", token},
                      {"token_str", open.tokenizer->decode(std::span(&token, 1))},
                      {"sequence", open.tokenizer->decode(filled, /*skip_special_tokens=*/single)}});
    }
    masks.push_back({{"position", place}, {"candidates", std::move(list)}});
  }
  return masks;
}

void print_table(const Prompt& prompt, const FillJson& masks, bool titled) {
  if (titled) std::cout << one_line(prompt.text) << '\n';
  for (const auto& mask : masks) {
    Table table({"rank", "score", "token", "text"}, {0, 1});
    const auto& list = mask["candidates"];
    for (size_t i = 0; i < list.size(); ++i)
      table.add({std::to_string(i + 1), fixed(100 * list[i]["score"].get<double>(), 3) + "%",
                 one_line(list[i]["token_str"].get<std::string>()), one_line(list[i]["sequence"].get<std::string>())});
    table.print();
    std::cout << '\n';
  }
}

}  // namespace

void refuse_flags_beside_fill_mask(const CLI::App& app) {
  static const std::set<std::string> kUsed = {"--fill-mask",  "--prompt",  "--prompts-file", "--top-k",
                                              "--batch-size", "--model",   "--tokenizer",    "--device",
                                              "--dtype",      "--threads", "--json",         "--log-level"};
  for (const CLI::Option* option : app.get_options()) {
    const std::string name = option->get_name();
    if (option->count() > 0 && name.starts_with("--") && !kUsed.contains(name))
      throw Error(Exit::usage, {.what = name + " has no effect with --fill-mask", .hint = "leave it out"});
  }
}

int fill_masks(const FillMaskOptions& options, const std::vector<Prompt>& prompts) {
  if (options.top_k < 1)
    throw Error(Exit::usage, {.what = "--top-k is out of range",
                              .got = std::to_string(options.top_k),
                              .expected = "at least 1 with --fill-mask"});
  const auto folder = io::find_model(options.model.model);
  const OpenEncoder open = open_encoder(options.model, folder, std::nullopt);
  if (open.model->head() != nn::Head::masked_lm)
    throw Error(Exit::usage, {.what = "the model is not trained to fill masks",
                              .where = (folder / "config.json").string(),
                              .got = open.model->config()["architectures"].dump(),
                              .expected = "a masked language model, such as BertForMaskedLM"});
  if (open.tokenizer->special_tokens().mask < 0)
    throw Error(Exit::file, {.what = "the tokenizer has no mask token", .where = folder.string()});
  std::vector<MaskedPrompt> masked;
  for (const Prompt& prompt : prompts) masked.push_back(masked_prompt(open, prompt));

  const c10::NoGradGuard no_gradients;
  const auto step = static_cast<size_t>(options.batch_size);
  for (size_t first = 0; first < prompts.size(); first += step) {
    std::vector<const std::vector<text::TokenId>*> rows;
    for (size_t i = first; i < std::min(first + step, prompts.size()); ++i) rows.push_back(&masked[i].ids);
    const EncoderBatch batch = encoder_batch(rows, *open.model, *open.tokenizer);
    const at::Tensor hidden = open.model->forward(batch.input_ids, {.attention_mask = batch.attention_mask});
    for (size_t row = 0; row < rows.size(); ++row) {
      const size_t i = first + row;
      FillJson masks = candidates(open, masked[i], hidden[static_cast<int64_t>(row)], options.top_k);
      if (options.json)
        std::cout << FillJson{{"prompt_index", i}, {"prompt", prompts[i].text}, {"masks", std::move(masks)}}.dump(
                         -1, ' ', false, FillJson::error_handler_t::replace)
                  << std::endl;
      else
        print_table(prompts[i], masks, prompts.size() > 1);
    }
  }
  return 0;
}

}  // namespace llmtk
