"""Templates rendered here and by Jinja2 as transformers sets it up: byte for byte the same texts, the same generation blocks,
and errors where there are errors. Chat templates in the style of each family (chat_templates.py) and the real ones that trl
carries over many conversations, then templates and expressions made at random."""

import copy
import importlib.util
import json
import os
import random
import subprocess
import sys
import warnings
from pathlib import Path

from transformers.utils.chat_template_utils import _compile_jinja_template, _render_with_assistant_indices

import chat_templates

warnings.filterwarnings("ignore", category=SyntaxWarning)  # Python's, about what Jinja2 makes of nonsense
TOOL = os.path.join(os.environ["LLMTK_BIN"], "..", "tests", "jinja_tool")

TOOLS = [{"type": "function", "function": {
    "name": "get_weather", "description": "Tells the weather\nof a <city> & \"more\"", "parameters": {"type": "object", "properties": {
        "city": {"type": "string", "description": "the city's name", "enum": ["Paris", "北京"]},
        "days": {"type": ["integer", "null"], "default": 3},
        "where": {"type": "object", "properties": {"north": {"type": "number"}}, "required": []}}, "required": ["city"]},
    "return": {"type": "number"}}},
    {"type": "function", "function": {"name": "Again", "description": "", "parameters": {"type": "object", "properties": {}}}}]


def message(role, content, **more):
    return {"role": role, "content": content, **more}


def call(name, arguments):
    return {"type": "function", "id": "abc123XYZ", "function": {"name": name, "arguments": arguments}}


CONVERSATIONS = {
    "one": [message("user", "  What is 2+2? 你好 🙂\n")],
    "system": [message("system", "Be <brief> & 'kind'."), message("user", "Hi"), message("assistant", " Hello!\n"), message("user", "Bye")],
    "answered": [message("user", "Hi"), message("assistant", "Hello")],
    "thought": [message("user", "Q"), message("assistant", "<think>\nhm\n</think>\n\n4"), message("user", "sure?"),
                message("assistant", "<think>yes</think>\n5")],
    "reasoned": [message("user", "Q"), message("assistant", "4", reasoning_content="\nbecause\n")],
    "tool": [message("user", "Weather?"),
             message("assistant", None, tool_calls=[call("get_weather", {"city": "Paris", "days": 2, "x": 1.5, "y": True, "z": None, "l": [1, "ü"]})]),
             message("tool", "20", tool_call_id="abc123XYZ"), message("assistant", "20 degrees"), message("user", "Thanks")],
    "tools": [message("user", "Both?"), message("assistant", "", tool_calls=[call("a", "{}"), call("b", '{"c": 1}')]),
              message("tool", "1", tool_call_id="abc123XYZ"), message("tool", {"content": 2}, tool_call_id="abc123XYZ")],
    "parts": [message("system", [{"type": "text", "text": "sys"}]),
              message("user", [{"type": "image"}, {"type": "text", "text": " What? "}]), message("assistant", [{"type": "text", "text": "That."}])],
    "bad order": [message("assistant", "I first"), message("user", "no")],
    "only system": [message("system", "x")],
    "long": [message(role, f"{role} {i} ½ e\u0301") for i in range(9) for role in ("user", "assistant")],
}
SETTINGS = [{}, {"tools": TOOLS}, {"enable_thinking": False, "date_string": "1 Jan 2000"},
            {"tools": TOOLS, "tools_in_user_message": False, "builtin_tools": ["search", "code_interpreter"]},
            {"documents": [{"title": "T", "text": "a\nb"}, {"text": "c", "n": 1}]}]


def conversations():
    for messages in CONVERSATIONS.values():
        for settings in SETTINGS:
            for add_generation_prompt in (False, True):
                yield {"messages": messages, "tools": None, "documents": None, "add_generation_prompt": add_generation_prompt,
                       "bos_token": "<s>", "eos_token": "</s>", **settings}


# --- templates at random ---

NAMES = {"i": 7, "j": -3, "z": 0, "f": 2.5, "g": -0.125, "s": "Hello, World", "t": "  two  words\n", "u": "ÄÖß 世界 🙂 ǆ ﬁ ΑΣ", "e": "", "b": True,
         "c": False, "n": None, "l": [3, 1, 2], "m": ["b", "A", "c"], "x": [], "d": {"a": 1, "items": [1, 2], "k": {"v": "w"}},
         "r": [{"name": "Bo", "age": 3, "on": True}, {"name": "al", "age": 7, "on": False}, {"name": "Cy", "on": True}]}
