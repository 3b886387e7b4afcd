#include "text/sentencepiece.h"

#include <sentencepiece_processor.h>
#include <sentencepiece_trainer.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <exception>
#include <nlohmann/json.hpp>
#include <unordered_map>

#include "core/error.h"
#include "core/file.h"
#include "core/utf8.h"
#include "text/added_tokens.h"
#include "text/charsmap.h"
#include "text/normalizer.h"
#include "text/older_config.h"
#include "text/protobuf.h"
#include "text/sentencepiece_json.h"

namespace llmtk::text {
namespace {

constexpr size_t kMaxSentenceBytes = 1 << 15;

/// What the files beside a model say of it.
struct SentencePieceConfig {
  std::vector<AddedToken> added;  // found in the text itself
  SpecialTokens special;          // -1: as the model says
  std::optional<bool> add_bos;    // where not said, whether the model has one
  bool add_eos = false;
  TokenId type_of_pair = 1;
  std::vector<KeptFile> files;  // to be saved as they are; none: the tokenizer makes its own
};

/// What is wrong with the normalization tables of a model, which the library walks without looking where.
std::string problem_of_tables(std::string_view model) {
  constexpr uint64_t kNormalizer = 3, kDenormalizer = 5, kCharsmap = 2;
  std::string problem;
  bool whole = true;
  whole &= for_each_field(model, [&](const ProtoField& part) {
    if (part.id != kNormalizer && part.id != kDenormalizer) return;
    whole &= for_each_field(part.bytes, [&](const ProtoField& field) {
      if (field.id == kCharsmap && !field.bytes.empty() && problem.empty()) problem = problem_of_charsmap(field.bytes);
    });
  });
  if (!problem.empty()) return "a damaged normalization table: " + problem;
  return whole ? "" : "not a sentencepiece model";
}

/// Why a model cannot be used; empty where it can. The library says a part of that by throwing.
std::string problem_of_loading(sentencepiece::SentencePieceProcessor& processor, const std::string& model) {
  if (std::string problem = problem_of_tables(model); !problem.empty()) return problem;
  try {
    const auto status = processor.LoadFromSerializedProto(model);
    if (!status.ok()) return std::string("not a sentencepiece model: ") + status.error_message();
    for (int id = 0; id < processor.GetPieceSize(); ++id) {  // of which the library looks at neither
      if (find_invalid_utf8(processor.IdToPiece(id)) != std::string_view::npos)
        return "piece " + std::to_string(id) + " is not UTF-8";
      if (!std::isfinite(processor.GetScore(id))) return "the score of piece " + std::to_string(id) + " is no number";
    }
    return "";
  } catch (const std::exception& e) {
    return std::string("not a sentencepiece model: ") + e.what();
  }
}

class SentencePieceTokenizer : public Tokenizer {
 public:
  SentencePieceTokenizer(std::string model, const std::string& where, SentencePieceConfig config = {})
      : model_(std::move(model)), config_(std::move(config)), finder_(config_.added) {
    if (const std::string problem = problem_of_loading(processor_, model_); !problem.empty())
      throw Error(Exit::file, {.what = problem, .where = where});
    // A leading blank belongs to the first piece where the normalizer puts one before every text.
    std::vector<std::string> pieces;
    processor_.Encode("a", &pieces).IgnoreError();
    adds_space_ = !pieces.empty() && pieces.front().starts_with(kSpaceMark);
    vocab_size_ = static_cast<size_t>(processor_.GetPieceSize());
    for (const AddedToken& token : config_.added) {
      vocab_size_ = std::max(vocab_size_, static_cast<size_t>(token.id) + 1);
      added_by_id_.emplace(token.id, &token);
    }
  }

  size_t vocab_size() const override { return vocab_size_; }
  SpecialTokens special_tokens() const override {
    const auto or_else = [](TokenId id, int of_model) { return id >= 0 ? id : of_model; };
    SpecialTokens special = config_.special;
    special.bos = or_else(special.bos, processor_.bos_id());
    special.eos = or_else(special.eos, processor_.eos_id());
    special.pad = or_else(special.pad, processor_.pad_id());
    special.unk = or_else(special.unk, processor_.unk_id());
    return special;
  }

