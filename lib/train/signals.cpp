#include "train/signals.h"

#include <signal.h>
#include <unistd.h>

#include <array>
#include <atomic>

#include "core/error.h"

namespace llmtk::train {
namespace {

constexpr std::array kSignals = {SIGTERM, SIGINT};
std::atomic<int> g_received{0};
std::array<struct sigaction, kSignals.size()> g_before;
bool g_installed = false;

void on_signal(int signal) {
  int none = 0;
  if (!g_received.compare_exchange_strong(none, signal)) _exit(128 + signal);
}

}  // namespace

StopSignals::StopSignals() {
  LLMTK_CHECK(!g_installed);
  g_installed = true;
  g_received = 0;
  struct sigaction action {};
  action.sa_handler = on_signal;
  action.sa_flags = SA_RESTART;  // the loader's reads go on
  sigemptyset(&action.sa_mask);
  for (size_t i = 0; i < kSignals.size(); ++i) sigaction(kSignals[i], &action, &g_before[i]);
}

StopSignals::~StopSignals() {
  for (size_t i = 0; i < kSignals.size(); ++i) sigaction(kSignals[i], &g_before[i], nullptr);
  g_installed = false;
}

int StopSignals::received() const { return g_received.load(); }

const char* StopSignals::name(int signal) {
  return signal == SIGTERM ? "SIGTERM" : signal == SIGINT ? "SIGINT" : "a signal";
}

}  // namespace llmtk::train
