#include "text/sentencepiece_json.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <tuple>
#include <unordered_map>
#include <vector>

#include "text/protobuf.h"

namespace llmtk::text {
namespace {

using OrderedJson = nlohmann::ordered_json;

/// What sentencepiece_model.proto holds, of that what ids depend on.
struct Model {
  enum Type : uint64_t { kUnigram = 1, kBpe = 2 };
  struct Piece {
    enum Kind : uint64_t { kNormal = 1, kUnknown = 2, kControl = 3, kByte = 6 };
    std::string text;
    float score = 0;
    uint64_t kind = kNormal;
    bool special() const { return kind == kUnknown || kind == kControl; }
  };
  std::vector<Piece> pieces;
  uint64_t type = kUnigram;
  bool byte_fallback = false, blank_at_the_end = false;
  bool normalizes = false, adds_blank = true, removes_blanks = true, spells_blanks = true;
};

Model::Piece read_piece(std::string_view message) {
  Model::Piece piece;
  for_each_field(message, [&](const ProtoField& field) {
    if (field.id == 1) piece.text = field.bytes;
    if (field.id == 3) piece.kind = field.number;
    if (field.id != 2 || field.bytes.size() != 4) return;
    uint32_t bits = 0;
    for (int i = 3; i >= 0; --i) bits = bits << 8 | static_cast<unsigned char>(field.bytes[static_cast<size_t>(i)]);
    piece.score = std::bit_cast<float>(bits);
  });
  return piece;
}

Model read_model(std::string_view bytes) {
  Model model;
  for_each_field(bytes, [&](const ProtoField& part) {
    if (part.id == 1) model.pieces.push_back(read_piece(part.bytes));
    if (part.id == 2)
      for_each_field(part.bytes, [&](const ProtoField& field) {
        if (field.id == 3) model.type = field.number;
        if (field.id == 24) model.blank_at_the_end = field.number != 0;
        if (field.id == 35) model.byte_fallback = field.number != 0;
      });
    if (part.id == 3)
      for_each_field(part.bytes, [&](const ProtoField& field) {
        if (field.id == 2) model.normalizes = !field.bytes.empty();
        if (field.id == 3) model.adds_blank = field.number != 0;
        if (field.id == 4) model.removes_blanks = field.number != 0;
        if (field.id == 5) model.spells_blanks = field.number != 0;
      });
  });
  return model;
}

bool can_be_said(const Model& model) {
  using Piece = Model::Piece;
  return (model.type == Model::kBpe || model.type == Model::kUnigram) && !model.blank_at_the_end && !model.normalizes &&
         model.adds_blank && !model.removes_blanks && model.spells_blanks &&
         std::ranges::all_of(model.pieces, [](const Piece& piece) {
           const bool bounded = piece.text.size() <= kMostPieceBytes && std::isfinite(piece.score);
           return bounded && (piece.kind == Piece::kNormal || piece.kind == Piece::kByte || piece.special());
         });
}

/// Two pieces whose text together is a piece: joined in the order of the scores.
OrderedJson merges(const Model& model) {
  std::unordered_map<std::string_view, size_t> ids;
  for (size_t id = 0; id < model.pieces.size(); ++id)
    if (model.pieces[id].kind == Model::Piece::kNormal) ids.emplace(model.pieces[id].text, id);
  std::vector<std::tuple<float, size_t, size_t>> found;
  for (const auto& [text, id] : ids)
    for (size_t cut = 1; cut < text.size(); ++cut) {
      const auto left = ids.find(text.substr(0, cut)), right = ids.find(text.substr(cut));
      if (left != ids.end() && right != ids.end())
        found.emplace_back(-model.pieces[id].score, left->second, right->second);
    }
  std::ranges::sort(found);
  OrderedJson list = OrderedJson::array();
  for (const auto& [score, left, right] : found) list.push_back({model.pieces[left].text, model.pieces[right].text});
  return list;
}

OrderedJson model_json(const Model& model, size_t unknown) {
  if (model.type == Model::kBpe) {
    nlohmann::json vocabulary;
    for (size_t id = 0; id < model.pieces.size(); ++id) vocabulary[model.pieces[id].text] = id;
    return {{"type", "BPE"},
            {"dropout", nullptr},
            {"fuse_unk", true},
            {"byte_fallback", model.byte_fallback},
            {"vocab", vocabulary},
            {"merges", merges(model)},
            {"unk_token", model.pieces[unknown].text}};
  }
  // Among the pieces of a text a byte's spelling must not win; a byte itself is looked up by name.
  constexpr float kNever = -1000;
  OrderedJson vocabulary = OrderedJson::array();
  for (const auto& piece : model.pieces)
    vocabulary.push_back({piece.text, piece.kind == Model::Piece::kByte ? kNever : piece.score});
  return {{"type", "Unigram"}, {"unk_id", unknown}, {"byte_fallback", model.byte_fallback}, {"vocab", vocabulary}};
}

OrderedJson post_processor_json(const Model& model, const std::string& bos) {
  if (bos.empty()) return nullptr;
  const auto at = std::ranges::find(model.pieces, bos, &Model::Piece::text);
  const auto token = [&](int type) { return OrderedJson{{"SpecialToken", {{"id", bos}, {"type_id", type}}}}; };
  const auto text = [](const char* id, int type) { return OrderedJson{{"Sequence", {{"id", id}, {"type_id", type}}}}; };
  return {{"type", "TemplateProcessing"},
          {"single", OrderedJson::array({token(0), text("A", 0)})},
          {"pair", OrderedJson::array({token(0), text("A", 0), token(1), text("B", 1)})},
          {"special_tokens",
           {{bos,
             {{"id", bos},
              {"ids", OrderedJson::array({at - model.pieces.begin()})},
              {"tokens", OrderedJson::array({bos})}}}}}};
}

}  // namespace

std::optional<std::string> sentencepiece_json(std::string_view bytes, const std::string& bos) {
  const Model model = read_model(bytes);
  const auto unknown = std::ranges::find(model.pieces, Model::Piece::kUnknown, &Model::Piece::kind);
  if (!can_be_said(model) || unknown == model.pieces.end()) return std::nullopt;
  OrderedJson added = OrderedJson::array();
  for (size_t id = 0; id < model.pieces.size(); ++id)
    if (model.pieces[id].special())
      added.push_back({{"id", id},
                       {"content", model.pieces[id].text},
                       {"single_word", false},
                       {"lstrip", false},
                       {"rstrip", false},
                       {"normalized", false},
                       {"special", true}});
  const OrderedJson blank = {{"String", " "}}, spelled = {{"String", kSpaceMark}};
  const OrderedJson json = {
      {"version", "1.0"},
      {"truncation", nullptr},
      {"padding", nullptr},
      {"added_tokens", added},
      {"normalizer",
       {{"type", "Sequence"},
        {"normalizers", OrderedJson::array({{{"type", "Prepend"}, {"prepend", kSpaceMark}},
                                            {{"type", "Replace"}, {"pattern", blank}, {"content", kSpaceMark}}})}}},
      {"pre_tokenizer", nullptr},
      {"post_processor", post_processor_json(model, bos)},
      {"decoder",
       {{"type", "Sequence"},
        {"decoders", OrderedJson::array({{{"type", "Replace"}, {"pattern", spelled}, {"content", " "}},
                                         {{"type", "ByteFallback"}},
                                         {{"type", "Fuse"}},
                                         {{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}}})}}},
      {"model", model_json(model, static_cast<size_t>(unknown - model.pieces.begin()))}};
  return json.dump() + "\n";
}

}  // namespace llmtk::text
