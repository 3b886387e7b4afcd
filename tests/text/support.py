"""What the tests against Hugging Face's tokenizers share: texts that are hard to tokenize, and the comparison of ids, types, tokens
and decoded texts."""

import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path

LLMTK = Path(os.environ["LLMTK_BIN"]) / "llmtk-tokenize"
DATA = os.environ.get("LLMTK_TEST_DATA")

SENTENCES = """The quick brown fox doesn't jump; they've 12345 reasons, he'LL say: "no!"
  Indented\tand tabbed   text with  runs of spaces \r\n and\rline ends.\n\n\n
《論語》：學而時習之，不亦說乎？有朋自遠方來，不亦樂乎！１２３ ４５６
机器学习模型在二〇二六年能写诗。Café naïve résumé ÅÄÖ straße İstanbul ǅ
Привет мир, как дела? Γειά σου Κόσμε. שלום עולם مرحبا بالعالم नमस्ते दुनिया สวัสดี
日本語のテキスト、カタカナ・ひらがな。한국어 문장도 있습니다.
👍🏽👨‍👩‍👧‍👦🇫🇷 e\u0301 \u00a0 \u3000 \u200b \ufeff ½ ² ⅷ ① x² 10⁻³ Ⅻ
def f(x):\n    return x ** 2  # comment\n\tif a != b && c: print(f"{a!r}")
https://example.org/path?q=a%20b&c=d#frag user@example.com $1,234.56 -- ... ??!! #hashtag @name
""".splitlines()

HARD = [
    "", " ", "\n", "'", "''s", "<think> a <think>", "a<|endoftext|>b", "the fox, foxes", "世界你好世界", " " * 300 + "x",
    "a" * 3000, "ab" * 60, "字" * 400, "x" * 100 + " " + "y" * 101 + " " + "学" * 101,
    "z\u0351\u0352a\u0363l\u0310\u0311go\u0334\u0335", "\u202eright to left\u202c \u200fשלום\u200e (123)",
    "👩‍❤️‍💋‍👨 🏴󠁧󠁢󠁥󠁮󠁧󠁿 👨🏿‍🦱 🇨🇳🇨 ☃️ #️⃣",
    "\x00\x01\x7f\x85\x0b\x0c\u2028\u2029\u200b\ufeff\ufffd", "1\u00ad2\u200d3\u00a04",
    "ＡＢＣ１２３ ﬁ ﷺ Ⅷ ㎞ ㌀ ｶﾞ", "ḍ̇ ḍ̇ Å Å 한 한", "\u302e가\u302f나 \U0001d165\U0001d16d", "Ǆ ǅ Σ ς İ ı ẞ ß",
    "don ' t do not he 's it 'm , . ! ?", "a.b,c!d?e", "\t \r\n \r \n\r\n", "``quoted''",
    "[CLS] x [SEP] [MASK][UNK] [cls]", "<s> y </s><mask> <pad>", "<extra_id_0> z <extra_id_99>",
    "▁under▁score ▁ ▁▁", "##ing # #ing",
]


def made_up(count):
    rng = random.Random(7)
    ranges = [(32, 126), (32, 126), (160, 591), (880, 1279), (0x4E00, 0x9FFF), (0x3040, 0x30FF), (0xAC00, 0xD7A3),
              (0x1F300, 0x1F6FF), (0x2000, 0x206F), (9, 13), (48, 57), (0x0900, 0x097F), (0x0300, 0x036F)]
    texts = []
    for _ in range(count):
        parts = []
        for _ in range(rng.randint(1, 12)):
            low, high = rng.choice(ranges)
            parts.append("".join(chr(rng.randint(low, high)) for _ in range(rng.randint(1, 9))))
        texts.append(rng.choice(["", " ", "  ", "\n"]).join(parts))
    return texts


def every_character():
    """All code points but surrogates, some in a row and, where it says more, each behind a letter."""
    codes = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]
    assigned = [c for c in codes if c < 0x32000 or 0xE0000 <= c < 0xE0200]
    texts = ["".join(map(chr, assigned[i:i + 50])) for i in range(0, len(assigned), 50)]
    texts += ["".join("a" + chr(c) for c in assigned[i:i + 100]) for i in range(0, 0x3200, 100)]
    return texts + ["".join(map(chr, codes[i:i + 2])) for i in range(0x32000, len(codes), 4001)]


