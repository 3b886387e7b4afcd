// llmtk inspect logits: what the model holds for probable after a text, or at every place in it; or what a head says of
// it.

#include <ATen/ops/log_softmax.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/topk.h>

#include <cmath>
#include <iostream>

#include "core/error.h"
#include "core/log.h"
#include "inspect/inspect.h"
#include "inspect/labels.h"
#include "inspect/passes.h"
#include "inspect/table.h"

namespace llmtk {
namespace {

struct LogitsOptions {
  InputOptions input;
  std::optional<int64_t> top_k;
  bool all_positions = false, full = false;
  std::string output;

  int64_t best() const { return top_k.value_or(10); }
};

/// What the logits are of.
enum class Of { next_token, token, text_labels, token_labels };

Of what_of(const nn::Model& model) {
  switch (model.head()) {
    case nn::Head::causal_lm:
    case nn::Head::seq2seq_lm:
      return Of::next_token;
    case nn::Head::sequence_classification:
      return Of::text_labels;
    case nn::Head::token_classification:
      return Of::token_labels;
    default:
      return Of::token;
  }
}

std::vector<float> values_of(const at::Tensor& row) {
  const auto* data = row.data_ptr<float>();
  return {data, data + row.numel()};
}

/// The k most probable tokens. logits, logprobs: [V].
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

/// The labels of a classification head, the best first. logits: [labels]. Probabilities are those of transformers'
/// pipelines: a sigmoid each where several may hold, none where the one label is a quantity.
Json label_scores(const at::Tensor& logits, const nn::Model& model) {
  const Json config = model.config();
  const auto names = model.label_names();
  const bool several = config.value("problem_type", Json()) == "multi_label_classification";
  const bool quantity = config.value("problem_type", Json()) == "regression" || (logits.size(0) == 1 && !several);
  const at::Tensor probabilities = several ? logits.sigmoid() : logits.softmax(-1);
  const auto order = logits.argsort(-1, /*descending=*/true);
  Json list = Json::array();
  for (int64_t i = 0; i < order.size(0); ++i) {
    const int64_t id = order[i].item<int64_t>();
    Json label = {{"id", id}, {"label", names[static_cast<size_t>(id)]}, {"logit", logits[id].item<float>()}};
    if (!quantity) label["probability"] = probabilities[id].item<float>();
    list.push_back(std::move(label));
  }
  return list;
}

/// Every wanted position of a text. logits: [T or 1, V or labels], of the last positions.
Json positions_of(const at::Tensor& logits, const std::vector<text::TokenId>& ids, const LogitsOptions& options,
                  const OpenModel& open, Of of) {
  const auto labels = token_labels(*open.tokenizer, ids);
  const auto T = static_cast<int64_t>(ids.size()), first = T - logits.size(0);
  const auto logprobs = at::log_softmax(logits, -1);
  Json positions = Json::array();
  for (int64_t t = first; t < T; ++t) {
    const at::Tensor row = logits[t - first], row_logprobs = logprobs[t - first];
    Json position = {
        {"position", t}, {"id", ids[t]}, {"token", open.tokenizer->id_to_token(ids[t])}, {"label", labels[t]}};
    if (of == Of::token_labels) {
      position["labels"] = label_scores(row, *open.model);
    } else {
      if (options.all_positions || of == Of::token) {
        // How probable this token was: after what stands before it, or, of a masked model, in its place.
        const int64_t at = of == Of::token ? t : t - 1;
        position["logprob"] = at < first ? Json() : Json(logprobs[at - first][ids[t]].item<float>());
        position["rank"] =
            at < first ? Json() : Json(1 + logits[at - first].gt(logits[at - first][ids[t]]).sum().item<int64_t>());
      }
      position[of == Of::token ? "here" : "next"] = candidates(row, row_logprobs, options.best(), *open.tokenizer);
    }
    if (options.full) position["logits"] = values_of(row);
    positions.push_back(std::move(position));
  }
  return positions;
}

std::string percent(double probability) { return fixed(100 * probability, 3) + "%"; }

void print_next(const Json& list) {
  Table table({"rank", "id", "token", "probability", "logprob", "logit"}, {0, 1, 3, 4, 5});
  for (size_t i = 0; i < list.size(); ++i)
    table.add({std::to_string(i + 1), list[i]["id"].dump(), list[i]["label"],
               percent(std::exp(list[i]["logprob"].get<double>())), fixed(list[i]["logprob"], 4),
               fixed(list[i]["logit"], 4)});
  table.print();
}

void print_positions(const Json& positions, Of of) {
  const char* key = of == Of::token ? "here" : "next";
  Table table({"position", "id", "token", "logprob", "rank", std::string("most probable ") + key, "probability"},
              {0, 1, 3, 4, 6});
  for (const auto& p : positions) {
    const auto& best = p[key][0];
    table.add({p["position"].dump(), p["id"].dump(), p["label"], p["logprob"].is_null() ? "" : fixed(p["logprob"], 4),
               p["rank"].is_null() ? "" : p["rank"].dump(), best["label"],
               percent(std::exp(best["logprob"].get<double>()))});
  }
  table.print();
}

std::string probability_of(const Json& label) {
  return label.contains("probability") ? percent(label["probability"].get<double>()) : "";
}

void print_labels(const Json& labels) {
  Table table({"id", "label", "probability", "logit"}, {0, 2, 3});
  for (const auto& label : labels)
    table.add({label["id"].dump(), label["label"], probability_of(label), fixed(label["logit"], 4)});
  table.print();
}

void print_token_labels(const Json& positions) {
  Table table({"position", "id", "token", "label", "probability", "logit"}, {0, 1, 4, 5});
  for (const auto& p : positions) {
    const auto& best = p["labels"][0];
    table.add({p["position"].dump(), p["id"].dump(), p["label"], best["label"], probability_of(best),
               fixed(best["logit"], 4)});
  }
  table.print();
}

void print_text(const Json& answer, const LogitsOptions& options, Of of) {
  if (of == Of::text_labels)
    print_labels(answer["label_scores"]);
  else if (of == Of::token_labels)
    print_token_labels(answer["positions"]);
  else if (of == Of::token || options.all_positions)
    print_positions(answer["positions"], of);
  else
    print_next(answer["positions"][0]["next"]);
}

/// What is said of one of the texts of a batch.
Json answer_of(const Passes& passes, size_t row, const Input& input, const OpenModel& open,
               const LogitsOptions& options, Of of) {
  Json answer = describe(open, input);
  at::Tensor logits = passes.logits[static_cast<int64_t>(row)];
  if (of == Of::text_labels) {
    answer["label_scores"] = label_scores(logits, *open.model);
    return answer;
  }
  const auto ids = passes.read().tokens(row);
  if (logits.size(0) > 1) logits = logits.narrow(0, passes.read().begin(row), static_cast<int64_t>(ids.size()));
  answer["positions"] = positions_of(logits, ids, options, open, of);
  return answer;
}

/// A flag without influence is a mistake of its user.
void refuse(const char* flag, bool given, const char* because) {
  if (given) throw Error(Exit::usage, {.what = std::string(flag) + " has no effect " + because});
}

void refuse_idle_flags(const LogitsOptions& o, bool json) {
  refuse("--top-k", !o.output.empty() && o.top_k, "with --output: the file holds all logits");
  refuse("--all-positions", !o.output.empty() && o.all_positions, "with --output: the file holds all positions");
  refuse("--full", o.full && (!json || !o.output.empty()), "without --json, or with --output");
}

void refuse_idle_flags(const LogitsOptions& o, Of of, bool json) {
  const bool labels = of == Of::text_labels || of == Of::token_labels;
  refuse("--top-k", o.top_k && labels, "on a classification head, of which all labels are shown");
  refuse("--all-positions", o.all_positions && of != Of::next_token, "on a model without a next token");
  refuse("--full", o.full && of == Of::text_labels, "on a head that classifies texts");
  refuse("--top-k", o.top_k && !json && (o.all_positions || of == Of::token),
         "on a table of all positions; --json holds more than the best");
}

int run(const LogitsOptions& options, bool json) {
  check_output(options.output, {".safetensors"});
  refuse_idle_flags(options, json);
  const OpenInputs opened = open_inputs(options.input);
  const auto& [open, inputs] = opened;
  const Of of = what_of(*open.model);
  refuse_idle_flags(options, of, json);
  if (!options.output.empty()) {
    const Wanted wanted{.logits = Wanted::Logits::all};
    io::save_tensors(options.output, named_tensors(run_all(*open.model, inputs, wanted, options.input)));
    log::info("wrote " + options.output);
    return 0;
  }
  const Wanted wanted{.logits = options.all_positions ? Wanted::Logits::all : Wanted::Logits::last};
  run_batches(*open.model, inputs, wanted, options.input, [&](const Passes& passes, size_t begin) {
    for (size_t row = 0; row < passes.rows(); ++row) {
      const Json answer = answer_of(passes, row, inputs[begin + row], open, options, of);
      if (json) {
        print_json(answer);
      } else {
        print_title(inputs[begin + row], begin + row, inputs.size());
        print_text(answer, options, of);
      }
    }
  });
  return 0;
}

}  // namespace

void add_logits_command(CLI::App& app, InspectContext& context) {
  auto options = std::make_shared<LogitsOptions>();
  auto* command = app.add_subcommand("logits", "The most probable next tokens, or what a head says of a text");
  add_input_options(*command, options->input);
  command->add_option("-k,--top-k", options->top_k, "How many; default: 10")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 30));
  command->add_flag("--all-positions", options->all_positions,
                    "At every token of the text: how probable it was, and what the model expected after it");
  command->add_flag("--full", options->full, "With --json: all logits too, not the best alone");
  command->add_option("-o,--output", options->output,
                      "Write all logits of all texts into this .safetensors file, as one padded batch");
  command->footer(
      "Examples:\n  llmtk inspect logits gpt2 --prompt \"The capital of France is\" --top-k 5\n"
      "  llmtk inspect logits runs/poems --prompt 床前明月光 --all-positions\n"
      "  llmtk inspect logits gpt2 --prompts-file texts.txt --output logits.safetensors\n"
      "  llmtk inspect logits t5-small --prompt \"translate English to German: Hello\" --target Hallo --all-positions");
  command->callback(
      [&context, options] { context.run = [&context, options] { return run(*options, context.common.json); }; });
}

}  // namespace llmtk