  void encode(std::string_view text, std::vector<TokenId>& out, bool add_special_tokens) const override {
    if (add_special_tokens && adds_bos()) out.push_back(special_tokens().bos);
    if (finder_.empty())
      encode_pieces(text, out);
    else
      finder_.split(text, [&](std::string_view part, const AddedToken* token) {
        if (token)
          out.push_back(token->id);
        else
          encode_pieces(part, out);
      });
    if (add_special_tokens && config_.add_eos) out.push_back(special_tokens().eos);
  }

  Encoding post_process(const std::vector<TokenId>& text, const std::vector<TokenId>* pair,
                        bool add_special_tokens) const override {
    Encoding encoding;
    const auto add = [&](const std::vector<TokenId>& ids, TokenId type) {
      if (add_special_tokens && adds_bos()) encoding.ids.push_back(special_tokens().bos);
      encoding.ids.insert(encoding.ids.end(), ids.begin(), ids.end());
      if (add_special_tokens && config_.add_eos) encoding.ids.push_back(special_tokens().eos);
      encoding.type_ids.resize(encoding.ids.size(), type);
    };
    add(text, 0);
    if (pair) add(*pair, config_.type_of_pair);
    return encoding;
  }

  std::vector<TokenId> prefix() const override {
    return adds_bos() ? std::vector<TokenId>{special_tokens().bos} : std::vector<TokenId>{};
  }

  std::string decode(std::span<const TokenId> ids, bool skip_special_tokens) const override {
    std::string text;
    std::vector<int> plain;
    bool first = true;
    const auto flush = [&] {
      std::string part;
      if (!plain.empty()) LLMTK_CHECK(processor_.Decode(plain, &part).ok());
      // The library drops the blank before the first word of every call; inside a text it is part of it.
      if (!first && !plain.empty() && adds_space_ && processor_.IdToPiece(plain.front()).starts_with(kSpaceMark))
        text += ' ';
      text += part;
      first = first && plain.empty();
      plain.clear();
    };
    for (const TokenId id : ids) {
      if (!is_special(id) && !added(id)) {
        if (is_piece(id)) plain.push_back(id);
        continue;
      }
      if (is_special(id) && skip_special_tokens) continue;
      flush();
      text += id_to_token(id);
      first = false;
    }
    flush();
    return text;
  }

  std::string token_bytes(TokenId id) const override {
    if (!is_piece(id) || added(id)) return id_to_token(id);
    if (processor_.IsByte(id)) {
      const std::string piece = id_to_token(id);  // <0x0A>
      int byte = 0;
      std::from_chars(piece.data() + 3, piece.data() + 5, byte, 16);
      return std::string(1, static_cast<char>(byte));
    }
    return replace_all(id_to_token(id), kSpaceMark, " ");
  }

  std::string first_token_bytes(TokenId id) const override {
    std::string bytes = token_bytes(id);
    if (adds_space_ && bytes.starts_with(' ')) bytes.erase(0, 1);
    return bytes;
  }

  std::optional<TokenId> token_to_id(std::string_view token) const override {
    const auto known = std::ranges::find(config_.added, token, &AddedToken::content);
    if (known != config_.added.end()) return known->id;
    const int id = processor_.PieceToId({token.data(), token.size()});
    if (id == processor_.unk_id() && id_to_token(id) != token) return std::nullopt;
    return id;
  }
  std::string id_to_token(TokenId id) const override {
    if (const AddedToken* token = added(id)) return token->content;
    return is_piece(id) ? processor_.IdToPiece(id) : std::string();
  }
  bool is_special(TokenId id) const override {
    if (const AddedToken* token = added(id)) return token->special;
    return is_piece(id) && (processor_.IsControl(id) || processor_.IsUnknown(id));
  }

