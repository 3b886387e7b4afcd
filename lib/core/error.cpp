#include "core/error.h"

#include "core/utf8.h"

namespace llmtk {
namespace {

std::string message_of(const Error::Parts& p) {
  std::string text;
  if (!p.where.empty()) text += p.where + ": ";
  text += p.what;
  if (!p.got.empty()) text += ": got " + p.got;
  if (!p.expected.empty()) text += (p.got.empty() ? ": expected " : ", expected ") + p.expected;
  if (!p.hint.empty()) text += " (" + p.hint + ")";
  return text;
}

}  // namespace

Error::Error(Exit exit, Parts parts) : exit_(exit), parts_(std::move(parts)), message_(one_line(message_of(parts_))) {}

namespace detail {
void check_failed(const char* file, int line, const char* condition, const std::string& details) {
  throw CheckFailed(concat(file, ":", line, ": check failed: ", condition, details.empty() ? "" : ": ", details));
}
}  // namespace detail

}  // namespace llmtk
