// Lines of [reference, prediction] in, lines of [precision, recall, F1, words of the reference] out.

#include <iostream>

#include "metrics/written.h"

int main() {
  for (std::string line; std::getline(std::cin, line);) {
    const auto pair = nlohmann::json::parse(line);
    const std::string reference = pair[0], prediction = pair[1];
    const auto score = llmtk::metrics::rouge_l(reference, prediction);
    std::cout << nlohmann::json{score.precision, score.recall, score.f1, llmtk::metrics::rouge_words(reference)}
              << '\n';
  }
}