  void save(const std::filesystem::path& folder) const override {
    if (!config_.files.empty()) return write_kept_files(folder, config_.files);
    std::filesystem::create_directories(folder);
    write_file_atomic(folder / "tokenizer.model", model_);
    const auto json = this->json();
    if (json) write_file_atomic(folder / "tokenizer.json", *json);
    // transformers' class for a .model alone takes every model for BPE.
    nlohmann::ordered_json config = {{"tokenizer_class", json ? "PreTrainedTokenizerFast" : "LlamaTokenizer"},
                                     {"add_bos_token", processor_.bos_id() >= 0},
                                     {"clean_up_tokenization_spaces", false}};
    const auto role = [&](const char* key, int id) {
      if (id >= 0) config[key] = processor_.IdToPiece(id);
    };
    role("bos_token", processor_.bos_id());
    role("eos_token", processor_.eos_id());
    role("pad_token", processor_.pad_id());
    role("unk_token", processor_.unk_id());
    write_file_atomic(folder / "tokenizer_config.json", config.dump(2) + "\n");
  }

  /// The tokenizer.json that save() writes; nothing where none gives the same ids.
  std::optional<std::string> json() const {
    return sentencepiece_json(model_, processor_.bos_id() >= 0 ? processor_.IdToPiece(processor_.bos_id()) : "");
  }

 private:
  bool is_piece(TokenId id) const { return id >= 0 && id < processor_.GetPieceSize(); }
  const AddedToken* added(TokenId id) const {
    const auto known = added_by_id_.find(id);
    return known == added_by_id_.end() ? nullptr : known->second;
  }
  bool adds_bos() const { return special_tokens().bos >= 0 && config_.add_bos.value_or(true); }

  void encode_pieces(std::string_view text, std::vector<TokenId>& out) const {
    std::vector<int> ids;
    const auto status = processor_.Encode({text.data(), text.size()}, &ids);
    LLMTK_CHECK(status.ok(), status.error_message());
    out.insert(out.end(), ids.begin(), ids.end());
  }

  std::string model_;
  SentencePieceConfig config_;
  TokenFinder finder_;
  std::unordered_map<TokenId, const AddedToken*> added_by_id_;  // those of config_
  sentencepiece::SentencePieceProcessor processor_;
  bool adds_space_ = false;
  size_t vocab_size_ = 0;
};

/// `model`: the bytes of `file`. With nothing beside it the model alone speaks.
SentencePieceConfig read_sentencepiece_config(const std::filesystem::path& file, const std::string& model) {
  OlderConfig older(file);
  const bool t5 = older.is_of("T5", "t5");
  if (older.config.empty() && !t5) return {};
  sentencepiece::SentencePieceProcessor processor;
  if (!problem_of_loading(processor, model).empty()) return {};  // whoever opens it says so
  const auto find = [&](std::string_view token) {
    const int id = processor.PieceToId({token.data(), token.size()});
    return id == processor.unk_id() && processor.IdToPiece(id) != token ? -1 : id;
  };
  SentencePieceConfig config;
  AddedTokenReader reader(older, static_cast<size_t>(processor.GetPieceSize()), find);
  const auto role = [&](const char* key, const char* of_t5) {
    const auto token = reader.role(key, t5 ? of_t5 : nullptr);
    return token ? token->id : -1;
  };
  config.special.bos = role("bos_token", nullptr);
  config.special.eos = role("eos_token", "</s>");
  config.special.unk = role("unk_token", "<unk>");
  config.special.pad = role("pad_token", "<pad>");
  JsonObject object = older.object();
  if (object.find("add_bos_token")) config.add_bos = object.flag("add_bos_token", true);
  config.add_eos = object.flag("add_eos_token", t5);
  if (t5) {
    config.type_of_pair = 0;
    constexpr size_t kUsual = 100, kMost = 100'000;
    const size_t extra = object.find("extra_ids") ? object.count("extra_ids") : kUsual;
    if (extra > kMost)
      object.fail("wrong 'extra_ids'", std::to_string(extra), "a number up to " + std::to_string(kMost));
    for (size_t i = extra; i-- > 0;) reader.add_special("<extra_id_" + std::to_string(i) + ">");
  }
  config.added = reader.tokens();
  config.files = std::move(older.files);
  if (const auto added = older.folder / "added_tokens.json"; std::filesystem::exists(added))
    config.files.emplace_back("added_tokens.json", read_file(added));
  config.files.emplace_back(file.filename().string(), model);
  return config;
}

/// Cuts off what the library takes for one sentence: longer ones, and those with the character that stands for unknown
/// ones in it, it would leave out in silence; a word of more than 65535 characters would end the process.
std::string_view take_sentence(std::string_view& text) {
  constexpr std::string_view kReserved = "\xE2\x96\x85";  // U+2585
  const size_t reserved = text.find(kReserved);
  size_t end = std::min(reserved, text.size());
  size_t gap = end == reserved ? kReserved.size() : 0;
  if (end > kMaxSentenceBytes) {
    const size_t blank = text.rfind(' ', kMaxSentenceBytes);
    const bool at_blank = blank != text.npos && blank > 0;
    end = at_blank ? blank : kMaxSentenceBytes;
    gap = at_blank ? 1 : 0;
    while (!at_blank && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) --end;
  }
  const std::string_view sentence = text.substr(0, end);
  text.remove_prefix(end + gap);
  return sentence;
}

/// The library asks for sentences; what stops the reading is kept until it has returned.
class Sentences : public sentencepiece::SentenceIterator {
 public:
  explicit Sentences(const std::function<bool(std::string&)>& next) : next_(next) { Next(); }
  bool done() const override { return done_; }
  void Next() override {
    try {
      for (sentence_.clear(); sentence_.empty() && !done_;) {
        if (rest_.empty()) {
          done_ = !next_(line_);
          if (!done_) rest_ = line_;
        }
        sentence_ = take_sentence(rest_);
      }
    } catch (...) {
      error_ = std::current_exception();
      done_ = true;
    }
  }
  const std::string& value() const override { return sentence_; }
  sentencepiece::util::Status status() const override { return {}; }
  void rethrow() const {
    if (error_) std::rethrow_exception(error_);
  }