FILTERS = ["abs", "capitalize", "count", "default('q')", "d(1, true)", "dictsort", "first", "float", "int", "int(5, 16)", "items|list",
           "join", "join(', ')", "join('-', attribute='name')", "last", "length", "list", "lower", "map(attribute='name')|list",
           "map('upper')|list", "map('default', 0)|list", "max", "min", "max(attribute='age')", "reject('odd')|list",
           "rejectattr('on')|list", "replace('l', 'L')", "replace('', '.', 3)", "reverse|list", "round", "round(1)", "round(2, 'ceil')",
           "select|list", "select('defined')|list", "selectattr('on')|list", "selectattr('age', 'gt', 3)|list", "sort", "sort(reverse=true)",
           "sort(attribute='name')", "string", "sum", "sum(attribute='age', start=1)", "title", "tojson", "tojson(indent=2)",
           "tojson(ensure_ascii=true)", "tojson(sort_keys=true)", "tojson(separators=(',', ':'))", "trim", "trim('Hd')", "truncate(7)",
           "truncate(5, true, '')", "unique|list", "upper", "wordcount", "batch(2)|list", "batch(2, 0)|list", "slice(2)|list",
           "groupby('on')|list", "center(9)", "indent", "indent(2, true, true)", "format(1, 'a')", "urlencode", "filesizeformat", "e",
           "attr('a')", "nosuch"]
TESTS = ["defined", "undefined", "none", "string", "number", "integer", "float", "boolean", "true", "false", "mapping", "sequence", "iterable",
         "odd", "even", "divisibleby 2", "divisibleby(3)", "lower", "upper", "in l", "in(m)", "eq 7", "equalto('b')", "sameas none", "gt 1",
         "le(2)", "callable", "not none", "not defined", "filter", "nosuch"]
METHODS = ["upper()", "lower()", "title()", "capitalize()", "swapcase()", "strip()", "lstrip()", "rstrip('\\n ')", "strip('Hd')", "split()",
           "split(',')", "split(' ', 1)", "rsplit(' ', 1)", "rsplit(none, 1)", "splitlines()", "splitlines(true)", "startswith('He')",
           "endswith(('d', 'x'))", "startswith('l', 2)", "find('o')", "rfind('o')", "find('o', 5)", "index('o')", "count('l')", "count('')",
           "replace('l', 'L', 1)", "replace('', '-')", "join(m)", "join(l)", "partition(', ')", "rpartition('o')", "isalpha()", "isdigit()",
           "islower()", "isupper()", "isspace()", "istitle()", "isalnum()", "zfill(15)", "center(15)", "ljust(15, '.')", "rjust(15)",
           "removeprefix('He')", "removesuffix('ld')", "get('a')", "get('q', 3)", "get(1)", "keys()|list", "values()|list", "items()|list",
           "items()", "keys()", "copy()", "append(1)", "pop()", "update({})", "index(2)", "count(1)", "a", "items", "k.v", "name", "nope", "nope.x",
           "format(1, a=2)", "__class__", "0", "2"]
ITEMS = ["[0]", "[-1]", "[9]", "['a']", "['items']", "['k']['v']", "['upper']", "['nope']", "[i]", "[n]", "[true]", "[0, 1]"]
# Only behind names: where Jinja2 computes in advance, a slice of what cannot be sliced is undefined rather than an error.
SLICES = ["[1:]", "[:2]", "[::-1]", "[-3:-1]", "[::2]", "[5:1:-2]", "[:n]", "[s:]", "[-9:9]"]
TEXTS = ["' '", "'a'", "'%s-%r'", "'%d|%5.2f|%-4s|%x'", "'{} {a!r:>5} {0}'", "'{:<4}|{:^6}|{:+.1f}'", "'\\u4e16\\x41\\n\\t\\q'", "'it\\'s'",
         "\"say \\\"x\\\"\"", "''", "'ß'"]
NUMBERS = ["0", "1", "2", "-1", "3.0", "0.1", "1e3", "1_000", "0x1F", "1e-7", "123456789.5"]


