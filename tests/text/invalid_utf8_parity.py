"""Bytes that are not UTF-8 with --bad-lines replace: the ids are those that Hugging Face's tokenizers give for the text that Python's
bytes.decode(errors="replace") makes of them, one U+FFFD for each longest part that could have begun a character."""

import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path

from support import HARD, LLMTK, SENTENCES, Comparison, made_up, run
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

# Cut short, overlong, surrogates, above U+10FFFF, bytes that begin nothing.
WRONG = [b"\xe4\xb8", b"\xf0\x9f\x98", b"\xf0\x9f", b"\xed\xa0\x80", b"\xc0\x80", b"\xff", b"\xf5\x80\x80\x80", b"\xe0\x80\x80", b"\xe0\xa0",
         b"\xf4\x90\x80\x80", b"\xf0\x80\x80", b"\xc2", b"\x80", b"\xf1\x80\x80\xe4", b"\xbf\xbf"]


def damaged(count):
    rng = random.Random(5)
    sound = [text.encode()[:150] for text in SENTENCES + HARD + made_up(50)]
    lines = WRONG[:]
    for _ in range(count):
        line = bytearray(rng.choice(sound))
        for _ in range(rng.randint(1, 4)):
            at = rng.randrange(len(line) + 1)
            line[at:at + rng.randrange(2)] = rng.choice([rng.choice(WRONG), bytes([rng.getrandbits(8)]), b""])
        lines.append(bytes(line).replace(b"\n", b" ").replace(b"\r", b" "))
    return [line for line in lines if b"\0" not in line]


def byte_level(corpus):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer.train_from_iterator(corpus, trainers.BpeTrainer(
        vocab_size=700, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    return tokenizer


def byte_fallback(corpus):
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.Metaspace("\u2581", "always")
    trained.train_from_iterator(corpus, trainers.BpeTrainer(vocab_size=900, show_progress=False))
    learnt = json.loads(trained.to_str())["model"]
    tokens = ["<unk>"] + [f"<0x{b:02X}>" for b in range(256)] + sorted(learnt["vocab"], key=learnt["vocab"].get)
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, [tuple(merge) for merge in learnt["merges"]],
                                     unk_token="<unk>", byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace("\u2581", "always")
    return tokenizer


def main():
    lines = damaged(1500)
    texts = [line.decode(errors="replace") for line in lines]
    assert sum("\ufffd" in text for text in texts) > 1000
    comparison = Comparison()
    with tempfile.TemporaryDirectory() as folder:
        rows, file = Path(folder) / "rows.txt", Path(folder) / "tokenizer.json"
        rows.write_bytes(b"".join(line + b"\n" for line in lines))
        for make in (byte_level, byte_fallback):
            tokenizer = make(SENTENCES * 3)
            tokenizer.save(str(file))
            expected = [(tokenizer.encode(text).ids, text) for text in texts]
            for source in (["-f", rows, "--document", "line"], ["--", *lines[:200]]):
                got = run("--json", "encode", "-t", file, "--bad-lines", "replace", *source)
                comparison.compare(make.__name__, "ids", expected[:len(got)], [(row["ids"],) for row in got])
        stop = subprocess.run([LLMTK, "encode", "-t", file, "-f", rows, "--document", "line"], capture_output=True, text=True)
        assert stop.returncode == 3 and f"{rows}:1" in stop.stderr and "not UTF-8" in stop.stderr, stop
        skipped = run("--json", "encode", "-t", file, "-f", rows, "--document", "line", "--bad-lines", "skip")
        assert len(skipped) == sum("\ufffd" not in text for text in texts), len(skipped)
    print(f"{len(lines)} lines, {comparison.failures} failures")
    sys.exit(1 if comparison.failures else 0)


main()
