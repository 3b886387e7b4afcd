#include "text/gguf_write.h"

#include <cstdlib>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "core/error.h"
#include "core/file.h"
#include "core/log.h"
#include "core/utf8.h"
#include "text/chat_template.h"
#include "text/gguf_pre_tokenizers.h"
#include "text/gguf_read.h"
#include "text/json_reader.h"
#include "text/sentencepiece_json.h"

namespace llmtk::text {
namespace {

class ScratchFolder {
 public:
  ScratchFolder() {
    std::string name = (fs::temp_directory_path() / "llmtk-XXXXXX").string();
    if (!::mkdtemp(name.data())) throw Error(Exit::file, {.what = "cannot make a temporary folder", .where = name});
    path_ = name;
  }
  ~ScratchFolder() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  ScratchFolder(const ScratchFolder&) = delete;
  ScratchFolder& operator=(const ScratchFolder&) = delete;
  const fs::path& path() const { return path_; }

 private:
  fs::path path_;
};

[[noreturn]] void cannot_say(const std::string& what, const std::string& where, const std::string& got = {},
                             const std::string& expected = {}) {
  throw Error(Exit::file, {.what = "GGUF cannot hold this tokenizer: " + what,
                           .where = where,
                           .got = got,
                           .expected = expected,
                           .hint = "--no-tokenizer writes the weights alone"});
}

/// A tokenizer's tokenizer.json and chat templates, whatever kind of files it came from.
struct SavedTokenizer {
  Json json;
  std::vector<TemplateSource> templates;
};

SavedTokenizer save_and_read(const Tokenizer& tokenizer, const std::string& where) {
  const ScratchFolder folder;
  tokenizer.save(folder.path());
  if (!fs::exists(folder.path() / "tokenizer.json")) cannot_say("no tokenizer.json says the same", where);
  return {.json = parse_json(read_file(folder.path() / "tokenizer.json"), where),
          .templates = find_template_sources(folder.path())};
}

struct TokenTable {
  std::vector<std::string> texts;
  std::vector<GgufKind> kinds;
};

std::vector<int32_t> numbers_of(const std::vector<GgufKind>& kinds) {
  std::vector<int32_t> numbers;
  for (const GgufKind kind : kinds) numbers.push_back(static_cast<int32_t>(kind));
  return numbers;
}

TokenTable read_tokens(const Json& json, int64_t vocab_size, const std::string& where) {
  TokenTable table;
  for (int64_t id = 0; id < vocab_size; ++id) table.texts.push_back("[PAD" + std::to_string(id) + "]");
  table.kinds.assign(table.texts.size(), GgufKind::unused);
  const auto put = [&](int64_t id, const std::string& text, GgufKind kind) {
    if (id >= vocab_size)
      cannot_say("its ids go beyond the model's token table", where, std::to_string(id),
                 "below " + std::to_string(vocab_size));
    table.texts[static_cast<size_t>(id)] = text;
    table.kinds[static_cast<size_t>(id)] = kind;
  };
  for (const auto& [text, id] : json.at("model").at("vocab").items()) put(id.get<int64_t>(), text, GgufKind::normal);
  for (const Json& token : json.value("added_tokens", Json::array()))
    put(token.at("id").get<int64_t>(), token.at("content").get<std::string>(),
        token.value("special", false) ? GgufKind::control : GgufKind::user_defined);
  return table;
}

using Merge = std::pair<std::string, std::string>;

std::vector<Merge> read_merges(const Json& json) {
  std::vector<Merge> merges;
  for (const Json& merge : json.at("model").at("merges")) {
    if (merge.is_array()) {
      merges.emplace_back(merge.at(0).get<std::string>(), merge.at(1).get<std::string>());
    } else {
      const auto text = merge.get<std::string>();
      const size_t blank = text.find(' ', 1);
      merges.emplace_back(text.substr(0, blank), text.substr(blank + 1));
    }
  }
  return merges;
}

/// The name of the rules by which the words are cut.
std::string name_of_rules(const Json& json, const std::string& where) {
  const auto rules = rules_of(json.value("pre_tokenizer", Json()));
  const bool ignore_merges = json.at("model").value("ignore_merges", false);
  const auto normalizer = json.find("normalizer");
  const bool normalizes = normalizer != json.end() && !normalizer->is_null();
  if (normalizes && normalizer->value("type", "") != "NFC")
    cannot_say("it normalizes texts", where, normalizer->dump().substr(0, 200), "NFC or nothing");
  std::string known;
  for (const GgufPreTokenizer& row : gguf_pre_tokenizers()) {
    if (row.rules == rules && row.ignore_merges == ignore_merges && row.nfc == normalizes) return std::string(row.name);
    known += (known.empty() ? "" : ", ") + std::string(row.name);
  }
  cannot_say("llama.cpp has no name for its pre-tokenizer", where,
             json.value("pre_tokenizer", Json()).dump().substr(0, 300), "the pre_tokenizer of " + known);
}

void add_byte_level(const Json& json, const TokenTable& table, const std::string& where, io::GgufMetadata& out) {
  out.emplace_back("tokenizer.ggml.model", "gpt2");
  out.emplace_back("tokenizer.ggml.pre", name_of_rules(json, where));
  out.emplace_back("tokenizer.ggml.tokens", table.texts);
  out.emplace_back("tokenizer.ggml.token_type", numbers_of(table.kinds));
  std::vector<std::string> lines;
  for (const auto& [left, right] : read_merges(json)) lines.push_back(left + " " + right);
  out.emplace_back("tokenizer.ggml.merges", std::move(lines));
}

/// Whether a pre-tokenizer only spells blanks U+2581, as transformers 5 saves Llama's.
bool spells_blanks(const Json& pre_tokenizer) {
  return pre_tokenizer.is_object() && pre_tokenizer.value("type", "") == "Metaspace" &&
         pre_tokenizer.value("replacement", "") == kSpaceMark && !pre_tokenizer.value("split", true);
}

/// Whether blanks are spelled U+2581, and whether one is put before a text; nothing for other tokenizers.
std::optional<bool> puts_blank_in_front(const Json& json) {
  const Json normalizer = json.value("normalizer", Json());
  if (const Json pre = json.value("pre_tokenizer", Json()); normalizer.is_null() && spells_blanks(pre))
    return pre.value("prepend_scheme", pre.value("add_prefix_space", true) ? "always" : "never") != "never";
  if (!normalizer.is_object()) return std::nullopt;
  const Json steps = normalizer.value("type", "") == "Sequence" ? normalizer.value("normalizers", Json::array())
                                                                : Json::array({normalizer});
  bool prefix = false, spelled = false;
  for (const Json& step : steps) {
    const std::string type = step.value("type", "");
    const bool replaces = type == "Replace" && step.value("pattern", Json()) == Json{{"String", " "}} &&
                          step.value("content", "") == kSpaceMark;
    if (type == "Prepend" && step.value("prepend", "") == kSpaceMark && !spelled)
      prefix = true;
    else if (replaces && !spelled)
      spelled = true;
    else
      return std::nullopt;
  }
  if (!spelled) return std::nullopt;
  return prefix;
}

/// Scores from which the same merges follow: a piece's is the rank of the first merge that makes it. The merges of a
/// sentencepiece model are all that its pieces allow, in the order of the scores; others have no scores.
std::vector<float> scores_of(const TokenTable& table, const std::vector<Merge>& merges, const std::string& where) {
  std::map<std::string, size_t> rank;
  for (size_t i = 0; i < merges.size(); ++i) rank.emplace(merges[i].first + merges[i].second, i);
  std::vector<float> scores;
  std::vector<ScoredPiece> pieces;
  for (size_t id = 0; id < table.texts.size(); ++id) {
    const auto found = rank.find(table.texts[id]);
    // A float counts to 2^24; no vocabulary has as many merges.
    scores.push_back(-static_cast<float>(found == rank.end() ? merges.size() + id : found->second));
    pieces.push_back({table.texts[id], scores.back(),
                      table.kinds[id] == GgufKind::normal || table.kinds[id] == GgufKind::user_defined});
  }
  const auto follow = merges_of_scores(pieces);
  const auto differs = [&] {
    if (follow.size() != merges.size()) return true;
    std::set<Merge> given(merges.begin(), merges.end());
    for (size_t i = 0; i < merges.size(); ++i) {
      const Merge merge{table.texts[follow[i].first], table.texts[follow[i].second]};
      // In order, but for those that make the same piece.
      if (!given.contains(merge) || merge.first + merge.second != merges[i].first + merges[i].second) return true;
    }
    return false;
  };
  if (differs())
    cannot_say("its merges are not those that scores of the pieces would give", where,
               std::to_string(merges.size()) + " merges", std::to_string(follow.size()) + " in the order of scores");
  return scores;
}

void add_sentencepiece(const Json& json, TokenTable table, bool prefix, const std::string& where,
                       io::GgufMetadata& out) {
  const Json& model = json.at("model");
  const Json pre = json.value("pre_tokenizer", Json());
  // Where blanks are spelled already, cutting at them cuts nothing.
  const bool idle =
      pre.is_object() && pre.value("type", "") == "Split" && pre.value("pattern", Json()) == Json{{"String", " "}};
  if (spells_blanks(pre) && prefix)
    log::warn(where +
              ": programs that read GGUF put a blank before a text that begins with one, too; this tokenizer "
              "does not");
  if (!pre.is_null() && !idle && !spells_blanks(pre))
    cannot_say("it cuts texts into words", where, pre.dump().substr(0, 200), "no pre_tokenizer");
  if (model.value("byte_fallback", false))
    for (int byte = 0; byte < 256; ++byte) {
      char text[8];
      std::snprintf(text, sizeof text, "<0x%02X>", static_cast<unsigned>(byte));
      if (const auto found = model.at("vocab").find(text); found != model.at("vocab").end())
        table.kinds[found->get<size_t>()] = GgufKind::byte;
    }
  if (model.contains("unk_token") && model["unk_token"].is_string())
    if (const auto found = model["vocab"].find(model["unk_token"].get<std::string>()); found != model["vocab"].end())
      table.kinds[found->get<size_t>()] = GgufKind::unknown;
  out.emplace_back("tokenizer.ggml.model", "llama");
  out.emplace_back("tokenizer.ggml.pre", "default");
  const auto merges = read_merges(json);
  auto scores = scores_of(table, merges, where);
  out.emplace_back("tokenizer.ggml.tokens", std::move(table.texts));
  out.emplace_back("tokenizer.ggml.scores", std::move(scores));
  out.emplace_back("tokenizer.ggml.token_type", numbers_of(table.kinds));
  out.emplace_back("tokenizer.ggml.add_space_prefix", prefix);
}

/// The ids with a role, and what a text gets around it.
void add_roles(const Tokenizer& tokenizer, const std::vector<TokenId>& end_ids, const std::string& where,
               io::GgufMetadata& out) {
  const SpecialTokens special = tokenizer.special_tokens();
  const auto role = [&](const char* name, TokenId id) {
    if (id >= 0) out.emplace_back(std::string("tokenizer.ggml.") + name + "_token_id", static_cast<uint32_t>(id));
  };
  std::vector<TokenId> ends = end_ids;
  if (ends.empty() && special.eos >= 0) ends = {special.eos};
  role("bos", special.bos);
  static constexpr const char* kEnds[] = {"eos", "eot", "eom"};
  for (size_t i = 0; i < std::min(ends.size(), std::size(kEnds)); ++i) role(kEnds[i], ends[i]);
  if (ends.size() > std::size(kEnds)) {
    std::string left;
    for (size_t i = std::size(kEnds); i < ends.size(); ++i)
      left += (left.empty() ? "" : ", ") + std::to_string(ends[i]) + " " + in_quotes(tokenizer.id_to_token(ends[i]));
    log::warn(where + ": GGUF has room for 3 ids that end a text; there it will not end at " + left);
  }
  role("unknown", special.unk);
  role("padding", special.pad);

  const std::vector<TokenId> before = tokenizer.prefix();
  std::vector<TokenId> bare, around;
  tokenizer.encode("a", bare, false);
  tokenizer.encode("a", around, true);
  const std::vector<TokenId> after(around.begin() + static_cast<std::ptrdiff_t>(before.size() + bare.size()),
                                   around.end());
  const bool add_bos = !before.empty(), add_eos = !after.empty();
  if ((add_bos && before != std::vector<TokenId>{special.bos}) ||
      (add_eos && (ends.empty() || after != std::vector<TokenId>{ends.front()})))
    cannot_say("it puts other tokens around a text than bos and eos", where);
  out.emplace_back("tokenizer.ggml.add_bos_token", add_bos);
  out.emplace_back("tokenizer.ggml.add_eos_token", add_eos);
}

/// The default under its own key, the others by their names and in a list, as the package `gguf` writes them.
void add_templates(const std::vector<TemplateSource>& templates, const std::string& where, io::GgufMetadata& out) {
  std::vector<std::string> names;
  for (const TemplateSource& source : templates) {
    if (source.name != "default" && !is_template_name(source.name)) {
      log::warn(where + ": GGUF cannot name the chat template " + in_quotes(source.name) +
                " (letters, digits, _ and - it can); it is left out");
      continue;
    }
    out.emplace_back(gguf_template_key(source.name), source.text);
    if (source.name != "default") names.push_back(source.name);
  }
  if (!names.empty()) out.emplace_back("tokenizer.chat_templates", std::move(names));
}

/// Flags of added tokens for which GGUF has no place.
void warn_of_flags(const Json& json, const std::string& where) {
  constexpr size_t kShown = 5;
  std::string tokens;
  size_t count = 0;
  for (const Json& token : json.value("added_tokens", Json::array())) {
    std::string flags;
    for (const char* flag : {"lstrip", "rstrip", "single_word"})
      if (token.value(flag, false)) flags += (flags.empty() ? "" : ", ") + std::string(flag);
    if (flags.empty() || ++count > kShown) continue;
    tokens += (tokens.empty() ? "" : ", ") + in_quotes(token.at("content").get<std::string>()) + " (" + flags + ")";
  }
  if (count > kShown) tokens += " and " + std::to_string(count - kShown) + " more";
  if (count > 0)
    log::warn(where + ": GGUF cannot say how added tokens treat the text beside them; there, texts with " + tokens +
              " may get other ids");
}

}  // namespace

io::GgufMetadata gguf_vocabulary(const Tokenizer& tokenizer, int64_t vocab_size, const std::vector<TokenId>& end_ids,
                                 const std::string& where) {
  const SavedTokenizer saved = save_and_read(tokenizer, where);
  const Json& json = saved.json;
  if (!json.contains("model") || json["model"].value("type", "BPE") != "BPE" || !json["model"].contains("merges"))
    cannot_say("it is not byte-pair encoding", where, json.value("model", Json::object()).value("type", ""), "BPE");
  io::GgufMetadata out;
  TokenTable table = read_tokens(json, vocab_size, where);
  if (const auto prefix = puts_blank_in_front(json))
    add_sentencepiece(json, std::move(table), *prefix, where, out);
  else
    add_byte_level(json, table, where, out);
  add_roles(tokenizer, end_ids, where, out);
  warn_of_flags(json, where);
  add_templates(saved.templates, where, out);
  return out;
}

}  // namespace llmtk::text
