// Runs the chain of logits processors on rows given as JSON lines, for logits_parity.py.
//   {"logits": [...], "context": [...], "new_tokens": n, "limit": n, "config": {generation_config.json's keys}}
// answers {"ids": [...], "probabilities": [...]} per line.

#include <iostream>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "generate/chooser.h"

using namespace llmtk::generate;
using nlohmann::json;

int main() {
  try {
    for (std::string line; std::getline(std::cin, line);) {
      const auto request = json::parse(line);
      std::vector<std::string> ignored;
      const auto config = config_from_hf(request["config"], "stdin", ignored);
      if (!ignored.empty()) throw std::runtime_error("ignored: " + ignored[0]);
      auto logits = request["logits"].get<std::vector<float>>();
      Chooser chooser(config);
      const auto context = request["context"].get<std::vector<TokenId>>();
      chooser.process(logits, {context, request["new_tokens"], request["limit"]});
      std::cout
          << json{{"ids", chooser.candidates().ids}, {"probabilities", probabilities(chooser.candidates())}}.dump()
          << std::endl;
    }
    return 0;
  } catch (const std::exception& error) {
    std::cerr << error.what() << std::endl;
    return 1;
  }
}
