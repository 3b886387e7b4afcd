// llmtk inspect logits: what the model holds for probable after a text, or at every place in it.

#include <ATen/ops/log_softmax.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/topk.h>
#include <c10/core/GradMode.h>

#include <cmath>
#include <iostream>

#include "core/error.h"
#include "generate/config.h"
#include "inspect/inspect.h"
#include "inspect/labels.h"
#include "inspect/prompt.h"
#include "inspect/table.h"

namespace llmtk {
namespace {

struct LogitsOptions {
  PromptOptions prompt;
  int64_t top_k = 10;
  bool all_positions = false;
};

/// The k most probable tokens after one place. logits, logprobs: [V], float32.
Json candidates(const at::Tensor& logits, const at::Tensor& logprobs, int64_t k, const text::Tokenizer& tokenizer) {
  const auto [best, ids] = logits.topk(std::min(k, logits.size(0)));
  Json list = Json::array();
  for (int64_t i = 0; i < ids.size(0); ++i) {
    const auto id = static_cast<text::TokenId>(ids[i].item<int64_t>());
    list.push_back({{"id", id},
                    {"token", tokenizer.id_to_token(id)},
                    {"label", token_labels(tokenizer, std::span(&id, 1))[0]},
                    {"logit", best[i].item<float>()},
                    {"logprob", logprobs[id].item<float>()}});
  }
  return list;
}

void print_next(const Json& list) {
  Table table({"rank", "id", "token", "probability", "logprob", "logit"}, {0, 1, 3, 4, 5});
  for (size_t i = 0; i < list.size(); ++i)
    table.add({std::to_string(i + 1), list[i]["id"].dump(), list[i]["label"],
               fixed(100 * std::exp(list[i]["logprob"].get<double>()), 3) + "%", fixed(list[i]["logprob"], 4),
               fixed(list[i]["logit"], 4)});
  table.print();
}

void print_positions(const Json& positions) {
  Table table({"position", "id", "token", "logprob", "rank", "most probable next", "probability"}, {0, 1, 3, 4, 6});
  for (const auto& p : positions) {
    const auto& best = p["next"][0];
    table.add({p["position"].dump(), p["id"].dump(), p["label"], p["logprob"].is_null() ? "" : fixed(p["logprob"], 4),
               p["rank"].is_null() ? "" : p["rank"].dump(), best["label"],
               fixed(100 * std::exp(best["logprob"].get<double>()), 3) + "%"});
  }
  table.print();
}

int run(const LogitsOptions& options, bool json) {
  const OpenModel open = open_model(options.prompt.model);
  const auto ids = prompt_ids(open, options.prompt);
  const c10::NoGradGuard no_gradients;
  const auto T = static_cast<int64_t>(ids.size());
  const auto hidden = open.model->forward(input_tensor(ids, open.model->device()));  // [1, T, H]
  const int64_t first = options.all_positions ? 0 : T - 1;
  const auto logits = open.model->logits(hidden[0].slice(0, first)).to(at::kFloat).cpu();  // [T - first, V]
  const auto logprobs = at::log_softmax(logits, -1);
  const auto labels = token_labels(*open.tokenizer, ids);

  Json positions = Json::array();
  for (int64_t t = first; t < T; ++t) {
    Json position = {
        {"position", t}, {"id", ids[t]}, {"token", open.tokenizer->id_to_token(ids[t])}, {"label", labels[t]}};
    if (options.all_positions) {
      // How probable this token was after what stands before it.
      position["logprob"] = t == 0 ? Json() : Json(logprobs[t - 1][ids[t]].item<float>());
      position["rank"] = t == 0 ? Json() : Json(1 + logits[t - 1].gt(logits[t - 1][ids[t]]).sum().item<int64_t>());
    }
    position["next"] = candidates(logits[t - first], logprobs[t - first], options.top_k, *open.tokenizer);
    positions.push_back(std::move(position));
  }
  if (json)
    print_json({{"prompt", options.prompt.text}, {"ids", ids}, {"positions", std::move(positions)}});
  else if (options.all_positions)
    print_positions(positions);
  else
    print_next(positions[0]["next"]);
  return 0;
}

}  // namespace

void add_logits_command(CLI::App& app, InspectContext& context) {
  auto options = std::make_shared<LogitsOptions>();
  auto* command = app.add_subcommand("logits", "The most probable next tokens");
  add_prompt_options(*command, options->prompt);
  command->add_option("-k,--top-k", options->top_k, "How many")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 30))
      ->capture_default_str();
  command->add_flag("--all-positions", options->all_positions,
                    "At every token of the text: how probable it was, and what the model expected after it");
  command->footer(
      "Examples:\n  llmtk inspect logits gpt2 --prompt \"The capital of France is\" --top-k 5\n"
      "  llmtk inspect logits runs/poems --prompt 床前明月光 --all-positions");
  command->callback(
      [&context, options] { context.run = [&context, options] { return run(*options, context.common.json); }; });
}

}  // namespace llmtk
