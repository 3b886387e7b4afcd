#include "text/post_processor.h"

#include <algorithm>

#include "core/error.h"

namespace llmtk::text {

using Piece = PostProcessor::Piece;

PostProcessor::PostProcessor() : PostProcessor({{}}, {{}, {.kind = Piece::Kind::pair, .type_id = 1}}) {}

PostProcessor::PostProcessor(std::vector<Piece> single, std::vector<Piece> pair)
    : single_(std::move(single)), pair_(std::move(pair)) {
  const auto count = [](const std::vector<Piece>& pieces, Piece::Kind kind) {
    return std::ranges::count(pieces, kind, &Piece::kind);
  };
  LLMTK_CHECK(count(single_, Piece::Kind::text) == 1 && count(single_, Piece::Kind::pair) == 0);
  LLMTK_CHECK(count(pair_, Piece::Kind::text) == 1 && count(pair_, Piece::Kind::pair) == 1);
  std::vector<TokenId>* side = &before_;
  for (const Piece& piece : single_) {
    if (piece.kind == Piece::Kind::text) side = &after_;
    side->insert(side->end(), piece.ids.begin(), piece.ids.end());
  }
}

bool PostProcessor::adds_nothing() const {
  const auto is_text = [](const Piece& piece) { return piece.kind != Piece::Kind::tokens; };
  return std::ranges::all_of(single_, is_text) && std::ranges::all_of(pair_, is_text);
}

Encoding PostProcessor::apply(const std::vector<TokenId>& text, const std::vector<TokenId>* pair,
                              bool add_special_tokens) const {
  Encoding out;
  for (const Piece& piece : pair ? pair_ : single_) {
    if (piece.kind == Piece::Kind::tokens && !add_special_tokens) continue;
    const auto& ids = piece.kind == Piece::Kind::text ? text : piece.kind == Piece::Kind::pair ? *pair : piece.ids;
    out.ids.insert(out.ids.end(), ids.begin(), ids.end());
    out.type_ids.resize(out.ids.size(), piece.type_id);
  }
  return out;
}

}  // namespace llmtk::text
