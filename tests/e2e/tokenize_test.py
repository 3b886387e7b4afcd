"""llmtk tokenize: every subcommand and flag on real input; broken input. Shards have tokenize_shard_test.py."""

import json
import os
import shutil
import subprocess

from support import BIN, json_lines, main
from tokenize_support import *


def test_train():
    out = json.loads(tokenize("train", CORPUS, "-o", TOKENIZER, "--vocab-size", 1500, "--special-tokens", "<|end|>", "<|角色|>",
                              "--json"))
    assert out["vocab_size"] == 1500 and out["type"] == "bpe" and out["folder"] == str(TOKENIZER), out
    vocab = json.loads((TOKENIZER / "tokenizer.json").read_text())["model"]["vocab"]
    assert len(vocab) == 1500 and vocab["<|end|>"] == 0 and vocab["<|角色|>"] == 1
    assert encode("a<|角色|>b<|end|>")[0][1::2] == [1, 0]
    # A second run in the same folder only with --overwrite.
    _, err = tokenize("train", CORPUS, "-o", TOKENIZER, exit=2)
    assert str(TOKENIZER / "tokenizer.json") in err and "--overwrite" in err, err

    def merges(name, *flags, source=CORPUS):
        folder = FOLDER / "trained" / name
        tokenize("train", source, "-o", folder, "--vocab-size", 1500, "--overwrite", *flags)
        return (folder / "tokenizer.json").read_bytes(), json.loads((folder / "tokenizer.json").read_text())

    one, model = merges("one", "--threads", 1)
    assert one == merges("two", "--threads", 2)[0] == merges("one")[0]
    assert model["added_tokens"][0]["content"] == "<|endoftext|>"
    rare, frequent = write("rare.txt", "zyx zyx\n" + "abc abc abc abc\n" * 9), "ab"
    assert "zyx" in merges("rare", source=rare)[1]["model"]["vocab"]
    vocab = merges("frequent", "--min-frequency", 20, source=rare)[1]["model"]["vocab"]
    assert "zyx" not in vocab and frequent in vocab
    assert not any(len(token) > 1 and any(c in "0123456789" for c in token)
                   for token in merges("digits", "--split-digits")[1]["model"]["vocab"])
    assert merges("no-digits", "--split-digits=false")[0] == one
    # Other fields of rows; a document of its own per row is what counts, so no token reaches over two.
    fields = write("fields.jsonl", rows(["qqqq" * 9] * 9, "body"))
    assert "qqqq" in merges("fields", "--text-field", "body", source=fields)[1]["model"]["vocab"]
    _, err = tokenize("train", fields, "-o", FOLDER / "no", exit=3)
    assert f"{fields}:1" in err and "'text'" in err and "body" in err, err
    for flags, code, words in ((["--vocab-size", 10], 2, ["10", "257"]), (["--vocab-size", 0], 2, ["vocab-size"]),
                               (["--type", "word"], 2, ["wordpiece", "sentencepiece-unigram"]),
                               (["--type", "wordpiece", "--split-digits"], 2, ["--split-digits", "no effect"]),
                               (["--no-lowercase"], 2, ["--lowercase", "no effect", "bpe"]),
                               (["--character-coverage", 0.9], 2, ["--character-coverage", "no effect", "bpe"]),
                               (["--input-sentence-size", 200], 2, ["--input-sentence-size", "no effect", "bpe"]),
                               (["--type", "sentencepiece-bpe", "--input-sentence-size", 100], 2, ["input-sentence-size", "101"]),
                               (["--type", "sentencepiece-bpe", "--split-digits"], 2, ["--split-digits", "no effect"])):
        _, err = tokenize("train", CORPUS, "-o", FOLDER / "no", *flags, exit=code)
        assert all(word in err for word in words), err
    assert not (FOLDER / "no").exists()


