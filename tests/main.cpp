#define CATCH_CONFIG_RUNNER
#include "test.h"

#include <unistd.h>

#include <iostream>

namespace llmtk::test {
namespace {
int skipped = 0;
int started = 0;

struct CountCases : Catch::TestEventListenerBase {
  using TestEventListenerBase::TestEventListenerBase;
  void testCaseStarting(const Catch::TestCaseInfo& info) override {
    TestEventListenerBase::testCaseStarting(info);
    ++started;
  }
};
CATCH_REGISTER_LISTENER(CountCases)
}  // namespace

void report_skip(const std::string& reason) {
  ++skipped;
  std::cout << "SKIPPED: " << Catch::getResultCapture().getCurrentTestName() << ": " << reason << std::endl;
}

TemporaryFolder::TemporaryFolder() {
  std::string pattern = (std::filesystem::temp_directory_path() / "llmtk-test-XXXXXX").string();
  if (!::mkdtemp(pattern.data())) throw std::runtime_error("cannot make a temporary folder");
  path_ = pattern;
}

TemporaryFolder::~TemporaryFolder() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}
}  // namespace llmtk::test

int main(int argc, char** argv) {
  const int result = Catch::Session().run(argc, argv);
  constexpr int kSkipped = 77;  // what ctest's SKIP_RETURN_CODE is set to
  if (result == 0 && llmtk::test::skipped == llmtk::test::started) return kSkipped;
  return result;
}
