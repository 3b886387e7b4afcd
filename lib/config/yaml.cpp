#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/parser.h>

#include <algorithm>
#include <map>
#include <optional>
#include <set>
#include <sstream>

#include "config/node.h"
#include "core/utf8.h"

namespace llmtk::config {
namespace {

constexpr size_t kMaxBytes = 1 << 20;
constexpr size_t kMaxNodes = 50'000;  // aliases included
constexpr size_t kBytesOfNode = 256;  // a text counts as one more node for each of these
constexpr size_t kMaxDepth = 40;

/// Line and character column of a byte.
Place place_of_byte(std::string_view text, size_t byte) {
  const std::string_view before = text.substr(0, byte);
  const size_t newline = before.rfind('\n');
  const size_t start = newline == before.npos ? 0 : newline + 1;
  return {.line = static_cast<int>(std::count(before.begin(), before.end(), '\n')) + 1,
          .column = static_cast<int>(count_code_points(before.substr(start))) + 1};
}

[[noreturn]] void fail(const std::string& name, const Place& place, Error::Parts parts) {
  parts.where = place.text(name);
  throw Error(Exit::usage, std::move(parts));
}

void check_bytes(std::string_view text, const std::string& name) {
  if (text.size() > kMaxBytes)
    throw Error(Exit::usage, {.what = "the config is too large",
                              .where = name,
                              .got = std::to_string(text.size()) + " bytes",
                              .expected = "at most 1 MiB",
                              .hint = "is this a data file?"});
  const size_t invalid = find_invalid_utf8(text);
  if (invalid != text.npos)
    fail(name, place_of_byte(text, invalid),
         {.what = "invalid UTF-8 at byte " + std::to_string(invalid), .hint = "save the file as UTF-8"});
  for (size_t i = 0; i < text.size(); ++i) {
    const auto c = static_cast<unsigned char>(text[i]);
    if ((c < 0x20 && c != '\t' && c != '\n' && c != '\r') || c == 0x7f)
      fail(name, place_of_byte(text, i), {.what = "control character with code " + std::to_string(c)});
  }
}

/// Turns yaml-cpp's events into Nodes. Aliases are expanded under the limit on nodes.
class Builder : public YAML::EventHandler {
 public:
  Builder(std::string_view text, const std::string& name, std::vector<Problem>& problems)
      : name_(name), problems_(problems) {
    for (size_t start = 0; start <= text.size();) {
      size_t end = text.find('\n', start);
      if (end == text.npos) end = text.size();
      lines_.push_back(text.substr(start, end - start));
      start = end + 1;
    }
    constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";  // yaml-cpp does not count it
    if (lines_[0].starts_with(kByteOrderMark)) lines_[0].remove_prefix(kByteOrderMark.size());
  }

  Place place(const YAML::Mark& mark) {
    if (mark.is_null()) return {.line = 1, .column = 1};
    const size_t line = std::min<size_t>(static_cast<size_t>(mark.line), lines_.size() - 1);
    const size_t column = std::min<size_t>(static_cast<size_t>(mark.column), lines_[line].size());
    // Marks mostly move forward: counting goes on from the last one, so that a long line is not counted again and
    // again.
    if (line != counted_.line || column < counted_.bytes) counted_ = {.line = line};
    counted_.characters += count_code_points(lines_[line].substr(counted_.bytes, column - counted_.bytes));
    counted_.bytes = column;
    return {.line = static_cast<int>(line) + 1, .column = static_cast<int>(counted_.characters) + 1};
  }

  /// A line indented with a tab, outside a text of several lines. `failed_line`: where the parse stopped, if it did.
  std::optional<Place> tab_in_indentation(std::optional<int> failed_line) const {
    const int last_start = starts_.empty() ? 0 : *starts_.rbegin();
    for (size_t i = 0; i < lines_.size(); ++i) {
      const int line = static_cast<int>(i) + 1;
      if (failed_line && line > *failed_line) break;
      const size_t content = lines_[i].find_first_not_of(" \t\r");
      if (content == std::string_view::npos || lines_[i][content] == '#') continue;
      const size_t tab = lines_[i].substr(0, content).find('\t');
      // A line on which no value starts goes on with a text, or is what the parser could not read.
      const bool goes_on = !starts_.contains(line) && !(failed_line && line > last_start);
      if (tab == std::string_view::npos || goes_on) continue;
      return Place{.line = line, .column = static_cast<int>(tab) + 1};
    }
    return std::nullopt;
  }

  Node take_root() { return root_ ? std::move(*root_) : Node{}; }

  void OnDocumentStart(const YAML::Mark& mark) override {
    if (documents_++ > 0)
      fail(name_, place(mark),
           {.what = "a second document", .hint = "a config is one YAML document: remove the '---'"});
  }
  void OnDocumentEnd() override {}

  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    if (wants_key()) bad_key(mark);
    Node node{.place = start(mark)};
    // Where nothing follows a key, yaml-cpp's mark is that of the next thing in the file.
    if (!stack_.empty() && stack_.back().has_key && stack_.back().entry.place.line < node.place.line)
      node.place = stack_.back().entry.place;
    add(std::move(node), anchor);
  }

  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                const std::string& value) override {
    const Place at = start(mark);
    const bool quoted = check_tag(mark, tag);
    if (wants_key()) {
      if (value == "<<" && !quoted)
        fail(name_, at, {.what = "merge keys ('<<') are not supported", .hint = "write the keys out"});
      return take_key(value, at);
    }
    Node node{.kind = Node::Kind::scalar, .place = at, .text = value, .quoted = quoted};
    node.size += value.size() / kBytesOfNode;
    count_ += value.size() / kBytesOfNode;
    add(std::move(node), anchor);
  }

