// A program that reads all of its input and answers, with an end to its time.

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>

#include "core/error.h"
#include "core/utf8.h"
#include "rl/rewards.h"

namespace llmtk::rl {
namespace {

using CommandClock = std::chrono::steady_clock;

/// Both ends close with it.
struct CommandPipe {
  CommandPipe() {
    if (::pipe2(ends, O_CLOEXEC) != 0) throw Error(Exit::runtime, {.what = "no pipe", .got = std::strerror(errno)});
  }
  ~CommandPipe() {
    for (int& end : ends) close(end);
  }
  static void close(int& end) {
    if (end >= 0) ::close(std::exchange(end, -1));
  }
  int ends[2] = {-1, -1};
};

/// A program that stops reading must not end this one.
struct IgnoreBrokenPipe {
  IgnoreBrokenPipe() { ::sigaction(SIGPIPE, nullptr, &before), ::signal(SIGPIPE, SIG_IGN); }
  ~IgnoreBrokenPipe() { ::sigaction(SIGPIPE, &before, nullptr); }
  struct sigaction before;
};

class Filter {
 public:
  Filter(const std::string& command, const std::string& input, double timeout)
      : command_(command),
        input_(input),
        timeout_(timeout),
        end_(CommandClock::now() + std::chrono::duration_cast<CommandClock::duration>(std::chrono::duration<double>(timeout))) {}
  ~Filter() {
    if (child_ > 0) kill_it();
  }

  std::string run() {
    const IgnoreBrokenPipe ignore;
    start();
    while (out_.ends[0] >= 0 || err_.ends[0] >= 0) exchange();
    const int status = wait();
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
      throw Error(Exit::runtime, {.what = "the reward command failed",
                                  .where = command_,
                                  .got = (WIFEXITED(status) ? "exit code " + std::to_string(WEXITSTATUS(status))
                                                            : "signal " + std::to_string(WTERMSIG(status))) +
                                         (said_.empty() ? "" : ", last words " + in_quotes(last_words()))});
    return answer_;
  }

 private:
  void start() {
    child_ = ::fork();
    if (child_ < 0) throw Error(Exit::runtime, {.what = "cannot start the reward command", .got = std::strerror(errno)});
    if (child_ == 0) {
      ::setpgid(0, 0);
      ::signal(SIGPIPE, SIG_DFL);
      if (::dup2(in_.ends[0], 0) < 0 || ::dup2(out_.ends[1], 1) < 0 || ::dup2(err_.ends[1], 2) < 0) ::_exit(126);
      ::execl("/bin/sh", "sh", "-c", command_.c_str(), static_cast<char*>(nullptr));
      ::_exit(127);
    }
    ::setpgid(child_, child_);  // whoever of the two is first
    CommandPipe::close(in_.ends[0]);
    CommandPipe::close(out_.ends[1]);
    CommandPipe::close(err_.ends[1]);
    for (const int end : {in_.ends[1], out_.ends[0], err_.ends[0]}) ::fcntl(end, F_SETFL, O_NONBLOCK);
  }

  void exchange() {
    if (written_ == input_.size()) CommandPipe::close(in_.ends[1]);
    pollfd ends[] = {{in_.ends[1], POLLOUT, 0}, {out_.ends[0], POLLIN, 0}, {err_.ends[0], POLLIN, 0}};
    if (::poll(ends, 3, milliseconds_left()) < 0 && errno != EINTR)
      throw Error(Exit::runtime, {.what = "lost the reward command", .where = command_, .got = std::strerror(errno)});
    if (ends[0].revents != 0) write();
    if (ends[1].revents != 0) read(out_, answer_);
    if (ends[2].revents != 0) read(err_, said_);
  }

  void write() {
    const ssize_t done = ::write(in_.ends[1], input_.data() + written_, input_.size() - written_);
    if (done >= 0) written_ += static_cast<size_t>(done);
    else if (errno == EPIPE) CommandPipe::close(in_.ends[1]);  // it has read enough, or died
  }

  static void read(CommandPipe& pipe, std::string& into) {
    char bytes[1 << 16];
    const ssize_t done = ::read(pipe.ends[0], bytes, sizeof bytes);
    if (done > 0) into.append(bytes, static_cast<size_t>(done));
    if (done == 0 || (done < 0 && errno != EAGAIN && errno != EINTR)) CommandPipe::close(pipe.ends[0]);
    if (into.size() > kMost) into.erase(0, into.size() - kMost);
  }

  /// Throws where none are left.
  int milliseconds_left() {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(end_ - CommandClock::now()).count();
    if (left > 0) return static_cast<int>(std::min<int64_t>(left, 1 << 30));
    kill_it();
    throw Error(Exit::runtime, {.what = "the reward command does not come to an end",
                                .where = command_,
                                .got = detail::concat("nothing more after ", timeout_, " s"),
                                .hint = "it gets all lines, then the end of its input; give it more time: rewards, timeout"});
  }

  /// It may close its output and go on.
  int wait() {
    for (int status = 0;; ::usleep(1000)) {
      if (::waitpid(child_, &status, WNOHANG) == child_) {
        child_ = -1;
        return status;
      }
      milliseconds_left();
    }
  }

  void kill_it() {
    ::kill(-child_, SIGKILL);
    int status = 0;
    while (::waitpid(child_, &status, 0) < 0 && errno == EINTR) {
    }
    child_ = -1;
  }

  std::string last_words() const {
    const size_t end = said_.find_last_not_of(" \r\n\t");
    if (end == std::string::npos) return {};
    const size_t begin = said_.find_last_of('\n', end);
    return said_.substr(begin == std::string::npos ? 0 : begin + 1, end - (begin == std::string::npos ? 0 : begin + 1) + 1);
  }

  static constexpr size_t kMost = size_t{64} << 20;  ///< bytes that are kept of what it writes
  const std::string &command_, &input_;
  double timeout_;
  CommandClock::time_point end_;
  CommandPipe in_, out_, err_;
  pid_t child_ = -1;
  size_t written_ = 0;
  std::string answer_, said_;
};

}  // namespace

std::string run_filter(const std::string& command, const std::string& input, double timeout) {
  return Filter(command, input, timeout).run();
}

}  // namespace llmtk::rl
