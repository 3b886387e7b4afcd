#include "gguf_target.h"

#include <algorithm>
#include <cctype>

#include "core/error.h"
#include "models/gguf.h"
#include "text/gguf_write.h"

namespace llmtk {
namespace {

using Json = nlohmann::ordered_json;

/// What ends a text, as the source says it: its generation_config.json, else its config.json.
std::vector<text::TokenId> end_ids(const fs::path& source, const Json& config) {
  Json ids = config.value("eos_token_id", Json());
  if (const fs::path file = source / "generation_config.json"; fs::exists(file))
    if (const Json generation = io::read_json(file); generation.contains("eos_token_id"))
      ids = generation["eos_token_id"];
  std::vector<text::TokenId> found;
  for (const Json& id : ids.is_array() ? ids : Json::array({ids}))
    if (id.is_number_integer()) found.push_back(id.get<text::TokenId>());
  return found;
}

/// The last name of a path, without what follows its last dot.
std::string name_of(const fs::path& source) {
  const fs::path whole = fs::absolute(source).lexically_normal();
  return whole.has_filename() ? whole.stem().string() : whole.parent_path().filename().string();
}

}  // namespace

io::GgufType parse_gguf_type(const std::string& text, c10::ScalarType stored) {
  using io::GgufType;
  if (text == "auto")
    return stored == c10::kHalf ? GgufType::f16 : stored == c10::kBFloat16 ? GgufType::bf16 : GgufType::f32;
  std::string upper = text;
  for (char& c : upper) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  for (const auto type : {GgufType::f32, GgufType::f16, GgufType::bf16, GgufType::q8_0, GgufType::q4_0, GgufType::q4_1})
    if (io::gguf_type_name(type) == upper) return type;
  throw Error(
      Exit::usage,
      {.what = "--type is unknown", .got = "'" + text + "'", .expected = "auto, F32, F16, BF16, Q8_0, Q4_0 or Q4_1"});
}

Json write_gguf(const nn::Model& model, const GgufTarget& t) {
  const io::GgufMetadata vocabulary = t.tokenizer
                                          ? text::gguf_vocabulary(*t.tokenizer, model.vocab_size(),
                                                                  end_ids(t.source, model.config()), t.source.string())
                                          : io::GgufMetadata{};
  if (t.target.has_parent_path()) fs::create_directories(t.target.parent_path());
  const auto receipt =
      models::save_gguf(model, t.target, t.type, t.name.empty() ? name_of(t.source) : t.name, vocabulary);
  return {{"type", io::gguf_type_name(t.type)},     {"tensors", receipt.tensors},
          {"parameters", receipt.parameters},       {"bytes", receipt.bytes},
          {"largest_error", receipt.largest_error}, {"relative_error", receipt.relative_error},
          {"worst_tensor", receipt.worst_tensor}};
}

}  // namespace llmtk
