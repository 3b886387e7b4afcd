"""Ids, tokens and decoded texts of `llmtk tokenize` against Hugging Face's tokenizers, over made-up texts; with `real` as its
argument over real ones, and with GPT-2's vocabulary among the tokenizers: both are in the folder that LLMTK_TEST_DATA names."""

import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

LLMTK = Path(os.environ["LLMTK_BIN"]) / "llmtk-tokenize"
DATA = os.environ.get("LLMTK_TEST_DATA")
LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
          r"\s+(?!\S)|\s+")

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


def real():
    texts = []
    for name in ("text/tinyshakespeare.txt", "text/tang_poems.txt", "code/humaneval.jsonl"):
        text = (Path(DATA) / name).read_text()[:150_000]
        texts += [text[i:i + 3001] for i in range(0, len(text), 3001)]
    return texts


def byte_level(**more):
    return pre_tokenizers.ByteLevel(add_prefix_space=False, **more)


def train(pre_tokenizer, corpus, vocab_size, specials, normalizer=None, **model):
    tokenizer = Tokenizer(models.BPE(**model))
    if normalizer:
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(corpus, trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=specials, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False))
    return tokenizer


def sentencepiece_like(corpus, vocab_size, split_words, metaspace=None, **model):
    """A BPE over characters with its bytes as tokens, as the converters from sentencepiece make them."""
    blank = "\u2581"
    trained = Tokenizer(models.BPE())
    if split_words:
        trained.pre_tokenizer = pre_tokenizers.Metaspace(blank, "always")
    else:
        trained.normalizer = normalizers.Replace(" ", blank)
    trained.train_from_iterator(corpus, trainers.BpeTrainer(vocab_size=vocab_size, show_progress=False))
    learnt = json.loads(trained.to_str())["model"]
    tokens = ["<unk>", "<s>", "</s>"] + [f"<0x{b:02X}>" for b in range(256)]
    tokens += [token for token in sorted(learnt["vocab"], key=learnt["vocab"].get)]
    tokenizer = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(tokens)},
                                     merges=[tuple(merge) for merge in learnt["merges"]], unk_token="<unk>", **model))
    if metaspace:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(blank, metaspace, split=split_words)
        tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace(blank, metaspace)])
    else:
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend(blank), normalizers.Replace(" ", blank)])
        tokenizer.decoder = decoders.Sequence([decoders.Replace(blank, " "), decoders.ByteFallback(), decoders.Fuse(),
                                               decoders.Strip(" ", 1, 0)])
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return tokenizer


def gpt2(folder):
    tokenizer = Tokenizer(models.BPE.from_file(str(folder / "vocab.json"), str(folder / "merges.txt")))
    tokenizer.pre_tokenizer, tokenizer.decoder = byte_level(), decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|endoftext|>"])
    return tokenizer


def cases(corpus):
    eos = "<|endoftext|>"
    yield "gpt2-like", train(byte_level(), corpus, 2000, [eos])
    yield "prefix-space", train(pre_tokenizers.ByteLevel(add_prefix_space=True), corpus, 900, [eos])
    yield "single-digits", train(pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), byte_level()]),
                                 corpus, 1500, [eos, "<|im_start|>", "<|im_end|>"])
    llama3 = train(pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(LLAMA3), "isolated"), byte_level(use_regex=False)]),
                   corpus, 3000, ["<|begin|>", eos], ignore_merges=True)
    llama3.post_processor = processors.TemplateProcessing(single="<|begin|> $A", special_tokens=[("<|begin|>", 0)])
    yield "llama3-like", llama3
    yield "qwen2-like", train(pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")), "isolated"), byte_level(use_regex=False)]),
        corpus, 2500, [eos], normalizer=normalizers.NFC())
    added = train(byte_level(), corpus, 1200, [eos])
    added.add_tokens([AddedToken("<think>", lstrip=True, rstrip=True), AddedToken("fox", single_word=True), "世界"])
    yield "added-tokens", added
    fallback = dict(byte_fallback=True, fuse_unk=True)
    yield "llama2-like", sentencepiece_like(corpus, 2500, True, **fallback)
    yield "llama2-like, merges across words", sentencepiece_like(corpus[:25], 1500, False, **fallback)
    yield "metaspace", sentencepiece_like(corpus, 2000, True, metaspace="always", byte_fallback=True)
    yield "metaspace first, unknown tokens fused", sentencepiece_like(corpus[:40], 700, True, metaspace="first", fuse_unk=True)
    yield "metaspace first, unknown tokens single", sentencepiece_like(corpus[:40], 700, True, metaspace="first")


def run(*arguments, input=None):
    done = subprocess.run([LLMTK, *arguments], input=input, stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit(f"llmtk tokenize {' '.join(map(str, arguments))} exited with {done.returncode}")
    return [json.loads(line) for line in done.stdout.split("\n") if line]


def main():
    texts = SENTENCES + ["", " ", "\n", "'", "''s", "<think> a <think>", "a<|endoftext|>b", "the fox, foxes", "世界你好世界"]
    corpus = SENTENCES * 3 + made_up(100)
    if sys.argv[1:] == ["real"]:
        if not DATA:
            print("SKIPPED: LLMTK_TEST_DATA is not set")
            sys.exit(77)
        texts += real()
        corpus += real()[:60]
        folder = Path(DATA) / "tokenizers" / "gpt2"
        check(texts, [("gpt2 (vocab.json, merges.txt)", gpt2(folder), folder), *cases(corpus)])
    texts += made_up(1500)
    check(texts, cases(corpus))


def check(texts, tokenizers):
    """`tokenizers`: (name, Hugging Face's, the folder llmtk reads; without it the tokenizer.json of Hugging Face's)."""
    failures = 0
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        rows = folder / "rows.jsonl"
        rows.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
        for name, reference, *source in tokenizers:
            file = folder / "tokenizer.json"
            reference.save(str(file))
            source = source[0] if source else file
            for specials in (False, True):
                expected = reference.encode_batch(texts, add_special_tokens=specials)
                flags = ["--add-special-tokens"] if specials else []
                got = run("--json", "encode", "-t", source, "-f", rows, *flags)
                assert len(got) == len(texts), (name, len(got), len(texts))
                wrong = [i for i in range(len(texts)) if got[i]["ids"] != expected[i].ids]
                for i in wrong[:3]:
                    print(f"{name}: {texts[i]!r}\n  expected {expected[i].tokens}\n  got      {got[i]['tokens']}")
                failures += len(wrong)
            for skip in (False, True):
                ids = [e.ids for e in expected]
                back = run("--json", "decode", "-t", source, *(["--skip-special-tokens"] if skip else []),
                           input="".join(json.dumps({"ids": i}) + "\n" for i in ids))
                wrong = [i for i, row in enumerate(back) if row["text"] != reference.decode(ids[i], skip_special_tokens=skip)]
                for i in wrong[:3]:
                    print(f"{name}: decode {ids[i]}\n  expected {reference.decode(ids[i], skip_special_tokens=skip)!r}\n"
                          f"  got      {back[i]['text']!r}")
                failures += len(wrong)
            print(f"{name}: {len(texts)} texts, {sum(len(e.ids) for e in expected)} tokens, {failures} failures so far")
    sys.exit(1 if failures else 0)


main()