def test_train_sentencepiece():
    for kind in ("sentencepiece-bpe", "sentencepiece-unigram"):
        folder = FOLDER / "kinds" / kind
        out = json.loads(tokenize("train", CORPUS, "-o", folder, "--type", kind, "--vocab-size", 600, "--json"))
        assert out["vocab_size"] == 600 and (folder / "tokenizer.model").exists(), out
        tokens = json_lines(tokenize("encode", "-t", folder, "--json", "the 龘"))[0]["tokens"]
        assert "".join(tokens) == "▁the▁<0xE9><0xBE><0x98>", tokens
        plain = FOLDER / "kinds" / "plain"
        tokenize("train", CORPUS, "-o", plain, "--type", kind, "--vocab-size", 600, "--no-byte-fallback",
                 "--character-coverage", "1.0", "--special-tokens", "<|user|>", "--overwrite", "--threads", 1)
        encoded = json_lines(tokenize("encode", "-t", plain, "--json", "--add-special-tokens", "the 龘"))[0]
        assert encoded["tokens"][0] == "<s>" and encoded["tokens"][-1] == "<unk>", encoded
        # Another kind of tokenizer in the same folder leaves nothing of the first behind; nor does the first come back.
        tokenize("train", CORPUS, "-o", plain, "--vocab-size", 300, "--overwrite")
        assert json_lines(tokenize("encode", "-t", plain, "--json", "the"))[0]["tokens"][0][0] == "t"
        tokenize("train", CORPUS, "-o", plain, "--type", kind, "--vocab-size", 600, "--overwrite", "--input-sentence-size", 2000)
        sampled = (plain / "tokenizer.model").read_bytes()
        assert sampled != (folder / "tokenizer.model").read_bytes() and "▁" in tokenize("encode", "-t", plain, "--show", "tokens", "the")
    _, err = tokenize("train", CORPUS, "-o", FOLDER / "no", "--type", "sentencepiece-bpe", "--vocab-size", 90, exit=3)
    assert "sentencepiece" in err and "vocabulary" in err, err


def test_encode_and_decode():
    plain = encode(*TEXTS)
    answers = json_lines(tokenize("encode", "-t", TOKENIZER, "--json", *TEXTS))
    tokens = tokenize("encode", "-t", TOKENIZER, "--show", "tokens", *TEXTS).split("\n")
    assert [a["ids"] for a in answers] == plain and [a["count"] for a in answers] == [len(p) for p in plain]
    assert [" ".join(a["tokens"]) for a in answers] == tokens[:-1]
    # The same from files of every kind, a folder, a pattern, standard input, on any number of threads.
    source = write("in/a.jsonl", rows(TEXTS))
    write("in/b.json", json.dumps([{"text": text} for text in TEXTS]))
    for threads in (0, 1, 2, 3):
        assert encode("-f", source, "--threads", threads) == plain
    assert encode("-f", FOLDER / "in") == encode("-f", FOLDER / "in" / "*.json*") == plain * 2
    assert encode(TEXTS[0], "-f", FOLDER / "in" / "b.json") == plain[:1] + plain
    assert encode("[a,b]", "[CLS]", "[]") == [*encode(stdin="[a,b]"), *encode(stdin="[CLS]"), *encode(stdin="[]")]
    assert encode("-f", write("fields.jsonl", rows(TEXTS, "body")), "--text-field", "body") == plain
    for text, ids in zip(TEXTS, plain):
        assert encode(stdin=text) == [ids], text
    poem = write("poem.txt", "床前明月光，\r\n疑是地上霜。\n\n舉頭望明月\n")
    lines = ["床前明月光，", "疑是地上霜。", "", "舉頭望明月"]
    assert encode("-f", poem, "--document", "line") == encode(*lines)
    assert encode("-f", poem, "--document", "blank_line") == encode("床前明月光，\n疑是地上霜。", "舉頭望明月")
    assert encode("-f", poem) == encode(poem.read_text().replace("\r", ""))
    # And back.
    for text, ids in zip(TEXTS, plain):
        assert tokenize("decode", "-t", TOKENIZER, *ids) == text + "\n"
        assert json.loads(tokenize("decode", "-t", TOKENIZER, "--json", str(ids))) == {"count": len(ids), "text": text}
    both = "\n".join([" ".join(map(str, plain[0])), json.dumps({"ids": plain[1]}), ",".join(map(str, plain[4])), ""])
    assert tokenize("decode", "-t", TOKENIZER, stdin=both) == "\n".join([TEXTS[0], TEXTS[1], TEXTS[4], ""])
    assert tokenize("decode", "-t", TOKENIZER, 0, *plain[8]) == "<|end|>龘\n"
    assert tokenize("decode", "-t", TOKENIZER, "--skip-special-tokens", 0, *plain[8]) == "龘\n"
    assert tokenize("decode", "-t", TOKENIZER, *plain[8][:-1]).strip() == "\ufffd"


