#pragma once
// Tokens as people read them.

#include <span>
#include <string>
#include <vector>

#include "text/tokenizer.h"

namespace llmtk {

/// One label per token: its text, a leading space as "␣", line ends and the like escaped; a special token as the
/// vocabulary spells it. Tokens that are parts of one character ("你" in two) are labelled with the character and the
/// part: "你 1/2", "你 2/2".
std::vector<std::string> token_labels(const text::Tokenizer& tokenizer, std::span<const text::TokenId> ids);

}  // namespace llmtk
