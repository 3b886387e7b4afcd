// llmtk inspect attention: which tokens look at which, as numbers or as a picture.

#include <iostream>

#include "core/error.h"
#include "core/file.h"
#include "core/log.h"
#include "inspect/attention_svg.h"
#include "inspect/inspect.h"
#include "inspect/labels.h"
#include "inspect/layers.h"
#include "inspect/passes.h"
#include "inspect/table.h"
#include "nn/causal_model.h"
#include "nn/seq2seq_model.h"
#include "nn/sequence_classifier.h"

namespace llmtk {
namespace {

constexpr int64_t kMostCells = 2'000'000;  // of a picture; a browser does not draw more in reasonable time
constexpr int64_t kMean = -1;

struct AttentionOptions {
  InputOptions input;
  std::optional<std::string> layer, head, of;
  std::string output;

  bool to_file() const { return output.ends_with(".safetensors"); }
};

/// The weights that are looked at: of one of the stacks, or of the decoder over the encoder's tokens.
struct Looks {
  const std::vector<at::Tensor>& layers;  // each [B, heads, T, S]
  const Stack &rows, &columns;
  bool causal;
};

Looks looks_of(const Passes& passes, const std::string& of) {
  const auto &first = passes.stacks.front(), &last = passes.stacks.back();
  if (of == "decoder") return {last.attentions, last, last, last.causal};
  if (of == "cross") return {last.cross_attentions, last, first, false};
  return {first.attentions, first, first, first.causal};
}

/// weights: [T, S]; causal: nobody looks ahead.
AttentionMap to_map(std::string title, const at::Tensor& weights, bool causal) {
  const at::Tensor values = weights.contiguous();
  const int64_t T = values.size(0), S = values.size(1);
  AttentionMap map{.title = std::move(title)};
  for (int64_t t = 0; t < T; ++t) {
    const float* row = values.data_ptr<float>() + t * S;
    map.weights.emplace_back(row, row + (causal ? t + 1 : S));
  }
  return map;
}

struct Map {
  int64_t layer, head;
  AttentionMap weights;
};

/// What one text's tokens look at, without padding. layer: how many, of those computed.
std::vector<Map> maps_of(const Looks& looks, const std::vector<int64_t>& layers, const std::string& head, size_t text) {
  const auto T = static_cast<int64_t>(looks.rows.tokens(text).size());
  const auto S = static_cast<int64_t>(looks.columns.tokens(text).size());
  std::vector<Map> maps;
  for (size_t i = 0; i < layers.size(); ++i) {
    const at::Tensor& all = looks.layers.size() == layers.size() ? looks.layers[i] : looks.layers[layers[i]];
    const at::Tensor weights = all[static_cast<int64_t>(text)]
                                   .narrow(1, looks.rows.begin(text), T)
                                   .narrow(2, looks.columns.begin(text), S);  // [heads, T, S]
    const std::string name = "layer " + std::to_string(layers[i]);
    if (head == "mean") {
      const std::string title = name + ", mean of " + std::to_string(weights.size(0)) + " heads";
      maps.push_back({layers[i], kMean, to_map(title, weights.mean(0), looks.causal)});
      continue;
    }
    for (const int64_t h : choose("--head", head, weights.size(0), ", or mean"))
      maps.push_back({layers[i], h, to_map(name + ", head " + std::to_string(h), weights[h], looks.causal)});
  }
  return maps;
}

void print_numbers(const std::vector<Map>& maps, const AttentionLabels& labels) {
  for (size_t i = 0; i < maps.size(); ++i) {
    std::cout << (i ? "\n" : "") << maps[i].weights.title << " (a row looks at the columns)\n";
    std::vector<std::string> titles = {""};
    std::vector<size_t> right = {0};
    for (size_t s = 0; s < labels.columns.size(); ++s) {
      titles.push_back(labels.columns[s]);
      right.push_back(s + 1);
    }
    Table table(std::move(titles), std::move(right));
    for (size_t t = 0; t < labels.rows.size(); ++t) {
      std::vector<std::string> row = {labels.rows[t]};
      for (const float weight : maps[i].weights.weights[t]) row.push_back(fixed(weight, 3));
      table.add(std::move(row));
    }
    table.print();
  }
}

void draw(const std::string& path, const std::vector<Map>& maps, const AttentionLabels& labels, size_t layers) {
  const auto cells = static_cast<int64_t>(maps.size() * labels.rows.size() * labels.columns.size());
  if (cells > kMostCells)
    throw Error(Exit::usage, {.what = "too large a picture",
                              .got = with_commas(cells) + " cells",
                              .expected = "at most " + with_commas(kMostCells),
                              .hint = "shorten the text, or choose one --layer or --head"});
  std::vector<AttentionMap> drawn;
  for (const Map& map : maps) drawn.push_back(map.weights);
  const size_t in_line = layers > 1 && maps.size() > layers ? maps.size() / layers : 0;
  write_file_atomic(path, attention_svg(drawn, labels, in_line));
  log::info("wrote " + path);
}

Json to_json(const OpenModel& open, const Input& input, const std::vector<Map>& maps) {
  Json json = describe(open, input);
  Json& list = json["maps"] = Json::array();
  for (const Map& map : maps)
    list.push_back({{"layer", map.layer},
                    {"head", map.head == kMean ? Json("mean") : Json(map.head)},
                    {"weights", map.weights.weights}});
  return json;
}

void check_flags(const AttentionOptions& o, const OpenModel& open, size_t texts) {
  if (o.to_file() && (o.head || o.of))
    throw Error(Exit::usage,
                {.what = std::string(o.head ? "--head" : "--of") + " has no effect with a .safetensors file",
                 .hint = "it holds all of them"});
  if (o.of && !dynamic_cast<nn::Seq2SeqModel*>(open.model.get()))
    throw Error(Exit::usage, {.what = "--of is for encoder-decoders", .got = open.model->kind()});
  if (o.output.ends_with(".svg") && texts > 1)
    throw Error(Exit::usage, {.what = "a picture shows one text", .got = std::to_string(texts) + " texts"});
}

int run(const AttentionOptions& options, bool json) {
  check_output(options.output, {".svg", ".safetensors"});
  const OpenInputs opened = open_inputs(options.input);
  const auto& [open, inputs] = opened;
  check_flags(options, open, inputs.size());
  const std::string layer = options.layer.value_or(options.to_file() ? "all" : "-1"),
                    of = options.of.value_or("encoder");
  Wanted wanted{.attentions = true};
  const bool decoder =
      dynamic_cast<nn::CausalModel*>(open.model.get()) || dynamic_cast<nn::DecoderClassifier*>(open.model.get());
  if (decoder && !options.to_file() && layer != "all")
    wanted.attention_layer = choose("--layer", layer, open.model->num_layers())[0];
  if (options.to_file()) {
    io::save_tensors(options.output, named_tensors(run_all(*open.model, inputs, wanted, options.input), layer));
    log::info("wrote " + options.output);
    return 0;
  }
  run_batches(*open.model, inputs, wanted, options.input, [&](const Passes& passes, size_t begin) {
    const Looks looks = looks_of(passes, of);
    const auto layers = wanted.attention_layer ? std::vector{*wanted.attention_layer}
                                               : choose("--layer", layer, static_cast<int64_t>(looks.layers.size()));
    for (size_t row = 0; row < passes.rows(); ++row) {
      const Input& input = inputs[begin + row];
      const auto maps = maps_of(looks, layers, options.head.value_or("mean"), row);
      const AttentionLabels labels{token_labels(*open.tokenizer, looks.rows.tokens(row)),
                                   token_labels(*open.tokenizer, looks.columns.tokens(row))};
      if (!options.output.empty()) draw(options.output, maps, labels, layers.size());
      if (json) {
        print_json(to_json(open, input, maps));
      } else if (options.output.empty()) {
        print_title(input, begin + row, inputs.size());
        print_numbers(maps, labels);
      }
    }
  });
  return 0;
}

}  // namespace

void add_attention_command(CLI::App& app, InspectContext& context) {
  auto options = std::make_shared<AttentionOptions>();
  auto* command = app.add_subcommand("attention", "Which tokens look at which: numbers, or a picture");
  add_input_options(*command, options->input);
  command->add_option(
      "--layer", options->layer,
      "A layer, counted from 0; negative from the end; or all; default: -1, all for a .safetensors file");
  command->add_option("--head", options->head, "A head, all, or mean (the default)");
  command
      ->add_option(
          "--of", options->of,
          "Encoder-decoders: whose attention, encoder (the default), decoder, or cross: the decoder's over the "
          "encoder's tokens")
      ->check(CLI::IsMember({"encoder", "decoder", "cross"}));
  command->add_option(
      "-o,--output", options->output,
      "Draw an .svg picture into this file instead of printing numbers; or write all heads of all texts "
      "into a .safetensors file, as one padded batch");
  command->footer(
      "Examples:\n  llmtk inspect attention gpt2 --prompt \"The cat sat on the mat\" --layer 5 --head 3\n"
      "  llmtk inspect attention runs/poems --prompt 床前明月光 --output map.svg\n"
      "  llmtk inspect attention gpt2 --prompt \"The cat sat\" --layer all --head all --output all.svg\n"
      "  llmtk inspect attention t5-small --prompt \"Hello\" --target \"Guten Tag\" --of cross\n"
      "  llmtk inspect attention gpt2 --prompts-file texts.txt --output attention.safetensors");
  command->callback(
      [&context, options] { context.run = [&context, options] { return run(*options, context.common.json); }; });
}

}  // namespace llmtk
