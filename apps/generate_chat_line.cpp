#include "generate_chat_line.h"

#include <poll.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>

#include "core/utf8.h"
#include "text/unicode.h"

namespace llmtk {
namespace {

/// Keys come one by one and are not shown, until the scope ends.
class RawMode {
 public:
  RawMode() : valid_(::tcgetattr(STDIN_FILENO, &before_) == 0) {
    termios raw = before_;
    raw.c_lflag &= ~static_cast<tcflag_t>(ICANON | ECHO | ISIG | IEXTEN);
    raw.c_iflag &= ~static_cast<tcflag_t>(IXON | INLCR);
    raw.c_cc[VMIN] = 1;
    raw.c_cc[VTIME] = 0;
    if (valid_) ::tcsetattr(STDIN_FILENO, TCSADRAIN, &raw);
    std::fputs("\x1b[?2004h", stdout);  // what is pasted comes between marks, so that its line ends do not send it
    std::fflush(stdout);
  }
  ~RawMode() {
    std::fputs("\x1b[?2004l", stdout);
    std::fflush(stdout);
    if (valid_) ::tcsetattr(STDIN_FILENO, TCSADRAIN, &before_);
  }
  RawMode(const RawMode&) = delete;
  RawMode& operator=(const RawMode&) = delete;

 private:
  termios before_{};
  bool valid_;
};

int terminal_columns() {
  winsize size{};
  return ::ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
}

/// The row, from 0, on which the cursor stands behind `text`; a wide character does not fit into a last column.
int row_behind(std::string_view text, int columns) {
  int row = 0, column = 0;
  for (size_t i = 0; i < text.size();) {
    const size_t begin = i;
    next_code_point(text, i);
    const int width = display_width(text.substr(begin, i - begin));
    if (column + width > columns) ++row, column = 0;
    column += width;
  }
  return row;
}

class Line {
 public:
  explicit Line(std::string_view prompt) : prompt_(prompt) { redraw(); }

  const std::string& text() const { return text_; }
  void add(std::string_view bytes) {
    text_ += bytes;
    if (text::incomplete_utf8_suffix(text_) == 0) redraw();  // else more bytes of the character follow
  }
  void delete_character() {
    size_t end = text_.size();
    int width = 0;
    while (end > 0 && width == 0) {  // marks have no width and go with the character before them
      size_t begin = end - 1;
      while (begin > 0 && (static_cast<unsigned char>(text_[begin]) & 0xC0) == 0x80) --begin;
      width = text_[begin] == '\n' ? 1 : display_width(std::string_view(text_).substr(begin, end - begin));
      end = begin;
    }
    text_.resize(end);
    redraw();
  }
  void delete_word() {
    while (text_.ends_with(' ')) text_.pop_back();
    text_.resize(text_.rfind(' ') + 1);  // npos + 1 is 0
    redraw();
  }
  void clear() {
    text_.clear();
    redraw();
  }

 private:
  void redraw() {
    std::string out;
    if (row_ > 0) out += "\x1b[" + std::to_string(row_) + "A";
    std::string shown = prompt_;
    for (size_t i = 0; i < text_.size();) {
      const size_t end = std::min(text_.find('\n', i), text_.size());
      shown += printable(std::string_view(text_).substr(i, end - i));
      if (end < text_.size()) shown += "↵";
      i = end + 1;
    }
    out += "\r\x1b[J" + shown;
    std::fwrite(out.data(), 1, out.size(), stdout);
    std::fflush(stdout);
    row_ = row_behind(shown, terminal_columns());
  }

  const std::string prompt_;
  std::string text_;
  int row_ = 0;
};

/// What follows the escape byte of a key that sends several (arrows and the like), as "[200~"; "" where nothing follows
/// at once: the Esc key itself.
std::string read_escape_sequence() {
  std::string sequence;
  pollfd input{.fd = STDIN_FILENO, .events = POLLIN, .revents = 0};
  constexpr int kMilliseconds = 50;
  for (char c; ::poll(&input, 1, kMilliseconds) == 1 && ::read(STDIN_FILENO, &c, 1) == 1;) {
    sequence += c;
    const bool begins = sequence == "[" || sequence == "O";
    if (!begins && (c >= 0x40 || sequence.size() == 1)) break;
  }
  return sequence;
}

constexpr std::string_view kPasteBegins = "[200~", kPasteEnds = "[201~";

enum Key : char { ctrl_c = 3, ctrl_d = 4, ctrl_h = 8, ctrl_u = 21, ctrl_w = 23, escape = 27, rubout = 127 };

}  // namespace

bool in_terminal() { return ::isatty(STDIN_FILENO) && ::isatty(STDOUT_FILENO); }

std::optional<std::string> read_terminal_line(std::string_view prompt, bool& interrupted) {
  const RawMode raw;
  Line line(prompt);
  interrupted = false;
  bool pasting = false;
  const auto finish = [&] { std::fputs("\n", stdout), std::fflush(stdout); };
  for (char c; ::read(STDIN_FILENO, &c, 1) == 1;) {
    const bool empty = line.text().empty();
    if (pasting && (c == '\n' || c == '\r')) {
      line.add("\n");
      continue;
    }
    if (c == '\n' || c == '\r') {
      finish();
      return line.text();
    }
    if (empty && (c == ctrl_d || c == ctrl_c)) {
      interrupted = c == ctrl_c;
      finish();
      return std::nullopt;
    }
    if (c == ctrl_c || c == ctrl_u)
      line.clear();
    else if (c == rubout || c == ctrl_h)
      line.delete_character();
    else if (c == ctrl_w)
      line.delete_word();
    else if (c == escape) {
      const std::string sequence = read_escape_sequence();
      pasting = sequence == kPasteBegins || (pasting && sequence != kPasteEnds);
    } else if (static_cast<unsigned char>(c) >= 0x20 || c == '\t')
      line.add({&c, 1});
  }
  finish();
  return std::nullopt;
}

}  // namespace llmtk
