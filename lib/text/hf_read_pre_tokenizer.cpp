// The section `pre_tokenizer` of tokenizer.json.

#include "text/hf_read.h"
#include "text/hf_write.h"
#include "text/unicode.h"

namespace llmtk::text {
namespace {

class PreTokenizerReader {
 public:
  explicit PreTokenizerReader(const std::string& where) : where_(where) {}

  void read(const Json& value, const std::string& path, int depth = 0) {
    JsonObject object(value, where_, path);
    const std::string type = object.type();
    if (byte_level_) object.fail("a pre-tokenizer after ByteLevel is not supported", "'" + type + "'");
    if (type == "Sequence") {
      if (depth > kMaxSectionDepth) object.fail("sequences are nested too deep");
      const Json& list = object.list("pretokenizers");
      for (size_t i = 0; i < list.size(); ++i)
        read(list[i], path + ".pretokenizers[" + std::to_string(i) + "]", depth + 1);
    } else {
      read_one(object, type);
    }
    object.finish();
  }

  PreTokenizer finish() {
    // The two shapes nearly everybody has get their own loops; a pattern at the end of others needs no copies.
    Pattern last = Pattern::none;
    if (!steps_.empty() && steps_.back().pattern != Pattern::none) {
      last = steps_.back().pattern;
      steps_.pop_back();
      if (digits_ && steps_.size() == 1 && last == Pattern::gpt2) {
        steps_.clear();
        last = Pattern::gpt2_digits;
      }
    }
    std::vector<std::unique_ptr<SplitStage>> stages;
    for (Step& step : steps_) stages.push_back(step.stage ? std::move(step.stage) : make_pattern_split(step.pattern));
    return PreTokenizer(std::move(stages), last);
  }
  bool byte_level() const { return byte_level_; }

 private:
  struct Step {
    std::unique_ptr<SplitStage> stage;
    Pattern pattern = Pattern::none;
  };
  void add(std::unique_ptr<SplitStage> stage) { steps_.push_back({std::move(stage), Pattern::none}); }
  void add(Pattern pattern) { steps_.push_back({nullptr, pattern}); }

  void read_one(JsonObject& object, const std::string& type) {
    if (type == "ByteLevel") {
      if (object.flag("add_prefix_space", true)) add(make_prefix_space());
      object.skip("trim_offsets");
      if (object.flag("use_regex", true)) add(Pattern::gpt2);
      byte_level_ = true;
    } else if (type == "Digits") {
      const bool individual = object.flag("individual_digits", false);
      digits_ = individual && steps_.empty();
      add(make_class_split(kNumeric, individual ? SplitBehavior::isolated : SplitBehavior::contiguous));
    } else if (type == "Split") {
      read_split(object);
    } else if (type == "Metaspace") {
      const auto [replacement, scheme] = read_metaspace(object);
      add(make_metaspace(replacement, scheme, object.flag("split", true)));
    } else if (type == "BertPreTokenizer") {
      add(Pattern::bert);
    } else if (type == "Whitespace") {
      add(make_words_and_signs());
    } else if (type == "WhitespaceSplit") {
      add(make_class_split(kSpace, SplitBehavior::removed));
    } else if (type == "Punctuation") {
      add(make_class_split(kPunctuation, read_behavior(object, "Isolated")));
    } else if (type == "CharDelimiterSplit") {
      add(make_string_split(object.character("delimiter"), SplitBehavior::removed, false));
    } else {
      object.unsupported("pre-tokenizer", type,
                         "BertPreTokenizer, ByteLevel, CharDelimiterSplit, Digits, Metaspace, Punctuation, Split, "
                         "Whitespace, WhitespaceSplit or Sequence");
    }
  }

  static SplitBehavior read_behavior(JsonObject& object, const char* otherwise) {
    const std::string name = object.find("behavior") || !otherwise ? object.string("behavior") : otherwise;
    const auto behavior = parse_split_behavior(name);
    if (!behavior)
      object.fail("unknown behavior", "'" + name + "'",
                  "Removed, Isolated, MergedWithPrevious, MergedWithNext or Contiguous");
    return *behavior;
  }

  void read_split(JsonObject& object) {
    const SplitBehavior behavior = read_behavior(object, nullptr);
    const bool invert = object.flag("invert", false);
    JsonObject pattern(object.need("pattern"), where_, object.at("pattern"));
    if (pattern.find("String")) {
      add(make_string_split(pattern.string("String"), behavior, invert));
    } else {
      const std::string regex = pattern.string("Regex");
      const auto known = known_split_pattern(regex);
      // A known pattern covers every text, so nothing stands between its matches to be treated differently.
      if (known && (behavior == SplitBehavior::isolated || (behavior == SplitBehavior::removed && invert)))
        add(*known);
      else
        add(make_regex_split(Regex(regex, "the pre-tokenizer's pattern", where_), behavior, invert));
    }
    pattern.finish();
  }

  std::string where_;
  std::vector<Step> steps_;
  bool byte_level_ = false, digits_ = false;
};

}  // namespace

std::pair<std::string, PrependScheme> read_metaspace(JsonObject& object) {
  const std::string replacement = object.character("replacement");
  object.skip("str_rep");
  const bool prefix = object.flag("add_prefix_space", true);
  if (!object.find("prepend_scheme")) return {replacement, prefix ? PrependScheme::always : PrependScheme::never};
  const std::string name = object.string("prepend_scheme");
  const auto scheme = parse_prepend_scheme(name);
  if (!scheme) object.fail("unknown prepend_scheme", "'" + name + "'", "always, first or never");
  return {replacement, *scheme};
}

PreTokenizerReading read_pre_tokenizer(const Json& value, const std::string& where) {
  PreTokenizerReader reader(where);
  reader.read(value, "pre_tokenizer");
  return {reader.finish(), reader.byte_level()};
}

}  // namespace llmtk::text
