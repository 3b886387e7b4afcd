"""`llmtk tokenize train`: byte-level BPE has the merges that Hugging Face's trainer finds, and its files open there;
WordPiece has the tokens of its trainer, but for ties;
SentencePiece models encode as the sentencepiece and transformers libraries do, and give texts back. With `real` as its argument on
the texts of the folder that LLMTK_TEST_DATA names, otherwise on made-up ones."""

import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path

import transformers
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

LLMTK = Path(os.environ["LLMTK_BIN"]) / "llmtk-tokenize"
DATA = os.environ.get("LLMTK_TEST_DATA")


def real(characters):
    texts = []
    for name in ("text/tinyshakespeare.txt", "text/tang_poems.txt"):
        text = (Path(DATA) / name).read_text()[:characters]
        texts += [t for t in text.split("\n\n") if t]
    return texts


def made_up():
    rng = random.Random(3)
    syllables = ["ka", "to", "mi", "re", "un", "aa", "aaa", "学", "世界", "é", "ß", "123", "'s", "of"]
    return [" ".join("".join(rng.choices(syllables, k=rng.randint(1, 5))) for _ in range(rng.randint(1, 40)))
            for _ in range(600)]


def run(*arguments, input=None):
    done = subprocess.run([LLMTK, *arguments], input=input, stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit(f"llmtk tokenize {' '.join(map(str, arguments))} exited with {done.returncode}")
    return [json.loads(line) for line in done.stdout.split("\n") if line]


def check_bpe(folder, rows, texts, digits):
    target = folder / f"bpe-{digits}"
    flags = ["--split-digits"] if digits else []
    for threads in ("1", "2"):
        run("--json", "train", rows, "-o", target, "--vocab-size", "1500", "--min-frequency", "2", "--threads", threads,
            "--overwrite", "--special-tokens", "<|endoftext|>", "<|pad|>", *flags)
        written = (target / "tokenizer.json").read_text()
        if threads == "1":
            first = written
    assert first == written, "the number of threads changed the result"

    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    reference = Tokenizer(models.BPE())
    reference.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), byte_level]) if digits else byte_level
    reference.decoder = decoders.ByteLevel()
    reference.train_from_iterator(texts, trainers.BpeTrainer(
        vocab_size=1500, min_frequency=2, special_tokens=["<|endoftext|>", "<|pad|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    expected = json.loads(reference.to_str())["model"]
    got = json.loads(written)["model"]
    assert got["merges"] == expected["merges"], next(
        (i, g, e) for i, (g, e) in enumerate(zip(got["merges"], expected["merges"])) if g != e)
    assert got["vocab"] == expected["vocab"]

    opened = Tokenizer.from_file(str(target / "tokenizer.json"))
    ids = [row["ids"] for row in run("--json", "encode", "-t", target, "-f", rows)]
    assert ids == [e.ids for e in opened.encode_batch(texts)]
    auto = transformers.AutoTokenizer.from_pretrained(target)
    assert auto.eos_token == "<|endoftext|>" and auto(texts[0])["input_ids"] == ids[0]
    print(f"bpe (digits apart: {digits}): {len(got['merges'])} merges as in the reference, {len(texts)} texts equal")


def check_wordpiece(folder, rows, texts, size, lowercase):
    """Among pairs equally frequent Hugging Face's trainer takes whichever its hash map gives first, so a few tokens and
    cuts may differ."""
    target = folder / f"wordpiece-{lowercase}"
    for threads in ("1", "2"):
        run("--json", "train", rows, "-o", target, "--type", "wordpiece", "--vocab-size", str(size), "--threads", threads,
            "--overwrite", "--special-tokens", "<|user|>", *([] if lowercase else ["--no-lowercase"]))
        written = (target / "tokenizer.json").read_text()
        if threads == "1":
            first = written
    assert first == written, "the number of threads changed the result"

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "<|user|>"]
    reference = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    reference.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    reference.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    reference.train_from_iterator(texts, trainers.WordPieceTrainer(
        vocab_size=size, min_frequency=2, special_tokens=special, show_progress=False))
    opened = Tokenizer.from_file(str(target / "tokenizer.json"))
    got, expected = opened.get_vocab(), reference.get_vocab()
    assert [got[token] for token in special] == list(range(len(special)))
    share = len(got.keys() & expected.keys()) / len(expected)
    assert share > 0.97 and len(got) == len(expected), (share, len(got), len(expected))
    lengths = [sum(len(e.ids) for e in t.encode_batch(texts, add_special_tokens=False)) for t in (opened, reference)]
    assert abs(lengths[0] - lengths[1]) < 0.003 * lengths[1], lengths

    ids = [row["ids"] for row in run("--json", "encode", "-t", target, "-f", rows, "--add-special-tokens")]
    auto = transformers.AutoTokenizer.from_pretrained(target)
    assert auto.mask_token == "[MASK]" and ids == [auto(text)["input_ids"] for text in texts]
    assert [line for line in (target / "vocab.txt").read_text().split("\n") if line] == sorted(got, key=got.get)
    print(f"wordpiece (lowercase: {lowercase}): {share:.1%} of the reference's tokens, {lengths[0]} for {lengths[1]} ids")


def check_pieces(folder, rows, texts, kind, *flags):
    target = folder / kind
    run("--json", "train", rows, "-o", target, "--type", kind, "--special-tokens", "<|user|>", "--overwrite", *flags)
    texts = texts[:300] + texts[-300:] + [
        "Hello  world, 12345!", "学而时习之 𝄞 ☃", "a\tb", " lead", "double  blank", "trail ", " ", "", "\n\nx\n", "<0x41> is a byte",
        "👍🏽👨‍👩‍👧‍👦🇫🇷 e\u0301", "2026年3.14元"]
    rows_all = folder / "all.jsonl"
    rows_all.write_text("".join(json.dumps({"text": t}) + "\n" for t in texts))
    ids = [row["ids"] for row in run("--json", "encode", "-t", target, "-f", rows_all)]
    import sentencepiece
    reference = sentencepiece.SentencePieceProcessor(model_file=str(target / "tokenizer.model"))
    auto = transformers.AutoTokenizer.from_pretrained(target)
    assert (auto.bos_token, auto.eos_token, auto.unk_token, len(auto)) == ("<s>", "</s>", "<unk>", len(reference)), auto

    def same(got, expected):
        # Another library, or release of it, may choose another of several equally probable ways.
        score = [sum(reference.get_score(i) for i in way) for way in (got, expected)]
        return got == expected or (kind.endswith("unigram") and abs(score[0] - score[1]) < 1e-3)

    for text, got in zip(texts, ids):
        assert same(got, reference.encode(text)), (text, got, reference.encode(text))
        if "<0x41>" in text and "--no-byte-fallback" not in flags and reference.piece_to_id("<") == reference.unk_id():
            continue  # see sentencepiece_json.h
        bos, *theirs = auto(text)["input_ids"]
        assert bos == reference.bos_id() and same(got, theirs), (text, got, theirs)
        if reference.unk_id() not in got:
            assert auto.decode(got) == text, (text, auto.decode(got))
    assert reference.id_to_piece(reference.piece_to_id("<|user|>")) == "<|user|>"
    back = run("--json", "decode", "-t", target, input="".join(json.dumps({"ids": i}) + "\n" for i in ids))
    for text, got, row in zip(texts, ids, back):
        assert row["text"] == text or reference.unk_id() in got, (text, row["text"])
    print(f"{kind} {' '.join(flags)}: {len(ids)} texts equal, and back")


def main():
    if sys.argv[1:] == ["real"] and not DATA:
        print("SKIPPED: LLMTK_TEST_DATA is not set")
        sys.exit(77)
    is_real = sys.argv[1:] == ["real"]
    texts = real(400_000) if is_real else made_up()
    shorter = real(100_000) if is_real else texts  # SentencePiece's own training takes its time
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)

        def write(name, texts):
            (folder / name).write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
            return folder / name

        rows = write("rows.jsonl", texts)
        check_bpe(folder, rows, texts, False)
        check_bpe(folder, rows, texts, True)
        check_wordpiece(folder, rows, texts, 9000 if is_real else 1500, True)
        check_wordpiece(folder, rows, texts, 9000 if is_real else 1500, False)
        rows, size = write("shorter.jsonl", shorter), "4000" if is_real else "700"
        for kind in ("sentencepiece-bpe", "sentencepiece-unigram"):
            for flags in ([], ["--no-byte-fallback"]):
                check_pieces(folder, rows, shorter, kind, "--vocab-size", size, "--character-coverage", "0.98", *flags)


main()
