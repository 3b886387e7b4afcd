// Thousands of broken configs: reading one succeeds or throws Error, and does nothing else. LLMTK_FUZZ_MINUTES
// (scripts/soak sets it) goes on with other seeds for so long.

#include <chrono>
#include <iostream>
#include <random>

#include "sample.h"
#include "test.h"

using namespace llmtk;

namespace {

struct Count {
  int read = 0, refused = 0;
};

/// 6,000 configs.
Count mutate(uint64_t seed) {
  const std::vector<std::string> seeds = {
      "optimizer:\n  learning_rate: 1e-4\n  betas: [0.9, 0.95]\n  type: adamw\ndata:\n  sources:\n    - path: a.txt\n"
      "      weight: 2.5\n    - {path: '中文.txt', weight: 1_0}\n  limits: {zh: 3, en: 4}\nmax_steps: 1e3\npacking: "
      "true\n",
      "# comment\nname: |\n  several\n  lines\ndata: {sources: &s [{path: \"a\\tb\"}]}\ndropout: ~\n",
      "name: >-\n  folded\n  text\n? max_steps\n: 3\ndata:\n  sources: [&x {path: p}, *x, *x]\n  cache: !!str 12\n"};
  const std::vector<std::string> pieces = {
      "\t",    "\n",    ": ",       "- ",    "[",    "]", "{", "}",  "&a ", "*a",    "!!x ",
      "---\n", "...\n", "\"",       "'",     "#",    "|", ">", "? ", "%",   "\xff",  "\xe4\xb8",
      "中",    "\r",    "<<: *x\n", "1e999", ".nan", "~", ",", "\\", "\\x", "\\u12", std::string(1, '\0')};
  std::mt19937_64 random(seed);
  const auto below = [&](size_t n) { return static_cast<size_t>(random() % n); };
  Count count;
  for (int i = 0; i < 6000; ++i) {
    std::string text = seeds[below(seeds.size())];
    for (size_t edits = 1 + below(4); edits > 0; --edits) {
      const size_t at = below(text.size() + 1);
      switch (below(5)) {
        case 0:
          text.insert(at, pieces[below(pieces.size())]);
          break;
        case 1:
          text.erase(at, 1 + below(8));
          break;
        case 2:
          text.insert(at, text.substr(below(text.size() + 1), below(40)));
          break;
        case 3:
          text.resize(at);
          break;
        case 4:
          if (at < text.size()) text[at] = static_cast<char>(random());
          break;
      }
    }
    std::vector<std::string> overrides;
    if (i % 3 == 0) overrides.push_back(text.substr(0, below(60)));
    try {
      const auto config = config::parse<test::Config>(text, "fuzz.yaml", overrides);
      ++count.read;
      CHECK(config::parse<test::Config>(config::dump(config), "again.yaml") == config);
    } catch (const Error& e) {
      ++count.refused;
      if (e.exit() != Exit::usage || std::string(e.what()).empty()) FAIL("seed " << seed << ":\n" << text);
    } catch (const std::exception& e) {
      FAIL("seed " << seed << " threw " << e.what() << " for\n" << text);
    }
  }
  return count;
}

}  // namespace

TEST_CASE("a mutated config is read or refused") {
  const Count count = mutate(20240229);
  INFO(count.read << " read, " << count.refused << " refused");
  CHECK(count.read > 100);
  CHECK(count.refused > 3000);
  const char* minutes = std::getenv("LLMTK_FUZZ_MINUTES");
  if (!minutes) return;
  const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double, std::ratio<60>>(std::stod(minutes));
  uint64_t configs = 0;
  for (uint64_t seed = std::random_device{}(); std::chrono::steady_clock::now() < end; ++seed) {
    const Count more = mutate(seed);
    configs += static_cast<uint64_t>(more.read + more.refused);
  }
  std::cout << configs << " more configs, all read or refused" << std::endl;
}
