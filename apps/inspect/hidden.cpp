// llmtk inspect hidden: the hidden states between the layers.

#include <iostream>

#include "core/log.h"
#include "inspect/inspect.h"
#include "inspect/labels.h"
#include "inspect/layers.h"
#include "inspect/passes.h"
#include "inspect/table.h"

namespace llmtk {
namespace {

struct HiddenOptions {
  InputOptions input;
  std::string layer = "all", output;
};

std::vector<std::vector<float>> rows_of(const at::Tensor& states) {
  std::vector<std::vector<float>> rows;
  const auto H = static_cast<size_t>(states.size(1));
  const at::Tensor whole = states.contiguous();
  for (const float* row = whole.data_ptr<float>(); rows.size() < static_cast<size_t>(states.size(0)); row += H)
    rows.emplace_back(row, row + H);
  return rows;
}

/// Layer `layer` of a text without its padding: [T, H].
at::Tensor states_of(const Stack& stack, int64_t layer, size_t text) {
  const auto length = static_cast<int64_t>(stack.tokens(text).size());
  return stack.hidden_states[layer][static_cast<int64_t>(text)].narrow(0, stack.begin(text), length);
}

std::vector<int64_t> layers_of(const Stack& stack, const std::string& layer) {
  return choose("--layer", layer, static_cast<int64_t>(stack.hidden_states.size()));
}

void print_norms(const Stack& stack, size_t text, const std::vector<int64_t>& layers, const OpenModel& open) {
  std::vector<std::string> titles = {stack.prefix + "token"};
  std::vector<size_t> right;
  for (const int64_t layer : layers) {
    right.push_back(titles.size());
    titles.push_back(std::to_string(layer));
  }
  Table table(std::move(titles), std::move(right));
  const auto labels = token_labels(*open.tokenizer, stack.tokens(text));
  for (size_t t = 0; t < labels.size(); ++t) {
    std::vector<std::string> row = {labels[t]};
    for (const int64_t layer : layers)
      row.push_back(fixed(states_of(stack, layer, text)[static_cast<int64_t>(t)].norm().item<double>(), 3));
    table.add(std::move(row));
  }
  table.print();
}

Json to_json(const Passes& passes, const OpenModel& open, const Input& input, size_t text, const std::string& layer) {
  Json json = describe(open, input);
  for (const Stack& stack : passes.stacks) {
    Json& layers = json[stack.prefix + "hidden_states"] = Json::array();
    for (const int64_t chosen : layers_of(stack, layer))
      layers.push_back({{"layer", chosen}, {"states", rows_of(states_of(stack, chosen, text))}});
  }
  if (passes.pooler_output.defined())
    json["pooler_output"] = rows_of(passes.pooler_output.narrow(0, static_cast<int64_t>(text), 1))[0];
  return json;
}

int run(const HiddenOptions& options, bool json) {
  check_output(options.output, {".safetensors"});
  const OpenInputs opened = open_inputs(options.input);
  const auto& [open, inputs] = opened;
  const Wanted wanted{.hidden_states = true};
  if (!options.output.empty()) {
    io::save_tensors(options.output, named_tensors(run_all(*open.model, inputs, wanted, options.input), options.layer));
    log::info("wrote " + options.output);
    return 0;
  }
  run_batches(*open.model, inputs, wanted, options.input, [&](const Passes& passes, size_t begin) {
    for (size_t row = 0; row < passes.rows(); ++row) {
      const Input& input = inputs[begin + row];
      if (json) {
        print_json(to_json(passes, open, input, row, options.layer));
        continue;
      }
      print_title(input, begin + row, inputs.size());
      for (const Stack& stack : passes.stacks) print_norms(stack, row, layers_of(stack, options.layer), open);
    }
  });
  return 0;
}

}  // namespace

void add_hidden_command(CLI::App& app, InspectContext& context) {
  auto options = std::make_shared<HiddenOptions>();
  auto* command =
      app.add_subcommand("hidden", "The hidden states: their lengths as a table, the numbers with --json or --output");
  add_input_options(*command, options->input);
  command
      ->add_option("--layer", options->layer,
                   "0 is what the embeddings give, 1 the first layer's output; negative from the end; or all")
      ->capture_default_str();
  command->add_option("-o,--output", options->output,
                      "Write the states of all texts into this .safetensors file, as one padded batch");
  command->footer(
      "Examples:\n  llmtk inspect hidden gpt2 --prompt \"The cat sat on the mat\"\n"
      "  llmtk inspect hidden bert-base-uncased --prompts-file texts.txt --layer -1 --output states.safetensors\n"
      "  llmtk inspect hidden gpt2 --ids 464,3797 --json");
  command->callback(
      [&context, options] { context.run = [&context, options] { return run(*options, context.common.json); }; });
}

}  // namespace llmtk