class Maker:
    def __init__(self, seed):
        self.rng = random.Random(seed)

    def pick(self, *weighted):
        """weighted: (weight, function)"""
        return self.rng.choices([f for _, f in weighted], [w for w, _ in weighted])[0]()

    def expression(self, depth=3):
        choose, sub = self.rng.choice, lambda: self.expression(depth - 1)
        leaves = [(8, lambda: choose(list(NAMES))), (2, lambda: choose(TEXTS)), (2, lambda: choose(NUMBERS)),
                  (1, lambda: choose(["true", "false", "none", "nope", "loop.index", "ns.a"]))]
        if depth == 0:
            return self.pick(*leaves)
        return self.pick(
            (2, lambda: self.pick(*leaves)),
            (3, lambda: f"{self.operand(depth)}|{choose(FILTERS)}"),
            (2, lambda: f"{self.operand(depth)}.{choose(METHODS)}"),
            (2, lambda: f"{self.operand(depth)}{choose(ITEMS)}"), (1, lambda: f"{choose(list(NAMES))}{choose(SLICES)}"),
            (2, lambda: f"{self.operand(depth)} is {choose(TESTS)}"),
            (2, lambda: f"({sub()} {choose(['+', '-', '*', '/', '//', '%', '~', '~'])} {sub()})"),
            (1, lambda: f"({sub()} ** {choose(['2', '0', '-1', '0.5'])})"),
            (2, lambda: f"({sub()} {choose(['==', '!=', '<', '<=', '>', '>=', 'in', 'not in', 'and', 'or'])} {sub()})"),
            (1, lambda: f"({sub()} < {sub()} <= {sub()})"),
            (1, lambda: f"({choose(['not', '-', '+'])} {sub()})"),
            (1, lambda: f"({sub()} if {sub()} else {sub()})"), (1, lambda: f"({sub()} if {sub()})"),
            (1, lambda: f"[{sub()}, {sub()}]"), (1, lambda: f"({sub()},)"), (1, lambda: f"{{{choose(TEXTS)}: {sub()}, 1: {sub()}}}"),
            (1, lambda: f"dict(a={sub()}, b={sub()})"), (1, lambda: f"range({sub()}, {sub()})|list"),
            (1, lambda: f"{choose(TEXTS)} % ({sub()}, {sub()})"), (1, lambda: f"{choose(TEXTS)}.format({sub()}, a={sub()})"))

    def operand(self, depth):
        return self.rng.choice(list(NAMES)) if self.rng.random() < 0.6 else f"({self.expression(depth - 1)})"

    def tag(self, words):
        return "{%" + self.rng.choice(["", "", "-", "+"]) + " " + words + " " + self.rng.choice(["", "", "-", "+"]) + "%}"

    def statement(self, depth):
        body, value, tag = lambda: self.body(depth - 1), lambda: self.expression(2), self.tag
        name = self.rng.choice(["a", "v", "s", "l"])
        if depth == 0:
            return "{{" + self.rng.choice(["", "-", " "]) + " " + self.expression(2) + " " + self.rng.choice(["", "-"]) + "}}"
        return self.pick(
            (4, lambda: "{{ " + self.expression(3) + " }}"),
            (2, lambda: tag(f"if {value()}") + body() + tag(f"elif {value()}") + body() + tag("else") + body() + tag("endif")),
            (2, lambda: tag(f"for {name} in {value()}") + body() + "{{ loop.index }}{{ loop.last }}" + tag("endfor")),
            (1, lambda: tag(f"for {name} in r if {name}.on") + body() + "{{ loop.length }}{{ loop.nextitem.name }}" + tag("endfor")),
            (1, lambda: tag("for p, q in d.items()") + "{{ p }}={{ q }}" + tag("else") + body() + tag("endfor")),
            (1, lambda: tag(f"for {name} in m") + tag(f"if {value()}") + tag(self.rng.choice(["break", "continue"])) + tag("endif") + body() + tag("endfor")),
            (2, lambda: tag(f"set {name} = {value()}")), (1, lambda: tag(f"set ns.a = {value()}")),
            (1, lambda: tag(f"set {name}") + body() + tag("endset")), (1, lambda: tag("set p, q = " + value())),
            (1, lambda: tag(f"with {name} = {value()}") + body() + tag("endwith")),
            (1, lambda: tag("filter upper") + body() + tag("endfilter")),
            (1, lambda: tag("generation") + body() + tag("endgeneration")),
            (1, lambda: tag(f"macro f(a, v={value()})") + "{{ a }}{{ v }}{{ varargs }}{{ kwargs }}" + body() + tag("endmacro") + f"{{{{ f({value()}, {value()}) }}}}"),
            (1, lambda: tag("macro g()") + "[{{ caller(1) }}]" + tag("endmacro") + tag("call(a) g()") + body() + tag("endcall")),
            (1, lambda: "{#" + self.rng.choice(["", "-"]) + " {{ x }} " + self.rng.choice(["", "-"]) + "#}"),
            (1, lambda: "{% raw %}{{ x }}{% y %}{% endraw %}"))

    def body(self, depth=2):
        parts = []
        for _ in range(self.rng.randint(1, 3)):
            parts += [self.rng.choice(["", " ", "\n", "  \n  ", "text", "\n\n", "a  ", "\t"]), self.statement(depth)]
        return "".join(parts) + self.rng.choice(["", " ", "\n"])


