"""llmtk tokenize shard: what is in shards, threads, kills, memory; with `full_disk` as its argument, a disk that is full."""

import json
import random
import shutil
import subprocess
import sys
import time

from small_disk import become_able_to_mount, resize, small_disk

FULL_DISK = sys.argv[1:] == ["full_disk"]
if FULL_DISK:
    become_able_to_mount()  # may start this program anew, so nothing is made before

from support import BIN, main
from tokenize_support import *

PIECES = FOLDER / "pieces"


def test_shard_content():
    texts = [text for text in TEXTS * 30 if text.strip()]
    source = write("shard.jsonl", rows(texts))
    expected = [ids + [0] for ids in encode(*texts)]
    answer, folder = shard("plain", source, "--verify")
    assert read_shard(folder / "train-00000.bin") == sum(expected, [])
    assert (answer["documents"], answer["tokens"]) == (len(texts), sum(map(len, expected))), answer
    assert answer["token_type"] == "uint16" and not answer["resumed"] and not answer["was_complete"]
    assert shard("plain", source)[0]["was_complete"]
    assert read_shard(shard("no-eos", source, "--no-eos")[1] / "train-00000.bin") == sum(encode(*texts), [])
    # Where generation begins with a token of the tokenizer's own, so does every document.
    bare = ids_of(tokenize("encode", "-t", PIECES, *texts))
    begun = ids_of(tokenize("encode", "-t", PIECES, "--add-special-tokens", *texts))
    _, folder = shard("bos", source, tokenizer=PIECES)
    eos = json.loads((folder / "shards.json").read_text())["eos_id"]
    assert all(with_bos == [1, *without] for with_bos, without in zip(begun, bare))
    assert read_shard(folder / "train-00000.bin") == [id for ids in begun for id in (*ids, eos)]
    _, folder = shard("no-bos", source, "--no-bos", tokenizer=PIECES)
    assert read_shard(folder / "train-00000.bin") == [id for ids in bare for id in (*ids, eos)]
    # Shards end at documents, below the length asked for.
    answer, folder = shard("many", source, "--shard-tokens", 700)
    parts = [read_shard(folder / part["file"]) for part in answer["train"]]
    assert len(parts) > 3 and max(map(len, parts)) <= 700 and all(part[-1] == 0 for part in parts)
    assert sum(parts, []) == sum(expected, []) and [len(part) for part in parts] == [p["tokens"] for p in answer["train"]]
    # Held out: whole documents; copies of one on the same side; by seed; or from the tail.
    held = {}
    for name, flags in {"hash": [], "seed": ["--seed", 5], "tail": ["--split-by", "tail"]}.items():
        answer, folder = shard(name, source, "--validation-fraction", 0.25, *flags)
        sides = [set(), set()]
        for side, split in enumerate(("train", "validation")):
            document = []
            for id in read_shard(folder / f"{split}-00000.bin"):
                document.append(id)
                if id == 0:
                    sides[side].add(tuple(document))
                    document = []
        assert sides[0] | sides[1] == {tuple(ids) for ids in expected}
        assert sides[1] and (name == "tail" or not sides[0] & sides[1]), name
        held[name] = sides[1]
        if name == "tail":
            assert abs(answer["validation"][0]["documents"] / len(texts) - 0.25) < 0.05, answer
    assert held["hash"] != held["seed"]
    # Other settings or other input are refused; --overwrite starts anew. Damage is found.
    for flags, words in ((["--no-eos"], ["append_eos", "true", "false"]), (["--shard-tokens", 9], ["shard_tokens"])):
        _, err = tokenize("shard", source, "-t", TOKENIZER, "-o", FOLDER / "plain", *flags, exit=3)
        assert all(word in err for word in [*words, "--overwrite", "shards.json"]), err
    write("shard.jsonl", rows(texts[:-1] + ["床"]))
    assert "has changed" in tokenize("shard", source, "-t", TOKENIZER, "-o", FOLDER / "plain", exit=3)[1]
    shard("plain", source, "--overwrite")
    damaged = FOLDER / "plain" / "train-00000.bin"
    damaged.write_bytes(b"\x01" + damaged.read_bytes()[1:])
    assert str(damaged) in tokenize("shard", source, "-t", TOKENIZER, "-o", FOLDER / "plain", "--verify", exit=5)[1]
    # Without an end-of-text token there is nothing to put between documents.
    bare = json.loads((TOKENIZER / "tokenizer.json").read_text())
    write("bare/tokenizer.json", json.dumps(bare))
    assert "--no-eos" in tokenize("shard", source, "-t", FOLDER / "bare", "-o", FOLDER / "bare-shards", exit=3)[1]


SHARD_FLAGS = [CORPUS, "--document", "line", "--shard-tokens", 150_000, "--validation-fraction", 0.1]


def large_corpus(name, megabytes):
    folder = FOLDER / name
    folder.mkdir(exist_ok=True)
    with open(folder / "part.txt", "w") as file:
        for i in range(megabytes):
            file.write(f"part {i}\n{CHUNK}")
    return folder