def test_pairs():
    pairs = list(zip(TEXTS, reversed(TEXTS)))
    lines = "".join(json.dumps({"question": a, "answer": b}) + "\n" for a, b in pairs)
    flags = ["--json", "--text-field", "question", "--pair-field", "answer"]
    for more in ({"stdin": lines}, {}):
        files = [] if more else ["-f", write("pairs.jsonl", lines)]
        answers = json_lines(tokenize("encode", "-t", TOKENIZER, *flags, *files, **more))
        for (a, b), answer in zip(pairs, answers, strict=True):
            first, second = encode(a, b)
            assert (answer["ids"], answer["count"]) == (first + second, len(first + second))
            assert answer["type_ids"] == [0] * len(first) + [1] * len(second)
    for arguments, code, words in (
            (["-f", write("one.jsonl", '{"question": "a", "answer": "b"}\n{"question": "a"}\n')], 3, ["one.jsonl:2", "'answer'"]),
            (["-f", write("none.jsonl", "[]\n")], 3, ["none.jsonl:1", "not a row"]),
            (["-f", CORPUS], 2, [str(CORPUS), ".jsonl"]), (["text"], 2, ["--pair-field"])):
        _, err = tokenize("encode", "-t", TOKENIZER, *flags, *arguments, exit=code)
        assert all(word in err for word in words), (arguments, err)


def test_by_name():
    """A tokenizer is also a model's name in the local Hugging Face cache."""
    snapshot = FOLDER / "hub/models--someone--model/snapshots/abc"
    shutil.copytree(TOKENIZER, snapshot)
    env = {"HF_HUB_CACHE": str(FOLDER / "hub")}
    ids = encode(TEXTS[0])
    assert encode(TEXTS[0], env=env) == ids_of(tokenize("encode", "-t", "someone/model", TEXTS[0], env=env)) == ids
    assert tokenize("decode", "-t", "someone/model", *ids[0], env=env) == TEXTS[0] + "\n"
    assert tokenize("count", "-t", "someone/model", CORPUS, env=env) == tokenize("count", "-t", TOKENIZER, CORPUS)
    named, _ = shard("named", CORPUS, tokenizer="someone/model", env=env)
    assert named["tokens"] == shard("not-named")[0]["tokens"]
    _, err = tokenize("encode", "-t", "someone/other", "a", env=env, exit=5)
    assert "no such tokenizer" in err and "someone/other" in err and str(FOLDER / "hub") in err and "tokenizer.json" in err, err


