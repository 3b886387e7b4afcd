// The dispatcher: `llmtk NAME ...` becomes the program llmtk-NAME. It links nothing but the C++ library, so `llmtk
// --help` answers in milliseconds.

#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <iostream>
#include <map>
#include <optional>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

#include "llmtk_commands.h"  // made by apps/CMakeLists.txt: kCommands, kBashCompletion, kZshCompletion

namespace fs = std::filesystem;
using Words = std::vector<std::string>;

namespace {

constexpr int kUsage = 2;
constexpr std::string_view kPrefix = "llmtk-";

/// Where commands are looked for, in this order: beside this program, in libexec, on PATH.
std::vector<fs::path> search_folders() {
  std::vector<fs::path> folders;
  std::error_code failed;
  const fs::path self = fs::read_symlink("/proc/self/exe", failed);
  if (!failed) {
    folders.push_back(self.parent_path());
    folders.push_back(self.parent_path().parent_path() / "libexec" / "llmtk");
  }
  if (const char* path = std::getenv("PATH")) {
    std::istringstream parts(path);
    for (std::string folder; std::getline(parts, folder, ':');)
      if (!folder.empty()) folders.emplace_back(folder);
  }
  return folders;
}

bool is_program(const fs::path& path) {
  std::error_code failed;
  return fs::is_regular_file(path, failed) && ::access(path.c_str(), X_OK) == 0;
}

std::optional<fs::path> find_command(const std::string& name) {
  if (name.empty() || name.find('/') != std::string::npos) return std::nullopt;
  for (const auto& folder : search_folders()) {
    fs::path program = folder / (std::string(kPrefix) + name);
    if (is_program(program)) return program;
  }
  return std::nullopt;
}

/// Every command that can be run, with the first place where it is found.
std::map<std::string, fs::path> all_commands() {
  std::map<std::string, fs::path> found;
  for (const auto& folder : search_folders()) {
    std::error_code failed;
    for (fs::directory_iterator it(folder, failed), end; !failed && it != end; it.increment(failed)) {
      const std::string file = it->path().filename();
      if (file.size() > kPrefix.size() && file.starts_with(kPrefix) && is_program(it->path()))
        found.emplace(file.substr(kPrefix.size()), it->path());
    }
  }
  return found;
}

void print_help(std::ostream& out) {
  out << "llmtk " << kVersion << ": from raw text to a served language model\n\n"
      << "Usage: llmtk COMMAND [ARGUMENTS ...]\n\nCommands:\n";
  auto commands = all_commands();
  size_t width = 10;
  for (const auto& [name, path] : commands) width = std::max(width, name.size());
  const auto line = [&](const std::string& name, std::string_view help) {
    out << "  " << name << std::string(width + 2 - name.size(), ' ') << help << '\n';
  };
  for (const auto& [name, help] : kCommands) {
    if (commands.erase(std::string(name))) line(std::string(name), help);
  }
  for (const auto& [name, path] : commands) line(name, "(" + path.string() + ")");
  line("completion", "prints the completion script for a shell: llmtk completion bash|zsh");
  out << "\nllmtk COMMAND --help says what a command takes. A program llmtk-NAME on PATH is the command NAME.\n"
      << "Options: --help, --version\n";
}

/// Edits (insert, delete, replace, swap neighbours) from one word to the other.
size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::vector<size_t>> cost(a.size() + 1, std::vector<size_t>(b.size() + 1));
  for (size_t i = 0; i <= a.size(); ++i) {
    for (size_t j = 0; j <= b.size(); ++j) {
      if (i == 0 || j == 0) {
        cost[i][j] = i + j;
        continue;
      }
      cost[i][j] = std::min({cost[i - 1][j] + 1, cost[i][j - 1] + 1, cost[i - 1][j - 1] + (a[i - 1] != b[j - 1])});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
        cost[i][j] = std::min(cost[i][j], cost[i - 2][j - 2] + 1);
    }
  }
  return cost[a.size()][b.size()];
}

int unknown_command(const std::string& name) {
  std::string nearest;
  size_t least = std::max<size_t>(2, name.size() / 3) + 1;
  for (const auto& [command, path] : all_commands()) {
    const size_t distance = command.starts_with(name) ? 1 : edit_distance(name, command);
    if (distance < least) {
      least = distance;
      nearest = command;
    }
  }
  std::cerr << "llmtk: unknown command '" << name << "'"
            << (nearest.empty() ? "; llmtk --help lists the commands" : "; did you mean '" + nearest + "'?")
            << std::endl;
  return kUsage;
}

