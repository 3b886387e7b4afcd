#include "app.h"

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <iostream>
#include <new>
#include <nlohmann/json.hpp>

#include "config/config.h"
#include "core/error.h"
#include "core/log.h"

namespace llmtk {
namespace {

nlohmann::ordered_json to_json(const Error::Parts& parts) {
  return {{"what", parts.what},
          {"where", parts.where},
          {"got", parts.got},
          {"expected", parts.expected},
          {"hint", parts.hint}};
}

int report(const CommonOptions& options, Exit exit, const Error::Parts& parts, const char* message,
           const std::vector<Error::Parts>& problems = {}) {
  std::cout.flush();
  log::error(message);
  if (options.json) {
    nlohmann::ordered_json error = to_json(parts);
    for (const Error::Parts& problem : problems) error["problems"].push_back(to_json(problem));
    std::cout << nlohmann::ordered_json{{"error", error}, {"exit_code", static_cast<int>(exit)}}.dump(
                     -1, ' ', false, nlohmann::ordered_json::error_handler_t::replace)
              << std::endl;
  }
  return static_cast<int>(exit);
}

/// LibTorch's messages carry a stack of C++ names, which says nothing to a user.
Error of_a_library(const std::exception& e) {
  std::string what = e.what();
  what.resize(std::min(what.size(), what.find("\nException raised from")));
  const bool memory = what.find("out of memory") != what.npos;
  return Error(Exit::runtime,
               {.what = what,
                .hint = memory ? "in training lower trainer.per_device_train_batch_size or data.max_length, or turn "
                                 "trainer.gradient_checkpointing on; in generation lower --batch-size or "
                                 "--max-new-tokens, or use --dtype bfloat16"
                               : ""});
}

/// CLI11 takes a word in brackets for a list of words. One that ends with this is none.
constexpr std::string_view kWholeWord = "\x1e\x1f";

/// The words of a command line in the order that CLI11 wants, the last one first.
std::vector<std::string> words_of(int argc, char** argv) {
  std::vector<std::string> words;
  for (int i = argc - 1; i > 0; --i) {
    words.emplace_back(argv[i]);
    if (words.back().starts_with('[') && words.back().ends_with(']')) words.back() += kWholeWord;
  }
  return words;
}

std::string without_mark(std::string word) {
  for (size_t at; (at = word.find(kWholeWord)) != word.npos;) word.erase(at, kWholeWord.size());
  return word;
}

void take_marks_off(CLI::App& app) {
  for (CLI::Option* option : app.get_options())
    if (option->get_expected_max() > 0) option->transform(without_mark);
  for (CLI::App* sub : app.get_subcommands([](CLI::App*) { return true; })) take_marks_off(*sub);
}

}  // namespace

std::string version() { return LLMTK_VERSION; }

void add_common_options(CLI::App& app, CommonOptions& options, const std::string& examples) {
  app.set_version_flag("--version", "llmtk " LLMTK_VERSION);
  app.add_flag("--json", options.json, "The answer as JSON on stdout, for scripts; everything else goes to stderr");
  app.add_option("--log-level", options.log_level, "trace, debug, info, warn, error or off")->capture_default_str();
  if (!examples.empty()) app.footer("Examples:\n" + examples);
}

void refuse_idle(const CLI::App& app, std::initializer_list<const char*> flags, const std::string& because) {
  for (const char* flag : flags)
    if (app.count(flag) > 0)
      throw Error(Exit::usage,
                  {.what = std::string(flag) + " has no effect " + because, .hint = "leave one of them out"});
}

int run_app(CLI::App& app, CommonOptions& options, int argc, char** argv, const std::function<int()>& body) {
  try {
    take_marks_off(app);
    app.parse(words_of(argc, argv));
  } catch (const CLI::Success& e) {
    return app.exit(e);
  } catch (const CLI::ParseError& e) {
    const std::string what = without_mark(e.what());
    return report(options, Exit::usage, {.what = what, .hint = "--help lists the options"}, what.c_str());
  }
  try {
    log::set_level(log::parse_level(options.log_level));
    const int code = body();
    // A full disk or a closed pipe behind stdout must not look like success.
    errno = 0;
    if (!std::cout.flush() || std::fflush(stdout) != 0)
      throw Error(Exit::file, {.what = std::string("cannot write the output") + (errno ? ": " : "") +
                                       (errno ? std::strerror(errno) : ""),
                               .where = "stdout"});
    return code;
  } catch (const config::InvalidConfig& e) {
    return report(options, e.exit(), e.parts(), e.what(), e.problems());
  } catch (const Error& e) {
    return report(options, e.exit(), e.parts(), e.what());
  } catch (const std::bad_alloc&) {
    const char* message = "out of memory";
    return report(options, Exit::runtime, {.what = message, .hint = "use a smaller batch or a smaller model"}, message);
  } catch (const std::exception& e) {
    const Error error = of_a_library(e);
    return report(options, error.exit(), error.parts(), error.what());
  }
}

}  // namespace llmtk
