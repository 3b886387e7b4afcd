"""One peer of `scripts/bench tokenize`: encodes rows of text in Python and prints one JSON line.

  peer_tokenize.py tokenizers|tiktoken TOKENIZER.json ROWS.jsonl THREADS [--digest]

The texts are in memory before the clock starts, and what it times is the peer's fastest call that gives all ids.
"""

import hashlib
import json
import os
import sys
import time

GPT2 = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"""
# As Digits before ByteLevel: a number ends a piece, so the blanks before it are the end of one.
SINGLE_DIGITS = r"""\p{N}|'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?[^\s\p{L}\p{N}]++|\s++(?=\p{N}|$)|\s+(?!\S)|\s"""


def tiktoken_pattern(pre):
    """The one regular expression that splits as the pre-tokenizer of a tokenizer.json does."""
    steps = pre.get("pretokenizers", [pre])
    kinds = [step["type"] for step in steps]
    last = steps[-1]
    if kinds[-1] != "ByteLevel" or last["add_prefix_space"]:
        sys.exit("no pattern of tiktoken's splits so")
    if kinds == ["ByteLevel"] and last["use_regex"]:
        return GPT2
    if kinds == ["Digits", "ByteLevel"] and steps[0]["individual_digits"] and last["use_regex"]:
        return SINGLE_DIGITS
    if kinds == ["Split", "ByteLevel"] and not last["use_regex"] and "Regex" in steps[0]["pattern"]:
        return steps[0]["pattern"]["Regex"]
    sys.exit("no pattern of tiktoken's splits so")


def tiktoken_encoder(file, threads):
    import tiktoken

    content = json.load(open(file, encoding="utf-8"))
    if content["model"]["type"] != "BPE":
        sys.exit("tiktoken has byte-pair encoding alone")
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    byte_of = {chr(b): b for b in printable}
    byte_of |= {chr(256 + i): b for i, b in enumerate(b for b in range(256) if b not in printable)}
    added = {token["content"] for token in content["added_tokens"]}
    ranks = {bytes(byte_of[c] for c in token): id for token, id in content["model"]["vocab"].items() if token not in added}
    encoding = tiktoken.Encoding("bench", pat_str=tiktoken_pattern(content["pre_tokenizer"]), mergeable_ranks=ranks,
                                 special_tokens={})
    if threads == 1:
        return lambda texts: [encoding.encode_ordinary(text) for text in texts]
    return lambda texts: encoding.encode_ordinary_batch(texts, num_threads=threads)


def tokenizers_encoder(file, threads):
    os.environ["RAYON_NUM_THREADS"] = str(threads)
    os.environ["TOKENIZERS_PARALLELISM"] = "true" if threads > 1 else "false"
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(file)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return lambda texts: [encoded.ids for encoded in tokenizer.encode_batch_fast(texts, add_special_tokens=False)]


def digest(lists):
    found = hashlib.sha256()
    for ids in lists:
        found.update(b"%d:" % len(ids) + b",".join(b"%d" % id for id in ids))
    return found.hexdigest()


if __name__ == "__main__":
    kind, file, rows, threads = sys.argv[1:5]
    texts = [json.loads(line)["text"] for line in open(rows, encoding="utf-8")]
    encode = {"tiktoken": tiktoken_encoder, "tokenizers": tokenizers_encoder}[kind](file, int(threads))
    begin, begin_cpu = time.perf_counter(), time.process_time()
    ids = encode(texts)
    seconds, cpu_seconds = time.perf_counter() - begin, time.process_time() - begin_cpu
    answer = dict(seconds=seconds, cpu_seconds=cpu_seconds, tokens=sum(map(len, ids)))
    if "--digest" in sys.argv:
        answer["digest"] = digest(ids)
    print(json.dumps(answer))
