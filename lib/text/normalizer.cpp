#include "text/normalizer.h"

#include <algorithm>

#include "text/unicode.h"

namespace llmtk::text {

std::string replace_all(std::string_view text, std::string_view pattern, std::string_view content) {
  std::string out;
  out.reserve(text.size() + text.size() / 4);
  for (size_t at = 0; at <= text.size();) {
    const size_t found = std::min(text.find(pattern, at), text.size());
    out += text.substr(at, found - at);
    if (found < text.size()) out += content;
    at = found < text.size() ? found + pattern.size() : text.size() + 1;
  }
  return out;
}

std::string_view Normalizer::apply(std::string_view text, std::string& buffer) const {
  std::string next;
  for (const NormalizerStep& step : steps_) {
    if (text.empty()) break;
    switch (step.kind) {
      case NormalizerStep::Kind::nfc:
        if (!to_nfc(text, next)) continue;
        break;
      case NormalizerStep::Kind::prepend:
        next = step.content;
        next += text;
        break;
      case NormalizerStep::Kind::replace:
        if (text.find(step.pattern) == text.npos) continue;
        next = replace_all(text, step.pattern, step.content);
        break;
    }
    buffer.swap(next);
    text = buffer;
  }
  return text;
}

}  // namespace llmtk::text
