"""Real English text for the measurements, cut at tokens."""

import json
import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent


def sayings():
    """The quickstart's English text, which scripts/bootstrap makes; None where Debian's fortunes are not."""
    folder = subprocess.run([ROOT / "scripts/bootstrap", "--print", "data"], check=True, stdout=subprocess.PIPE, text=True).stdout
    file = pathlib.Path(folder.strip()) / "fortunes/english.jsonl"
    return file if file.exists() else None


def english(path=None):
    """That of a file; without one of the data that LLMTK_TEST_DATA names, else of the quickstart."""
    play = pathlib.Path(os.environ.get("LLMTK_TEST_DATA", ""), "text/tinyshakespeare.txt")
    path = path or (play if play.exists() else sayings())
    if not path:
        sys.exit("no English text here: name a file with --text")
    text = path.read_text()
    return "\n\n".join(json.loads(line)["text"] for line in text.splitlines()) if path.suffix == ".jsonl" else text


def tokenizer(folder):
    import tokenizers

    return tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))


def prompts(folder, text, length, count):
    """`count` pieces of the text, of exactly `length` tokens each when they are tokenized again: (text, ids)."""
    encoder = tokenizer(folder)
    offsets = encoder.encode(text[:count * length * 16], add_special_tokens=False).offsets
    found, begin = [], 0
    while len(found) < count and begin + length <= len(offsets):
        piece = text[offsets[begin][0]:offsets[begin + length - 1][1]]
        ids = encoder.encode(piece, add_special_tokens=False).ids
        exact = len(ids) == length
        if exact:
            found.append((piece, ids))
        begin += length if exact else 1
    if len(found) < count:
        sys.exit(f"the text has only {len(found)} pieces of {length} tokens, not {count}")
    return found


def windows(folder, text, length, count):
    """The beginning of the text that has `count` windows of `length` tokens, fewer where it is shorter: (text, [ids ...])."""
    encoder = tokenizer(folder)
    encoded = encoder.encode(text[:count * length * 16], add_special_tokens=False)
    for size in range(min(count, len(encoded.ids) // length) * length, 0, -length):
        piece, ids = text[:encoded.offsets[size - 1][1]], encoded.ids[:size]
        if encoder.encode(piece, add_special_tokens=False).ids == ids:  # a cut within a word may have other tokens
            return piece, [ids[begin:begin + length] for begin in range(0, size, length)]
    sys.exit(f"the text has only {len(encoded.ids)} tokens, or none of its windows ends where a word does")