int run_command(const std::string& name, const Words& arguments) {
  const auto program = find_command(name);
  if (!program) return unknown_command(name);
  std::vector<char*> argv = {const_cast<char*>(program->c_str())};
  for (const auto& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  ::execv(program->c_str(), argv.data());
  std::cerr << "llmtk: cannot start " << program->string() << ": " << std::strerror(errno) << std::endl;
  return 1;
}

/// What `program ARGUMENTS... --help` writes; empty when it fails.
std::string help_of(const fs::path& program, const Words& arguments) {
  std::array<int, 2> ends{};
  if (::pipe(ends.data()) != 0) return {};
  const pid_t child = ::fork();
  if (child < 0) return {};
  if (child == 0) {
    ::dup2(ends[1], STDOUT_FILENO);
    if (!std::freopen("/dev/null", "w", stderr) || !std::freopen("/dev/null", "r", stdin)) ::_exit(1);
    ::close(ends[0]);
    ::close(ends[1]);
    std::vector<char*> argv = {const_cast<char*>(program.c_str())};
    for (const auto& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
    std::string help = "--help";
    argv.push_back(help.data());
    argv.push_back(nullptr);
    ::execv(program.c_str(), argv.data());
    ::_exit(127);
  }
  ::close(ends[1]);
  std::string text;
  std::array<char, 4096> buffer;
  for (ssize_t got; (got = ::read(ends[0], buffer.data(), buffer.size())) > 0;)
    text.append(buffer.data(), static_cast<size_t>(got));
  ::close(ends[0]);
  int status = 0;
  ::waitpid(child, &status, 0);
  return status == 0 ? text : std::string();
}

struct HelpWords {
  Words options, subcommands;
};

/// Reads the options ("  -h,--help   ...") and subcommands off a help text.
HelpWords parse_help(const std::string& text) {
  HelpWords words;
  bool in_subcommands = false;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    if (!line.starts_with("  ")) {
      if (!line.empty()) in_subcommands = line.starts_with("Subcommands:");
      continue;
    }
    std::istringstream rest(line);
    std::string word;
    rest >> word;
    if (word.starts_with("-")) {
      std::istringstream names(word);
      for (std::string name; std::getline(names, name, ',');) words.options.push_back(name);
    } else if (in_subcommands && line.size() > 2 && line[2] != ' ') {
      words.subcommands.push_back(word);
    }
  }
  return words;
}

/// For the shells' completion: `llmtk __complete BEFORE... CURRENT` prints what CURRENT may become, one word a line.
/// File names are the shell's affair.
int complete(Words words) {
  const std::string current = words.empty() ? "" : words.back();
  if (!words.empty()) words.pop_back();
  Words candidates;
  if (words.empty()) {
    for (const auto& [name, path] : all_commands()) candidates.push_back(name);
    candidates.insert(candidates.end(), {"completion", "help", "--help", "--version"});
  } else if (words[0] == "completion") {
    candidates = {"bash", "zsh"};
  } else if (words[0] == "help") {
    for (const auto& [name, path] : all_commands()) candidates.push_back(name);
  } else if (const auto program = find_command(words[0])) {
    Words chosen;  // the subcommands on the line so far
    HelpWords help = parse_help(help_of(*program, chosen));
    for (size_t i = 1; i < words.size(); ++i) {
      if (std::ranges::find(help.subcommands, words[i]) == help.subcommands.end()) continue;
      chosen.push_back(words[i]);
      help = parse_help(help_of(*program, chosen));
    }
    candidates = current.starts_with("-") ? help.options : help.subcommands;
  }
  for (const auto& candidate : candidates)
    if (candidate.starts_with(current)) std::cout << candidate << '\n';
  return std::cout.flush() ? 0 : 1;
}

int completion_script(const Words& arguments) {
  if (arguments.size() == 1 && arguments[0] == "bash") {
    std::cout << kBashCompletion;
  } else if (arguments.size() == 1 && arguments[0] == "zsh") {
    std::cout << kZshCompletion;
  } else if (arguments.size() == 1 && (arguments[0] == "--help" || arguments[0] == "-h")) {
    std::cout << "Usage: llmtk completion bash|zsh\n\nExamples:\n  source <(llmtk completion bash)\n"
                 "  llmtk completion zsh > ~/.zfunc/_llmtk\n";
  } else {
    std::cerr << "llmtk completion: expected one word, bash or zsh" << std::endl;
    return kUsage;
  }
  return std::cout.flush() ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  const Words words(argv + 1, argv + argc);
  if (words.empty()) {
    print_help(std::cerr);
    return kUsage;
  }
  const std::string& name = words[0];
  const Words rest(words.begin() + 1, words.end());
  if (name == "--help" || name == "-h" || (name == "help" && rest.empty())) {
    print_help(std::cout);
    return std::cout.flush() ? 0 : 1;
  }
  if (name == "--version") {
    std::cout << "llmtk " << kVersion << std::endl;
    return std::cout ? 0 : 1;
  }
  if (name == "help") return rest[0] == "completion" ? completion_script({"--help"}) : run_command(rest[0], {"--help"});
  if (name == "completion") return completion_script(rest);
  if (name == "__complete") return complete(rest);
  if (name.starts_with("-")) {
    std::cerr << "llmtk: unknown option '" << name << "'; llmtk --help lists the commands" << std::endl;
    return kUsage;
  }
  return run_command(name, rest);
}
