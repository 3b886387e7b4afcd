// Runs a fuzz target without libFuzzer: every seed, then seeds changed at random, for some seconds.
//   fuzz_NAME SECONDS SEED PATH...
// PATH is a file or a folder of files. An input that crashes, or takes more than 10 s, is written to crash-input in the
// current folder.

#include <fcntl.h>
#include <signal.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <fstream>
#include <iostream>
#include <iterator>
#include <random>
#include <vector>

#include "fuzz.h"

namespace {

std::string current;  // the input that runs

void save_and_stop(int signal) {
  const int fd = ::open("crash-input", O_WRONLY | O_CREAT | O_TRUNC, 0644);
  if (fd >= 0 && ::write(fd, current.data(), current.size()) >= 0) ::close(fd);
  const char message[] = "the input that did this is in crash-input\n";
  if (::write(STDERR_FILENO, message, sizeof message - 1) < 0) ::_exit(3);
  ::signal(signal, SIG_DFL);
  ::raise(signal);
}

void run(std::string input) {
  constexpr unsigned kMostSeconds = 10;
  current = std::move(input);
  ::alarm(kMostSeconds);
  LLVMFuzzerTestOneInput(reinterpret_cast<const uint8_t*>(current.data()), current.size());
  ::alarm(0);
}

std::vector<std::string> read_seeds(const std::vector<std::string>& paths) {
  namespace fs = std::filesystem;
  std::vector<fs::path> files;
  for (const std::string& path : paths) {
    if (fs::is_directory(path))
      for (const auto& entry : fs::directory_iterator(path)) files.push_back(entry.path());
    else
      files.emplace_back(path);
  }
  std::sort(files.begin(), files.end());
  std::vector<std::string> seeds;
  for (const fs::path& file : files) {
    std::ifstream in(file, std::ios::binary);
    if (!in) throw std::runtime_error("cannot read " + file.string());
    seeds.emplace_back(std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>());
  }
  if (seeds.empty()) throw std::runtime_error("no seeds");
  return seeds;
}

class Mutator {
 public:
  Mutator(const std::vector<std::string>& seeds, uint64_t seed) : seeds_(seeds), random_(seed) {}

  std::string next() {
    std::string text = any_seed();
    for (size_t edits = 1 + below(4); edits > 0; --edits) edit(text);
    return text;
  }

 private:
  size_t below(size_t n) { return static_cast<size_t>(random_() % n); }
  const std::string& any_seed() { return seeds_[below(seeds_.size())]; }

  void edit(std::string& text) {
    const size_t at = below(text.size() + 1), left = text.size() - at;
    const std::string& other = any_seed();
    switch (below(8)) {
      case 0:  // a bit
        if (left > 0) text[at] = static_cast<char>(text[at] ^ (1 << below(8)));
        return;
      case 1:
        if (left > 0) text[at] = static_cast<char>(random_());
        return;
      case 2:
        text.erase(at, 1 + below(16));
        return;
      case 3:  // a part of another seed
        text.insert(at, other.substr(below(other.size() + 1), 1 + below(64)));
        return;
      case 4:  // a part again
        text.insert(at, text.substr(below(text.size() + 1), 1 + below(64)));
        return;
      case 5:
        text.resize(at);
        return;
      case 6:
        put_number(text, at);
        return;
      default:
        if (left > 0 && text[at] >= '0' && text[at] <= '9') text.insert(at, 1 + below(20), '9');  // large in text
        return;
    }
  }

  /// A number that lies at an edge, over what stands there.
  void put_number(std::string& text, size_t at) {
    constexpr uint64_t edges[] = {0,          1,          0x7f,       0xff,       0x7fff, 0xffff,
                                  0x7fffffff, 0xffffffff, 1ull << 60, 1ull << 63, ~0ull};
    const uint64_t value = edges[below(std::size(edges))];
    const size_t size = size_t{1} << below(4);
    if (at + size <= text.size()) std::memcpy(text.data() + at, &value, size);
  }

  const std::vector<std::string>& seeds_;
  std::mt19937_64 random_;
};

}  // namespace

int main(int argc, char** argv) {
  if (argc < 4) {
    std::cerr << "usage: " << argv[0] << " SECONDS SEED PATH...\n";
    return 2;
  }
  for (const int signal : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGALRM}) ::signal(signal, save_and_stop);
  const auto seeds = read_seeds({argv + 3, argv + argc});
  const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(std::stod(argv[1]));
  for (const std::string& seed : seeds) run(seed);
  size_t count = 0;
  for (Mutator mutator(seeds, std::stoull(argv[2])); std::chrono::steady_clock::now() < end; ++count)
    run(mutator.next());
  std::cout << seeds.size() << " seeds and " << count << " inputs made from them" << std::endl;
}
