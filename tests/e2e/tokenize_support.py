"""What the tests of `llmtk tokenize` share: made-up text, a folder to work in, the commands."""

import hashlib
import json
import pathlib
import random
import struct
import tempfile

from support import run

FOLDER = pathlib.Path(tempfile.mkdtemp(prefix="llmtk-e2e-tokenize-"))
TEXTS = ["The quick brown fox jumps over 13 lazy dogs.", "床前明月光，疑是地上霜。", "《論語》：學而時習之，不亦說乎？\n有朋自遠方來",
         "  two  blanks\tand a tab\n\n\nlines", "👍🏽👨‍👩‍👧‍👦 e\u0301 ½ Привет नमस्ते 日本語 한국어", " ", "\n", "it's 2024's 1st: x**2 != 3.14", "龘"]
WORDS = ("the a of to and is that for it with as was on be at by this had not are but from or have an they which one you "
         "were her all she there would their we him been has when who will more no if out so said what up its about "
         "床前 明月光 疑是 地上霜 舉頭 望明月 低頭 思故鄉 人生 白日 依山 盡 黃河 入海 流 2024 3.14 don't they've 模型 学习").split()


def made_up(size, seed):
    """About `size` bytes of text in lines, some of them empty; the same for the same seed."""
    rng = random.Random(seed)
    lines, have = [], 0
    while have < size:
        line = " ".join(rng.choice(WORDS) if rng.random() < 0.8 else "".join(rng.choices("abcdefghijklmnopqrst", k=rng.randint(2, 9)))
                        for _ in range(rng.randint(0, 16)))
        lines.append(line)
        have += len(line.encode()) + 1
    return "\n".join(lines) + "\n"


def write(name, content):
    path = FOLDER / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def rows(texts, field="text"):
    return "".join(json.dumps({field: text}, ensure_ascii=False) + "\n" for text in texts)


CHUNK = made_up(1 << 20, 1)
CORPUS = write("corpus.txt", CHUNK)
TOKENIZER = FOLDER / "tokenizer"
KINDS = {"bpe": [], "sentencepiece-bpe": ["--character-coverage", "0.99"], "sentencepiece-unigram": []}


def tokenize(*arguments, **more):
    return run("tokenize", *arguments, **more)


def ids_of(text):
    return [[int(word) for word in line.split()] for line in text.split("\n")[:-1]]


def encode(*arguments, **more):
    return ids_of(tokenize("encode", "-t", TOKENIZER, *arguments, **more))


def files_of(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def read_shard(path):
    raw = path.read_bytes()
    return list(struct.unpack(f"<{len(raw) // 2}H", raw))


def shard(name, *arguments, tokenizer=TOKENIZER, **more):
    """Writes shards from CORPUS if nothing else is said. The answer to --json, and the folder."""
    out = tokenize("shard", "-t", tokenizer, "-o", FOLDER / name, "--json", *(arguments or [CORPUS]), **more)
    return json.loads(out) if isinstance(out, str) else out, FOLDER / name
