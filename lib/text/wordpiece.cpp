#include "text/wordpiece.h"

#include "core/error.h"
#include "core/utf8.h"

namespace llmtk::text {

WordPieceModel::WordPieceModel(Vocabulary vocabulary, WordPieceOptions options)
    : TokenModel(std::move(vocabulary), options.unk), options_(std::move(options)) {
  LLMTK_CHECK(options_.unk >= 0);
  const std::string_view prefix = options_.continuing_subword_prefix;
  std::vector<std::pair<std::string_view, TokenId>> beginnings, continuations;
  for (size_t i = 0; i < this->vocabulary().size(); ++i) {
    const auto id = static_cast<TokenId>(i);
    const std::string_view token = this->vocabulary().token(id);
    if (token.empty()) continue;
    beginnings.emplace_back(token, id);
    if (token.starts_with(prefix) && token.size() > prefix.size())
      continuations.emplace_back(token.substr(prefix.size()), id);
  }
  beginnings_ = ByteTrie(std::move(beginnings));
  continuations_ = ByteTrie(std::move(continuations));
}

bool WordPieceModel::encode_pieces(std::string_view word, std::vector<TokenId>& out) const {
  const size_t before = out.size();
  for (size_t at = 0; at < word.size();) {
    size_t longest = 0;
    TokenId best = -1;
    (at == 0 ? beginnings_ : continuations_).for_each_prefix(word.substr(at), [&](size_t length, TokenId id) {
      longest = length;
      best = id;
    });
    if (best < 0) {
      out.resize(before);
      return false;
    }
    out.push_back(best);
    at += longest;
  }
  return true;
}

void WordPieceModel::encode_short(std::string_view word, WordCache& /*cache*/, std::vector<TokenId>& out) const {
  const bool too_long =
      word.size() > options_.max_input_chars_per_word && count_code_points(word) > options_.max_input_chars_per_word;
  if (too_long || !encode_pieces(word, out)) out.push_back(unk());
}

void WordPieceModel::encode_long(std::string_view word, const char* /*readable_end*/, WordCache& cache,
                                 std::vector<TokenId>& out) const {
  encode_short(word, cache, out);
}

}  // namespace llmtk::text
