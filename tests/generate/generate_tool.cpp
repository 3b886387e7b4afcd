// Continues prompts given as ids, for generate_parity.py. Each line is a request,
//   {"model": folder, "prompts": [[...], ...], "config": {generation_config.json's keys}, "batch_size": n}
// and its answer a list of {"ids", "logprobs", "finish_reason"} and, of beams, "score".

#include <iostream>
#include <map>
#include <nlohmann/json.hpp>

#include "fake_tokenizer.h"
#include "generate/generate.h"
#include "models/registry.h"

using namespace llmtk;
using nlohmann::json;

namespace {

/// Every id is a word of its own.
test::FakeTokenizer words(int64_t count) {
  test::FakeTokenizer tokenizer;
  for (int64_t i = 0; i < count; ++i) {
    std::string word = std::to_string(i);
    tokenizer.add(word += " ");
  }
  return tokenizer;
}

json answer(const json& request, nn::Model& model) {
  std::vector<std::string> ignored;
  const auto config = generate::config_from_hf(request["config"], "stdin", ignored);
  if (!ignored.empty()) throw std::runtime_error("ignored: " + ignored[0]);
  json list = json::array();
  for (const auto& completion : generate::generate(model, words(model.vocab_size()),
                                                   request["prompts"].get<std::vector<std::vector<text::TokenId>>>(),
                                                   config, {.batch_size = request["batch_size"], .logprobs = true})) {
    list.push_back({{"ids", completion.ids},
                    {"logprobs", completion.logprobs},
                    {"finish_reason", to_string(completion.finish_reason)}});
    if (completion.score) list.back()["score"] = *completion.score;
  }
  return list;
}

}  // namespace

int main() {
  try {
    std::map<std::string, std::shared_ptr<nn::Model>> models;
    for (std::string line; std::getline(std::cin, line);) {
      const auto request = json::parse(line);
      auto& model = models[request["model"]];
      if (!model) model = models::load_model(request["model"]);
      std::cout << answer(request, *model).dump() << std::endl;
    }
    return 0;
  } catch (const std::exception& error) {
    std::cerr << error.what() << std::endl;
    return 1;
  }
}