  void OnAlias(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    const Place at = start(mark);
    if (wants_key()) bad_key(mark);
    const auto found = anchors_.find(anchor);
    if (found == anchors_.end()) fail(name_, at, {.what = "an alias inside the value that it stands for"});
    if (count_ + found->second.size > kMaxNodes) too_many(at);
    count_ += found->second.size;
    add(Node(found->second), 0);
  }

  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value) override {
    open(Node::Kind::list, mark, tag, anchor);
  }
  void OnSequenceEnd() override { close(); }
  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value) override {
    open(Node::Kind::map, mark, tag, anchor);
  }
  void OnMapEnd() override { close(); }

 private:
  struct Open {
    Node node;
    YAML::anchor_t anchor;
    bool has_key = false;  // map: a key waits for its value
    Node::Entry entry = {};
    std::map<std::string, Place> keys = {};
  };

  struct Counted {
    size_t line = 0, bytes = 0, characters = 0;
  };

  bool wants_key() const {
    return !stack_.empty() && stack_.back().node.kind == Node::Kind::map && !stack_.back().has_key;
  }

  Place start(const YAML::Mark& mark) {
    starts_.insert(mark.line + 1);
    if (++count_ > kMaxNodes) too_many(place(mark));
    return place(mark);
  }

  [[noreturn]] void too_many(const Place& at) const {
    fail(
        name_, at,
        {.what = "the config has more than " + std::to_string(kMaxNodes) + " values, aliases (*name) counted in full"});
  }
  [[noreturn]] void bad_key(const YAML::Mark& mark) {
    fail(name_, place(mark), {.what = "a key must be plain text", .hint = "write it as 'name: value'"});
  }

  /// Whether the tag makes a scalar text.
  bool check_tag(const YAML::Mark& mark, const std::string& tag) {
    if (tag == "!" || tag == "tag:yaml.org,2002:str") return true;
    if (tag == "?" || tag.empty()) return false;
    fail(name_, place(mark), {.what = "YAML tags are not supported", .got = "'" + tag + "'", .hint = "remove the tag"});
  }

  void open(Node::Kind kind, const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor) {
    const Place at = start(mark);
    if (wants_key()) bad_key(mark);
    check_tag(mark, tag);
    if (stack_.size() >= kMaxDepth)
      fail(name_, at, {.what = "values nested more than " + std::to_string(kMaxDepth) + " deep"});
    stack_.push_back({.node = {.kind = kind, .place = at}, .anchor = anchor});
  }

  void close() {
    Open done = std::move(stack_.back());
    stack_.pop_back();
    add(std::move(done.node), done.anchor);
  }

  void take_key(const std::string& key, const Place& at) {
    Open& map = stack_.back();
    const auto [first, is_new] = map.keys.emplace(key, at);
    if (!is_new)
      problems_.push_back({at,
                           {.what = "duplicate key '" + key + "'",
                            .hint = "it stands in line " + std::to_string(first->second.line) + " already"}});
    map.has_key = true;
    map.entry = {.key = key, .place = at, .value = {}};
  }

  void add(Node node, YAML::anchor_t anchor) {
    if (anchor != 0) anchors_[anchor] = node;
    if (stack_.empty()) {
      root_ = std::move(node);
      return;
    }
    Open& parent = stack_.back();
    parent.node.size += node.size;
    if (parent.node.kind == Node::Kind::list) {
      parent.node.items.push_back(std::move(node));
    } else {
      parent.entry.value = std::move(node);
      parent.node.entries.push_back(std::move(parent.entry));
      parent.has_key = false;
    }
  }

  const std::string& name_;
  std::vector<Problem>& problems_;
  std::vector<std::string_view> lines_;
  Counted counted_;
  std::set<int> starts_;  // lines on which a value or key starts
  std::vector<Open> stack_;
  std::map<YAML::anchor_t, Node> anchors_;
  std::optional<Node> root_;
  size_t count_ = 0;
  int documents_ = 0;
};

}  // namespace

std::string Place::text(const std::string& file) const {
  if (!argument.empty()) return "argument '" + argument + "'";
  if (line == 0) return file;
  return file + ":" + std::to_string(line) + ":" + std::to_string(column);
}

Node parse_yaml(std::string_view text, const std::string& name, std::vector<Problem>& problems) {
  check_bytes(text, name);
  Builder builder(text, name, problems);
  const auto refuse_tab = [&](std::optional<int> failed_line) {
    if (const auto tab = builder.tab_in_indentation(failed_line))
      fail(name, *tab, {.what = "a tab in the indentation", .hint = "YAML is indented with spaces"});
  };
  try {
    std::istringstream stream{std::string(text)};
    YAML::Parser parser(stream);
    while (parser.HandleNextDocument(builder)) {
    }
  } catch (const YAML::Exception& e) {
    const Place at = builder.place(e.mark);
    refuse_tab(at.line);
    fail(name, at, {.what = "not valid YAML: " + e.msg});
  }
  refuse_tab(std::nullopt);
  return builder.take_root();
}

}  // namespace llmtk::config
