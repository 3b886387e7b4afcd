"""Ids, tokens and decoded texts of `llmtk tokenize` against Hugging Face's tokenizers, over made-up texts; with `real` as its
argument over real ones, and with GPT-2's vocabulary among the tokenizers: both are in the folder that LLMTK_TEST_DATA names."""

import json
import random
import sys
from pathlib import Path

from support import DATA, HARD, SENTENCES, check_all, made_up, needs_real_texts, real
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
          r"\s+(?!\S)|\s+")


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


def gemma_like(corpus):
    """As Gemma's tokenizer.json: blanks are spelled, none is put in front, runs of line ends and blanks are tokens of their own."""
    blank = "\u2581"
    tokenizer = sentencepiece_like(corpus, 1500, False, byte_fallback=True, fuse_unk=True)
    tokenizer.normalizer = normalizers.Replace(" ", blank)
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.decoder = decoders.Sequence([decoders.Replace(blank, " "), decoders.ByteFallback(), decoders.Fuse()])
    runs = ["\n" * n for n in range(2, 6)] + [blank * n for n in range(2, 6)] + ["<b>", "</b>", "[toxicity=0]"]
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token in runs])
    tokenizer.add_special_tokens(["<pad>", "<mask>", "<start_of_turn>", "<end_of_turn>"])
    return tokenizer


def circles():
    """Merges given twice and in an order that no training finds."""
    rng, tokens, merges = random.Random(4), ["a", "b", " ", "e"], []
    for _ in range(60):
        left, right = rng.choice(tokens), rng.choice(tokens)
        if len(left + right) < 6:
            merges.append((left, right))
            tokens += [left + right] if left + right not in tokens else []
    merges += rng.sample(merges, 9)
    rng.shuffle(merges)
    return Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, merges))


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
    groups = train(pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(r"(?:\p{L}|\p{M})+|(\s|\p{P})+|\p{N}"), "isolated"),
                                            byte_level(use_regex=False)]), corpus, 1000, [eos])
    yield "groups that repeat", groups
    yield "merges in circles", circles()
    fallback = dict(byte_fallback=True, fuse_unk=True)
    yield "llama2-like", sentencepiece_like(corpus, 2500, True, **fallback)
    yield "llama2-like, merges across words", sentencepiece_like(corpus[:25], 1500, False, **fallback)
    yield "gemma-like", gemma_like(corpus[:25])
    yield "metaspace", sentencepiece_like(corpus, 2000, True, metaspace="always", byte_fallback=True)
    yield "metaspace first, unknown tokens fused", sentencepiece_like(corpus[:40], 700, True, metaspace="first", fuse_unk=True)
    yield "metaspace first, unknown tokens single", sentencepiece_like(corpus[:40], 700, True, metaspace="first")


def main():
    texts = SENTENCES + HARD + ["né" * 20_000]  # in one word: patterns with groups repeat them as often
    corpus = SENTENCES * 3 + made_up(100)
    if sys.argv[1:] == ["real"]:
        needs_real_texts()
        texts += real()
        corpus += real()[:60]
        folder = Path(DATA) / "tokenizers" / "gpt2"
        check_all(texts, [("gpt2 (vocab.json, merges.txt)", gpt2(folder), folder), *cases(corpus)])
    texts += made_up(1500)
    check_all(texts, cases(corpus))


main()