def test_shard_threads():
    folders = [shard(f"threads{n}", *SHARD_FLAGS, "--threads", n)[1] for n in (1, 2, 5)]
    first, *others = [files_of(folder) for folder in folders]
    assert len(first) > 5 and all(other == first for other in others)


def test_shard_killed():
    """kill -9 at random moments: the shards come out the same to the byte, and no half-written one counts."""
    corpus = large_corpus("killed-corpus", 16)
    flags = [corpus, "--document", "line", "--shard-tokens", 300_000, "--validation-fraction", 0.1, "--threads", 2]
    begin = time.monotonic()
    expected = files_of(shard("whole", *flags)[1])
    seconds = time.monotonic() - begin
    rng = random.Random(5)
    folder, kills, resumed = FOLDER / "killed", 0, 0
    command = [str(BIN / "llmtk-tokenize"), "shard", "-t", str(TOKENIZER), "-o", str(folder), "--json", *map(str, flags)]
    while kills < 8:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        try:
            out, _ = process.communicate(timeout=rng.uniform(0.05, 0.6) * seconds)
            assert process.returncode == 0
            resumed += json.loads(out)["resumed"]
            assert files_of(folder) == expected
            shutil.rmtree(folder)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            kills += 1
            for name in (p.name for p in folder.glob("*.bin")):  # what has a shard's name is a whole shard
                assert files_of(folder)[name] == expected[name], (kills, name)
    answer, _ = shard("killed", *flags)
    assert files_of(folder) == expected
    assert resumed + answer["resumed"] > 0
    print(f"{kills} kills, {resumed + answer['resumed']} runs went on to the end")


# A process counts what its parent held when it was started, so a small one starts it.
PEAK = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


def peak_mb(*arguments):
    return int(subprocess.check_output([sys.executable, "-c", PEAK, BIN / "llmtk-tokenize", *map(str, arguments)])) / 1024


def test_memory():
    """Three times the input takes the memory of the small one (which fills what is read ahead)."""
    small, large = large_corpus("small-corpus", 50), large_corpus("large-corpus", 150)
    one_document = ["--document", "file"]
    for name, arguments in {"shard": ["shard", "-t", TOKENIZER, "--overwrite", "-o", FOLDER / "memory"],
                            "shard, one document": ["shard", "-t", TOKENIZER, "--overwrite", "-o", FOLDER / "memory", *one_document],
                            "count": ["count", "-t", TOKENIZER], "encode": ["encode", "-t", TOKENIZER],
                            "train": ["train", "--vocab-size", 400, "--overwrite", "-o", FOLDER / "memory-tokenizer"]}.items():
        flags = ["--threads", 2, *([] if one_document[-1] in arguments else ["--document", "line"])]
        peaks = [peak_mb(*arguments, *flags, *(["-f"] if name == "encode" else []), corpus) for corpus in (small, large)]
        print(f"{name}: {peaks[0]:.1f} MB, {peaks[1]:.1f} MB")
        # Blocks of 4 MB: how many are in hand at once, and in whose heap they end, depends on the threads' luck. Keeping
        # the input would take 100 MB more.
        assert peaks[1] < peaks[0] + 40, (name, peaks)


def full_disk():
    """On a tmpfs that is too small: exit code 5 and what to do; the finished shards stay, and with room the rest follows."""
    tokenize("train", CORPUS, "-o", TOKENIZER, "--vocab-size", 1500)
    flags = [large_corpus("killed-corpus", 16), "--document", "line", "--shard-tokens", 300_000, "--validation-fraction", 0.1]
    whole = files_of(shard("whole", *flags)[1])
    with small_disk(FOLDER / "disk", "3m") as disk:
        (_, err), folder = shard("disk/shards", *flags, exit=5)
        assert "No space left" in err and str(folder) in err, err
        left = files_of(folder)
        assert len([name for name in left if name.endswith(".bin")]) >= 2 and not any("tmp" in name for name in left), left
        (_, err), _ = shard("disk/shards", *flags, exit=5)  # no nearer, and nothing lost
        assert {k: v for k, v in files_of(folder).items() if k.endswith(".bin")} == {k: v for k, v in left.items() if k.endswith(".bin")}
        resize(disk, "200m")
        answer, _ = shard("disk/shards", *flags, "--verify")
        assert answer["resumed"] and files_of(folder) == whole
        shutil.rmtree(folder)
        resize(disk, "16k")
        _, err = tokenize("train", CORPUS, "-o", disk / "tokenizer", "--vocab-size", 1000, exit=5)
        assert "No space left" in err and "tokenizer.json" in err, err
        assert not (disk / "tokenizer" / "tokenizer.json").exists()


try:
    if FULL_DISK:
        main({"test_full_disk": full_disk})
    tokenize("train", CORPUS, "-o", TOKENIZER, "--vocab-size", 1500)
    tokenize("train", CORPUS, "-o", PIECES, "--type", "sentencepiece-bpe", "--vocab-size", 600)
    main(dict(globals()))
finally:
    shutil.rmtree(FOLDER, ignore_errors=True)
