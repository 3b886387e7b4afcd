#include "text/regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <new>

#include "core/error.h"
#include "text/unicode.h"

namespace llmtk::text {
namespace {

std::string pcre_message(int error) {
  PCRE2_UCHAR text[256];
  pcre2_get_error_message(error, text, sizeof text);
  return reinterpret_cast<const char*>(text);
}

}  // namespace

void Regex::Free::operator()(void* code) const { pcre2_code_free(static_cast<pcre2_code*>(code)); }

Regex::Regex(std::string pattern, std::string what, std::string where)
    : pattern_(std::move(pattern)), what_(std::move(what)), where_(std::move(where)) {
  int error = 0;
  PCRE2_SIZE offset = 0;
  constexpr uint32_t kOptions = PCRE2_UTF | PCRE2_UCP | PCRE2_MATCH_INVALID_UTF | PCRE2_NEVER_BACKSLASH_C;
  pcre2_code* code =
      pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern_.data()), pattern_.size(), kOptions, &error, &offset, nullptr);
  if (!code)
    throw Error(Exit::file, {.what = what_ + " does not compile: " + pcre_message(error),
                             .where = where_,
                             .got = "'" + pattern_ + "' (at character " + std::to_string(offset) + ")"});
  code_.reset(code);
  pcre2_jit_compile(code, PCRE2_JIT_COMPLETE);
}

std::vector<std::pair<size_t, size_t>> Regex::matches(std::string_view text) const {
  struct FreeMatch {
    void operator()(pcre2_match_data* p) const { pcre2_match_data_free(p); }
  };
  const auto* code = static_cast<const pcre2_code*>(code_.get());
  struct FreeContext {
    void operator()(pcre2_match_context* p) const { pcre2_match_context_free(p); }
  };
  std::unique_ptr<pcre2_match_context, FreeContext> context(pcre2_match_context_create(nullptr));
  if (!context) throw std::bad_alloc();
  constexpr uint32_t kMostKiB = 1 << 20;
  pcre2_set_heap_limit(context.get(), kMostKiB);
  std::unique_ptr<pcre2_match_data, FreeMatch> match(pcre2_match_data_create_from_pattern(code, nullptr));
  if (!match) throw std::bad_alloc();
  std::vector<std::pair<size_t, size_t>> found;
  for (size_t at = 0; at < text.size();) {
    const auto match_with = [&](uint32_t options) {
      return pcre2_match(code, reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), at, options, match.get(),
                         context.get());
    };
    int rc = match_with(0);
    // What was compiled has a small stack; the interpreter takes from the heap for groups that repeat a thousand times.
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT) rc = match_with(PCRE2_NO_JIT);
    if (rc == PCRE2_ERROR_NOMATCH) break;
    if (rc < 0)
      throw Error(Exit::file, {.what = what_ + " cannot be matched: " + pcre_message(rc),
                               .where = where_,
                               .got = "'" + pattern_ + "' on a text of " + std::to_string(text.size()) + " bytes"});
    const PCRE2_SIZE* range = pcre2_get_ovector_pointer(match.get());
    if (range[1] > range[0]) found.emplace_back(range[0], range[1]);
    at = range[1];
    if (range[1] <= range[0]) at += decode_utf8(text.data() + at, text.data() + text.size()).size;
  }
  return found;
}

}  // namespace llmtk::text
