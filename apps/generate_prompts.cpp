#include "generate_prompts.h"

#include <unistd.h>

#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/file.h"
#include "core/log.h"
#include "core/utf8.h"

namespace llmtk {
namespace {

/// "adapter": NAME or NAME=WEIGHT, a list of such, or null for the base alone.
std::vector<std::string> adapters_of_json(const nlohmann::json& value, const std::string& where) {
  if (value.is_null()) return {};
  const nlohmann::json list = value.is_array() ? value : nlohmann::json::array({value});
  std::vector<std::string> adapters;
  for (const auto& one : list) {
    if (!one.is_string())
      throw Error(Exit::data, {.what = "a row's adapter is no name",
                               .where = where,
                               .got = std::string(cut_to_width(value.dump(), 60)),
                               .expected = R"("adapter": "NAME", "NAME=WEIGHT", a list of such, or null)"});
    adapters.push_back(one.get<std::string>());
  }
  return adapters;
}

Prompt prompt_of_json(const std::string& line, const std::string& where) {
  const auto row = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
  for (const char* key : {"prompt", "text"})
    if (row.is_object() && row.contains(key) && row[key].is_string()) {
      Prompt prompt{row[key].get<std::string>(), where};
      if (row.contains("adapter")) prompt.adapters = adapters_of_json(row["adapter"], where);
      return prompt;
    }
  throw Error(Exit::data,
              {.what = "a row without a prompt",
               .where = where,
               .got = row.is_discarded() ? "not JSON" : std::string(cut_to_width(line, 60)),
               .expected = R"({"prompt": "..."} or {"text": "..."})",
               .hint = "a prompt that itself begins with { goes in a .txt file, or as a JSON string in such a row"});
}

enum class Lines { plain, json, either };  // either: JSON where a line begins with {

std::vector<Prompt> read_lines(std::istream& in, const std::string& name, Lines kind) {
  std::vector<Prompt> prompts;
  int64_t number = 0;
  for (std::string line; std::getline(in, line);) {
    ++number;
    if (!line.empty() && line.back() == '\r') line.pop_back();
    if (line.find_first_not_of(" \t") == std::string::npos) continue;
    const std::string where = name + ":" + std::to_string(number);
    const bool json = kind == Lines::json || (kind == Lines::either && line.starts_with('{'));
    prompts.push_back(json ? prompt_of_json(line, where) : Prompt{line, where});
  }
  if (prompts.empty()) throw Error(Exit::data, {.what = "no prompts", .where = name, .expected = "one a line"});
  return prompts;
}

/// A terminal says nothing of its own while a program waits for input.
void say_what_is_awaited(const std::string& what) {
  if (::isatty(STDIN_FILENO)) log::info("reading " + what + " from standard input; end with Ctrl-D");
}

}  // namespace

std::vector<Prompt> read_prompts(const std::vector<std::string>& texts, const std::string& path) {
  std::vector<Prompt> prompts;
  for (size_t i = 0; i < texts.size(); ++i) prompts.push_back({texts[i], "--prompt " + std::to_string(i + 1)});
  if (!prompts.empty()) return prompts;
  if (path == "-") {
    say_what_is_awaited("prompts, one a line");
    return read_lines(std::cin, "standard input", Lines::either);
  }
  if (!path.empty()) {
    std::ifstream file(path, std::ios::binary);
    if (!file || fs::is_directory(path)) throw Error(Exit::file, {.what = "cannot read the prompts", .where = path});
    return read_lines(file, path, fs::path(path).extension() == ".jsonl" ? Lines::json : Lines::plain);
  }
  say_what_is_awaited("the prompt");
  return {{std::string(std::istreambuf_iterator<char>(std::cin), {}), "standard input"}};
}

void refuse_adapters(const std::vector<Prompt>& prompts, const std::string& when) {
  for (const Prompt& prompt : prompts)
    if (prompt.adapters)
      throw Error(
          Exit::usage,
          {.what = "a row cannot choose its adapter " + when, .where = prompt.where, .hint = "name it with --adapter"});
}

}  // namespace llmtk
