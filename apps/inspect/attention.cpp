// llmtk inspect attention: which tokens look at which, as numbers or as a picture.

#include <c10/core/GradMode.h>

#include <charconv>
#include <iostream>

#include "core/error.h"
#include "core/file.h"
#include "core/log.h"
#include "core/utf8.h"
#include "inspect/attention_svg.h"
#include "inspect/inspect.h"
#include "inspect/labels.h"
#include "inspect/prompt.h"
#include "inspect/table.h"

namespace llmtk {
namespace {

constexpr int64_t kMostCells = 2'000'000;  // of a picture; a browser does not draw more in reasonable time
constexpr int64_t kMean = -1;

struct AttentionOptions {
  PromptOptions prompt;
  std::string layer = "-1", head = "mean", output;
};

/// "all" or a number; negative ones count from the end, as in Python. Returns the chosen ones.
std::vector<int64_t> choose(const std::string& flag, const std::string& value, int64_t size) {
  std::vector<int64_t> chosen;
  if (value == "all") {
    for (int64_t i = 0; i < size; ++i) chosen.push_back(i);
    return chosen;
  }
  int64_t number = 0;
  const auto [rest, error] = std::from_chars(value.data(), value.data() + value.size(), number);
  if (error != std::errc() || rest != value.data() + value.size() || number < -size || number >= size)
    throw Error(Exit::usage, {.what = flag + " is out of range",
                              .got = "'" + value + "'",
                              .expected = "0 to " + std::to_string(size - 1) + ", negative ones from the end, or all" +
                                          (flag == "--head" ? ", or mean" : "")});
  return {number < 0 ? number + size : number};
}

/// weights: [T, T].
AttentionMap to_map(std::string title, const at::Tensor& weights) {
  const auto values = weights.to(at::kFloat).cpu().contiguous();
  const int64_t T = values.size(0);
  AttentionMap map{.title = std::move(title)};
  for (int64_t t = 0; t < T; ++t) {
    const float* row = values.data_ptr<float>() + t * T;
    map.weights.emplace_back(row, row + t + 1);  // causal: nobody looks ahead
  }
  return map;
}

struct Chosen {
  int64_t layer, head;
};

void print_numbers(const std::vector<AttentionMap>& maps, const std::vector<std::string>& labels) {
  for (size_t i = 0; i < maps.size(); ++i) {
    std::cout << (i ? "\n" : "") << maps[i].title << " (a row looks at the columns)\n";
    std::vector<std::string> titles = {""};
    std::vector<size_t> right = {0};
    for (size_t s = 0; s < labels.size(); ++s) {
      titles.push_back(labels[s]);
      right.push_back(s + 1);
    }
    Table table(std::move(titles), std::move(right));
    for (size_t t = 0; t < labels.size(); ++t) {
      std::vector<std::string> row = {labels[t]};
      for (const float weight : maps[i].weights[t]) row.push_back(fixed(weight, 3));
      table.add(std::move(row));
    }
    table.print();
  }
}

void check_output(const std::string& output) {
  if (output.empty()) return;
  if (!output.ends_with(".svg"))
    throw Error(Exit::usage,
                {.what = "--output writes a picture as SVG", .got = output, .expected = "a name that ends in .svg"});
}

int run(const AttentionOptions& options, bool json) {
  check_output(options.output);
  const OpenModel open = open_model(options.prompt.model);
  const auto ids = prompt_ids(open, options.prompt);
  const c10::NoGradGuard no_gradients;
  const auto layers = choose("--layer", options.layer, open.model->num_layers());
  std::vector<at::Tensor> attentions;  // per chosen layer [1, H, T, T]
  nn::ForwardContext context;
  context.attentions = &attentions;
  if (options.layer != "all") context.attention_layer = layers[0];
  open.model->forward(input_tensor(ids, open.model->device()), context);

  std::vector<AttentionMap> maps;
  std::vector<Chosen> chosen;
  for (size_t i = 0; i < layers.size(); ++i) {
    const int64_t layer = layers[i];
    const at::Tensor& weights = attentions[i];
    const std::string name = "layer " + std::to_string(layer);
    if (options.head == "mean") {
      maps.push_back(to_map(name + ", mean of " + std::to_string(weights.size(1)) + " heads", weights[0].mean(0)));
      chosen.push_back({layer, kMean});
      continue;
    }
    for (const int64_t head : choose("--head", options.head, weights.size(1))) {
      maps.push_back(to_map(name + ", head " + std::to_string(head), weights[0][head]));
      chosen.push_back({layer, head});
    }
  }

  const auto labels = token_labels(*open.tokenizer, ids);
  if (!options.output.empty()) {
    const auto T = static_cast<int64_t>(ids.size()), cells = static_cast<int64_t>(maps.size()) * T * (T + 1) / 2;
    if (cells > kMostCells)
      throw Error(Exit::usage, {.what = "too large a picture",
                                .got = with_commas(cells) + " cells",
                                .expected = "at most " + with_commas(kMostCells),
                                .hint = "shorten the text, or choose one --layer or --head"});
    const size_t columns = layers.size() > 1 && maps.size() > layers.size() ? maps.size() / layers.size() : 0;
    write_file_atomic(options.output, attention_svg(maps, labels, columns));
    log::info("wrote " + options.output);
  }
  if (json) {
    Json list = Json::array();
    for (size_t i = 0; i < maps.size(); ++i)
      list.push_back({{"layer", chosen[i].layer},
                      {"head", chosen[i].head == kMean ? Json("mean") : Json(chosen[i].head)},
                      {"weights", maps[i].weights}});
    Json tokens = Json::array();
    for (const auto id : ids) tokens.push_back(open.tokenizer->id_to_token(id));
    print_json({{"prompt", options.prompt.text},
                {"ids", ids},
                {"tokens", std::move(tokens)},
                {"labels", labels},
                {"maps", std::move(list)}});
  } else if (options.output.empty()) {
    print_numbers(maps, labels);
  }
  return 0;
}

}  // namespace

void add_attention_command(CLI::App& app, InspectContext& context) {
  auto options = std::make_shared<AttentionOptions>();
  auto* command = app.add_subcommand("attention", "Which tokens look at which: numbers, or a picture");
  add_prompt_options(*command, options->prompt);
  command->add_option("--layer", options->layer, "A layer, counted from 0; negative from the end; or all")
      ->capture_default_str();
  command->add_option("--head", options->head, "A head, all, or mean")->capture_default_str();
  command->add_option("-o,--output", options->output, "Draw an SVG picture into this file instead of printing numbers");
  command->footer(
      "Examples:\n  llmtk inspect attention gpt2 --prompt \"The cat sat on the mat\" --layer 5 --head 3\n"
      "  llmtk inspect attention runs/poems --prompt 床前明月光 --output map.svg\n"
      "  llmtk inspect attention gpt2 --prompt \"The cat sat\" --layer all --head all --output all.svg");
  command->callback(
      [&context, options] { context.run = [&context, options] { return run(*options, context.common.json); }; });
}

}  // namespace llmtk