def real():
    texts = []
    for name in ("text/tinyshakespeare.txt", "text/tang_poems.txt", "code/humaneval.jsonl"):
        text = (Path(DATA) / name).read_text()[:150_000]
        texts += [text[i:i + 3001] for i in range(0, len(text), 3001)]
    return texts


def needs_real_texts():
    if not DATA:
        print("SKIPPED: LLMTK_TEST_DATA is not set")
        sys.exit(77)


def run(*arguments, input=None):
    done = subprocess.run([LLMTK, *arguments], input=input, stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit(f"llmtk tokenize {' '.join(map(str, arguments))} exited with {done.returncode}")
    return [json.loads(line) for line in done.stdout.split("\n") if line]


class Comparison:
    """Counts what differs between llmtk and Hugging Face's tokenizer and shows the first of each kind."""

    def __init__(self):
        self.failures = 0

    def compare(self, name, what, expected, got):
        assert len(got) == len(expected), (name, what, len(got), len(expected))
        wrong = [i for i in range(len(got)) if got[i] != expected[i][:len(got[i])]]
        for i in wrong[:3]:
            print(f"{name}: {what} of {expected[i][-1]!r}\n  expected {expected[i][:-1]}\n  got      {got[i]}")
        self.failures += len(wrong)

    def check_ids(self, name, reference, source, texts, folder, specials=False):
        """Returns the ids of the reference. `source`: what llmtk opens."""
        reference.no_padding()
        reference.no_truncation()
        rows = folder / "rows.jsonl"
        rows.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
        expected = reference.encode_batch(texts, add_special_tokens=specials)
        got = run("--json", "encode", "-t", source, "-f", rows, *(["--add-special-tokens"] if specials else []))
        self.compare(name, f"ids (special tokens: {specials})", [(e.ids, e.tokens, t) for e, t in zip(expected, texts)],
                     [(row["ids"],) for row in got])
        return [e.ids for e in expected]

    def check_pairs(self, name, reference, source, texts, folder, specials=False):
        rows = folder / "pairs.jsonl"
        pairs = list(zip(texts, texts[1:] + texts[:1]))[:100]
        rows.write_text("".join(json.dumps({"text": a, "text_pair": b}) + "\n" for a, b in pairs))
        expected = reference.encode_batch(pairs, add_special_tokens=specials)
        got = run("--json", "encode", "-t", source, "-f", rows, "--pair-field", "text_pair",
                  *(["--add-special-tokens"] if specials else []))
        self.compare(name, f"ids and types of pairs (special tokens: {specials})",
                     [(e.ids, e.type_ids, p) for e, p in zip(expected, pairs)], [(row["ids"], row["type_ids"]) for row in got])

    def check(self, name, reference, source, texts, folder, decode=None):
        """Ids, pairs and decoded texts. `decode(ids, skip)`: what decodes in the reference's place."""
        decode = decode or (lambda ids, skip: reference.decode(ids, skip_special_tokens=skip))
        for specials in (False, True):
            ids = self.check_ids(name, reference, source, texts, folder, specials)
            self.check_pairs(name, reference, source, texts, folder, specials)
        for skip in (False, True):
            back = run("--json", "decode", "-t", source, *(["--skip-special-tokens"] if skip else []),
                       input="".join(json.dumps({"ids": i}) + "\n" for i in ids))
            self.compare(name, f"decoding (skipping special tokens: {skip})", [(decode(i, skip), i) for i in ids],
                         [(row["text"],) for row in back])
        print(f"{name}: {len(texts)} texts, {sum(map(len, ids))} tokens, {self.failures} failures so far", flush=True)


def check_all(texts, tokenizers):
    """`tokenizers`: (name, Hugging Face's, the folder llmtk reads; without it the tokenizer.json of Hugging Face's). Ends the
    program."""
    comparison = Comparison()
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        for name, reference, *source in tokenizers:
            file = folder / "tokenizer.json"
            reference.save(str(file))
            comparison.check(name, reference, source[0] if source else file, texts, folder)
    sys.exit(1 if comparison.failures else 0)
