#include "text/sentencepiece.h"

#include <sentencepiece_processor.h>
#include <sentencepiece_trainer.h>

#include <charconv>
#include <exception>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/file.h"
#include "text/sentencepiece_json.h"

namespace llmtk::text {
namespace {

constexpr size_t kMaxSentenceBytes = 1 << 15;

class SentencePieceTokenizer : public Tokenizer {
 public:
  SentencePieceTokenizer(std::string model, const std::string& where) : model_(std::move(model)) {
    const auto status = processor_.LoadFromSerializedProto(model_);
    if (!status.ok())
      throw Error(Exit::file,
                  {.what = std::string("not a sentencepiece model: ") + status.error_message(), .where = where});
    // A leading blank belongs to the first piece where the normalizer puts one before every text.
    std::vector<std::string> pieces;
    processor_.Encode("a", &pieces).IgnoreError();
    adds_space_ = !pieces.empty() && pieces.front().starts_with(kSpaceMark);
  }

  size_t vocab_size() const override { return static_cast<size_t>(processor_.GetPieceSize()); }
  SpecialTokens special_tokens() const override {
    return {
        .bos = processor_.bos_id(), .eos = processor_.eos_id(), .pad = processor_.pad_id(), .unk = processor_.unk_id()};
  }

  void encode(std::string_view text, std::vector<TokenId>& out, bool add_special_tokens) const override {
    if (add_special_tokens && processor_.bos_id() >= 0) out.push_back(processor_.bos_id());
    std::vector<int> ids;
    const auto status = processor_.Encode({text.data(), text.size()}, &ids);
    LLMTK_CHECK(status.ok(), status.error_message());
    out.insert(out.end(), ids.begin(), ids.end());
  }

  std::vector<TokenId> prefix() const override {
    return processor_.bos_id() >= 0 ? std::vector<TokenId>{processor_.bos_id()} : std::vector<TokenId>{};
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
      if (!is_special(id)) {
        if (id >= 0 && static_cast<size_t>(id) < vocab_size()) plain.push_back(id);
        continue;
      }
      flush();
      if (!skip_special_tokens) text += id_to_token(id);
    }
    flush();
    return text;
  }

  std::string token_bytes(TokenId id) const override {
    if (processor_.IsByte(id)) {
      const std::string piece = id_to_token(id);  // <0x0A>
      int byte = 0;
      std::from_chars(piece.data() + 3, piece.data() + 5, byte, 16);
      return std::string(1, static_cast<char>(byte));
    }
    std::string bytes = id_to_token(id);
    for (size_t at = 0; (at = bytes.find(kSpaceMark, at)) != bytes.npos; ++at)
      bytes.replace(at, kSpaceMark.size(), " ");
    return bytes;
  }

  std::string first_token_bytes(TokenId id) const override {
    std::string bytes = token_bytes(id);
    if (adds_space_ && bytes.starts_with(' ')) bytes.erase(0, 1);
    return bytes;
  }

  std::optional<TokenId> token_to_id(std::string_view token) const override {
    const int id = processor_.PieceToId({token.data(), token.size()});
    if (id == processor_.unk_id() && id_to_token(id) != token) return std::nullopt;
    return id;
  }
  std::string id_to_token(TokenId id) const override {
    return id >= 0 && static_cast<size_t>(id) < vocab_size() ? processor_.IdToPiece(id) : std::string();
  }
  bool is_special(TokenId id) const override {
    return id >= 0 && static_cast<size_t>(id) < vocab_size() && (processor_.IsControl(id) || processor_.IsUnknown(id));
  }

  void save(const std::filesystem::path& folder) const override {
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
  std::string model_;
  sentencepiece::SentencePieceProcessor processor_;
  bool adds_space_ = false;
};

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
  return std::make_unique<SentencePieceTokenizer>(read_file(file), file.string());
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