def test_typed():
    """Who types the text is told that it is waited for; who pipes it is not."""
    for command, typed, out in (("encode", "a b", encode(stdin="a b")[0]), ("decode", "1\n", None)):
        outer, inner = os.openpty()
        process = subprocess.Popen([str(BIN / "llmtk-tokenize"), command, "-t", str(TOKENIZER)], stdin=inner,
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        os.close(inner)
        os.write(outer, typed.encode() + b"\x04\x04")  # the first ends what stands in the line
        got, err = process.communicate(timeout=60)
        os.close(outer)
        assert process.returncode == 0 and "Ctrl-D" in err and (out is None or ids_of(got)[0] == out), (command, got, err)
    assert "Ctrl-D" not in tokenize_both("encode", "-t", TOKENIZER, stdin="a")[1]


def test_identity():
    """decode(encode(text)) is the text, whatever the tokenizer; rows go through pipes."""
    folders = [TOKENIZER, *(FOLDER / "kinds" / kind for kind in ("sentencepiece-bpe", "sentencepiece-unigram"))]
    texts = TEXTS + [made_up(3000, seed) for seed in range(20)]
    source = write("identity.jsonl", rows(texts))
    for folder in folders:
        encoded = tokenize("encode", "-t", folder, "--json", "-f", source)
        assert [row["text"] for row in json_lines(tokenize("decode", "-t", folder, "--json", stdin=encoded))] == texts, folder


def test_large_document():
    """A file that is one document longer than what is read at a time gives the ids of the whole."""
    text = CHUNK * 9
    large = write("large.txt", text)
    expected = encode(stdin=text)
    assert encode("-f", large, "--threads", 2) == expected
    counted = json_lines(tokenize("count", "-t", TOKENIZER, "--json", large))
    assert counted[0]["documents"] == 1 and counted[0]["bytes"] == len(text.encode()), counted
    assert counted[0]["tokens"] == len(expected[0])


def test_count():
    source, other = write("count/a.jsonl", rows(TEXTS)), write("count/b.txt", CHUNK)
    ids = [encode(*TEXTS), encode(stdin=CHUNK)]
    texts = [TEXTS, [CHUNK]]
    for threads in (0, 1, 2):
        answers = json_lines(tokenize("count", "-t", TOKENIZER, "--json", FOLDER / "count", "--threads", threads))
        for answer, path, text, found in zip(answers, (source, other), texts, ids):
            assert answer["file"] == str(path) and answer["documents"] == len(text), answer
            assert answer["bytes"] == sum(len(t.encode()) for t in text), answer
            assert answer["characters"] == sum(map(len, text)), answer
            assert answer["tokens"] == sum(map(len, found)), answer
            assert abs(answer["bytes_per_token"] - answer["bytes"] / answer["tokens"]) < 1e-9
        assert answers[2]["file"] is None and answers[2]["tokens"] == answers[0]["tokens"] + answers[1]["tokens"]
    assert json_lines(tokenize("count", "-t", TOKENIZER, "--json", other, "--document", "line"))[0]["documents"] == sum(
        1 for line in CHUNK.split("\n") if line)
    fields = write("fields.jsonl", rows(TEXTS, "body"))
    assert json_lines(tokenize("count", "-t", TOKENIZER, "--json", fields, "--text-field", "body"))[0]["documents"] == len(TEXTS)
    lines = tokenize("count", "-t", TOKENIZER, source, other).splitlines()
    assert len(lines) == 3 and lines[0].endswith(str(source)) and lines[2].endswith("total"), lines


BROKEN = {  # name: bytes; by line what is wrong with it; what is left with skip, with replace
    "rows.jsonl": (b'{"text": "one"}\n{"text": "t\xffwo"}\n\n{"txt": "x"}\nnot json\n["a"]\n{"text": 5}\n{"text": "\xe4\xb8\x96"}\n',
                   {2: "0xFF", 4: "no field 'text'", 5: "not JSON", 6: "array", 7: "number"}, ["one", "世"],
                   ["one", "t\ufffdwo", "世"]),
    "list.json": (b'[{"text": "one"},\n {"text": "t\xffwo"},\n {"txt": "x"}, {"text": "\xe4\xb8\x96"}]',
                  {2: "0xFF", 3: "no field 'text'"}, ["one", "世"], ["one", "t\ufffdwo", "世"]),
    "lines.txt": (b"one\nhalf \xe4\xbd character\n\xe4\xb8\x96\n", {2: "0xE4"}, ["one", "世"],
                  ["one", "half \ufffd character", "世"]),
}


def test_bad_lines():
    for name, (content, wrong, skipped, replaced) in BROKEN.items():
        path = write("broken/" + name, content)
        first = f"{path}:{min(wrong)}: "
        flags = ["--document", "line"]
        commands = {"encode": ["encode", "-t", TOKENIZER, *flags, "-f", path], "count": ["count", "-t", TOKENIZER, *flags, path],
                    "train": ["train", path, *flags, "--vocab-size", 300, "--overwrite", "-o", FOLDER / "broken-tokenizer"],
                    "shard": ["shard", path, *flags, "-t", TOKENIZER, "--no-eos", "--overwrite", "-o", FOLDER / "broken-shards"]}
        for command, arguments in commands.items():
            _, err = tokenize(*arguments, exit=3)
            assert first in err and wrong[min(wrong)] in err and "--bad-lines" in err, (command, err)
            answer = json.loads(tokenize(*arguments, "--json", exit=3)[0])
            assert answer["exit_code"] == 3 and answer["error"]["where"] == first[:-2], answer
            for policy, left in (("skip", skipped), ("replace", replaced)):
                mended = len(left) - len(skipped)
                out, err = tokenize_both(*arguments, "--bad-lines", policy)
                for line, reason in wrong.items():
                    assert f"{path}:{line}: " in err and (reason in err), (command, policy, line, err)
                if command != "train":
                    assert f"{len(wrong) - mended} bad lines left out, {mended} mended" in err, (command, policy, err)
                if command == "encode":
                    assert ids_of(out) == encode(*left), (name, policy)
                if command == "count":
                    assert int(out.split()[0]) == sum(map(len, encode(*left))), (name, policy)
                if command == "shard":
                    assert read_shard(FOLDER / "broken-shards" / "train-00000.bin") == sum(encode(*left), []), (name, policy)
    wide = write("wide.txt", "text".encode("utf-16"))
    assert "UTF-16" in tokenize("count", "-t", TOKENIZER, wide, exit=3)[1]
    # Texts of the command line.
    assert "argument 2" in tokenize("encode", "-t", TOKENIZER, "a", os.fsdecode(b"b\xff"), exit=3)[1]
    assert encode("a", os.fsdecode(b"b\xff"), "--bad-lines", "skip") == encode("a")
    assert encode("a", os.fsdecode(b"b\xff"), "--bad-lines", "replace") == encode("a", "b\ufffd")
    assert "stdin:2" in tokenize("encode", "-t", TOKENIZER, stdin=b"a\nb\xff\n", exit=3)[1]


def tokenize_both(*arguments, stdin=""):
    """stdout and stderr of a run that exits with 0."""
    done = subprocess.run([str(BIN / "llmtk"), "tokenize", *map(str, arguments)], input=stdin.encode(), capture_output=True, timeout=300)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode(), done.stderr.decode()


def test_exit_codes():
    for arguments, code, words in (
            ([], 2, ["subcommand"]), (["encode", "a"], 2, ["--tokenizer"]), (["count", "-t", TOKENIZER], 2, ["inputs"]),
            (["encode", "-t", TOKENIZER, "--show", "words", "a"], 2, ["words", "tokens"]),
            (["encode", "-t", TOKENIZER, "--threads", "-1", "a"], 2, ["threads"]),
            (["encode", "-t", TOKENIZER, "--nonsense", "a"], 2, ["--nonsense"]),
            (["encode", "-t", TOKENIZER, "--document", "page", "a"], 2, ["page", "blank_line"]),
            (["shard", CORPUS, "-t", TOKENIZER, "-o", FOLDER / "x", "--validation-fraction", "1"], 2, ["validation-fraction"]),
            (["shard", CORPUS, "-t", TOKENIZER, "-o", FOLDER / "x", "--shard-tokens", "0"], 2, ["shard-tokens"]),
            (["encode", "-t", FOLDER / "none", "a"], 5, [str(FOLDER / "none"), "tokenizer.json"]),
            (["encode", "-t", FOLDER / "in", "a"], 5, ["holds no tokenizer"]),
            (["encode", "-t", TOKENIZER, "-f", FOLDER / "none.txt"], 5, ["none.txt"]),
            (["decode", "-t", TOKENIZER, "1500"], 3, ["'1500'", "0 to 1499"]),
            (["decode", "-t", TOKENIZER, "1", "x"], 3, ["'x'"])):
        _, err = tokenize(*arguments, exit=code)
        assert all(word in err for word in words), (arguments, err)
    assert not (FOLDER / "x").exists()
    assert "stdin:2" in tokenize("decode", "-t", TOKENIZER, stdin="1\n1 -2\n", exit=3)[1]
    assert "stdin:1" in tokenize("decode", "-t", TOKENIZER, stdin='{"ids": 3}\n', exit=3)[1]
    broken = write("broken-tokenizer.json", (TOKENIZER / "tokenizer.json").read_bytes()[:-500])
    assert str(broken) in tokenize("encode", "-t", broken, "a", exit=5)[1]
    # What cannot be written is never a success.
    for arguments in (["encode", "-t", TOKENIZER, "a"], ["decode", "-t", TOKENIZER, "1"], ["count", "-t", TOKENIZER, CORPUS],
                      ["shard", CORPUS, "-t", TOKENIZER, "-o", FOLDER / "full", "--json"],
                      ["train", CORPUS, "-o", FOLDER / "full-tokenizer", "--vocab-size", 300, "--json"]):
        with open("/dev/full", "w") as full:
            done = subprocess.run([str(BIN / "llmtk"), "tokenize", *map(str, arguments)], stdout=full, stderr=subprocess.PIPE)
        assert done.returncode == 5 and b"stdout" in done.stderr and b"No space left" in done.stderr, (arguments, done)


try:
    main(dict(globals()))
finally:
    shutil.rmtree(FOLDER, ignore_errors=True)