 private:
  const std::function<bool(std::string&)>& next_;
  std::string line_, sentence_;
  std::string_view rest_;  // of line_
  std::exception_ptr error_;
  bool done_ = false;
};

}  // namespace

std::unique_ptr<Tokenizer> read_sentencepiece(const std::filesystem::path& file) {
  std::string model = read_file(file);
  SentencePieceConfig config = read_sentencepiece_config(file, model);
  return std::make_unique<SentencePieceTokenizer>(std::move(model), file.string(), std::move(config));
}

std::unique_ptr<Tokenizer> read_saved_sentencepiece(const std::filesystem::path& folder) {
  const auto model = folder / "tokenizer.model", json = folder / "tokenizer.json";
  if (!std::filesystem::exists(model) || !std::filesystem::exists(json)) return nullptr;
  try {
    auto tokenizer = std::make_unique<SentencePieceTokenizer>(read_file(model), model.string());
    if (tokenizer->json() == read_file(json)) return tokenizer;
  } catch (const Error&) {  // other kinds of tokenizers have files of this name too
  }
  return nullptr;
}

std::unique_ptr<Tokenizer> train_sentencepiece(const std::function<bool(std::string&)>& next,
                                               const SentencePieceOptions& options) {
  std::string specials;
  for (const auto& token : options.special_tokens) specials += (specials.empty() ? "" : ",") + token;
  const std::unordered_map<std::string, std::string> settings = {
      {"model_type", options.model_type},
      {"vocab_size", std::to_string(options.vocab_size)},
      {"byte_fallback", options.byte_fallback ? "true" : "false"},
      {"character_coverage", std::to_string(options.character_coverage)},
      {"control_symbols", specials},
      {"num_threads", std::to_string(options.threads)},
      // As Llama's: text comes back as it went in, digits stand alone.
      {"normalization_rule_name", "identity"},
      {"remove_extra_whitespaces", "false"},
      {"split_digits", "true"},
      {"allow_whitespace_only_pieces", "true"},
      {"max_sentence_length", std::to_string(kMaxSentenceBytes)},
      {"input_sentence_size", std::to_string(options.input_sentence_size)},
      {"minloglevel", "2"},
  };
  sentencepiece::SetRandomGeneratorSeed(0);  // of the sample
  Sentences sentences(next);
  std::string model;
  const auto status = sentencepiece::SentencePieceTrainer::Train(settings, &sentences, &model);
  sentences.rethrow();
  if (!status.ok())
    throw Error(Exit::data, {.what = std::string("sentencepiece could not train: ") + status.error_message(),
                             .hint = "more text, a smaller vocabulary, or a lower character coverage"});
  return std::make_unique<SentencePieceTokenizer>(std::move(model), "the trained model");
}

}  // namespace llmtk::text