def made_up(count):
    maker = Maker(int(os.environ.get("LLMTK_JINJA_SEED", 20240229)))
    for i in range(count):
        for _ in range(6 if i % 5 else 1):  # most templates made so are errors, which are less of a test
            template = "{{ " + maker.expression() + " }}" if i % 3 else "{% set ns = namespace(a=1) %}" + maker.body()
            if "text" in theirs(template, NAMES):
                break
        yield template


# --- the comparison ---

def theirs(template, variables):
    variables = copy.deepcopy(variables)  # a filter may change a list (`[]|indent` does)
    given = {name: variables.pop(name, None) for name in ("messages", "tools", "documents", "add_generation_prompt")}
    try:
        text, generations = _render_with_assistant_indices(_compile_jinja_template(template), **given, **variables)
        json.dumps(text, ensure_ascii=False).encode()  # lone surrogates are no text
        # A block whose text was caught in a variable may lie beyond the end.
        return {"text": text, "generations": [[min(place, len(text)) for place in span] for span in generations]}
    except (Exception, RecursionError) as error:
        return {"error": f"{type(error).__name__}: {error}"}


def incomparable(expected, answer):
    """Python shows addresses, has whole numbers without end and complex ones; and the few things said not to be supported."""
    text, error = expected["text"], answer.get("error", "")
    return (" at 0x" in text or any(len(word) > 18 and word.isdigit() for word in text.replace("-", " ").split()) or
            any(words in error for words in ("not supported", "supported for", "fractional power", "of more than 64 bits")))


def compare(what, cases):
    run = subprocess.run([TOOL], input="\n".join(json.dumps({"template": t, "variables": v}) for t, v in cases) + "\n",
                         capture_output=True, text=True)
    if run.returncode != 0:
        sys.exit(f"{TOOL}: exit {run.returncode}: {run.stderr}")
    answers = [json.loads(line) for line in run.stdout.splitlines()]
    assert len(answers) == len(cases), (len(answers), len(cases))
    counts = {"equal": 0, "errors": 0, "incomparable": 0, "different": 0}
    for (template, variables), answer in zip(cases, answers):
        expected = theirs(template, variables)
        if "error" in expected and "error" in answer:
            counts["errors"] += 1
        elif expected == answer:
            counts["equal"] += 1
        elif "text" in expected and incomparable(expected, answer):
            counts["incomparable"] += 1
        else:
            counts["different"] += 1
            if counts["different"] <= 5:
                print(f"{what}: {template!r}\n  Jinja2: {expected}\n  llmtk:  {answer}")
    print(f"{what}: {counts}")
    return counts


def trl_templates():
    found = importlib.util.find_spec("trl")  # looked for, not run: it takes seconds to load
    if not found:
        sys.exit("trl is not installed: scripts/bootstrap --peers")
    paths = sorted(Path(found.origin).parent.glob("chat_templates/*.jinja"))
    assert len(paths) > 20, paths
    return paths


def main():
    templates = dict(chat_templates.ALL)
    templates |= {path.name: path.read_text() for path in trl_templates()}
    chats = [(template, variables) for template in templates.values() for variables in conversations()]
    of_chats = compare("chat templates", chats)
    of_random = compare("made-up templates", [(template, NAMES) for template in made_up(int(os.environ.get("LLMTK_JINJA_CASES", 1000)))])
    # As many as there are now: a test that only sees errors sees nothing.
    assert of_chats["equal"] > 0.6 * len(chats), of_chats
    assert of_random["equal"] > 0.5 * sum(of_random.values()), of_random
    assert of_random["incomparable"] < 0.05 * sum(of_random.values()), of_random
    sys.exit(1 if of_chats["different"] or of_random["different"] else 0)


main()
