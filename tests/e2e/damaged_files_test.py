"""Damaged and hostile model files, each given to the command that reads it: exit code 5 and one line that names the file, soon,
and never a signal."""

import json
import os
import pathlib
import random
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor

from support import BIN, main

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "fuzz"))
from seeds import charsmap, field, gguf, gguf_string, safetensors, sentencepiece_model, small_charsmap, tensor, varint  # noqa: E402

FOLDER = pathlib.Path(tempfile.mkdtemp(prefix="llmtk-e2e-damaged-"))
HUGE = 1 << 60
MOST_SECONDS = float(os.environ.get("LLMTK_DAMAGED_SECONDS", 5))  # a busy machine starts a program in a second
SLOWEST = []


def folder(name, **files):
    """A folder of files: "config_json" is config.json. Values are bytes, text or what JSON can hold."""
    path = FOLDER / name.replace(" ", "-").replace("/", "-")
    path.mkdir()
    for file, content in files.items():
        stem, _, ending = file.rpartition("_")
        if not isinstance(content, (bytes, str)):
            content = json.dumps(content)
        (path / f"{stem}.{ending}").write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def refuses(name, command, path, says, stdin=""):
    """`command` ends with exit code 5 and one line of an error that holds the name of `path` and one of the words `says`."""
    begin = time.monotonic()
    done = subprocess.run([BIN / "llmtk", *map(str, command)], input=stdin.encode(), capture_output=True, timeout=120)
    seconds = time.monotonic() - begin
    SLOWEST.append((seconds, name))
    errors = done.stderr.decode().splitlines()
    shown = f"{name}: exit {done.returncode} after {seconds:.2f} s: {done.stderr.decode()[:600]!r}"
    assert done.returncode == 5, shown
    assert len(errors) == 1 and "error" in errors[0] and str(path) in errors[0], shown
    assert says in errors[0], f"{shown}, expected {says!r}"
    assert len(errors[0]) < 2000 and errors[0].isprintable(), shown
    assert not done.stdout, shown
    assert seconds < MOST_SECONDS, shown


def check_all(cases, run_case):
    """Every case, then an error that names those that failed."""
    before = len(SLOWEST)

    def failure(case):
        try:
            run_case(*case)
        except AssertionError as error:
            return str(error)

    with ThreadPoolExecutor(2) as pool:
        failed = [error for error in pool.map(failure, cases) if error]
    slowest = max(SLOWEST[before:])
    print(f"{len(SLOWEST) - before} files, the slowest {slowest[0]:.2f} s ({slowest[1]})")
    assert not failed, "\n".join(failed)


# --- weights ---

LLAMA = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 16, "hidden_size": 8, "intermediate_size": 16,
         "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 16,
         "rms_norm_eps": 1e-5, "bos_token_id": 0, "eos_token_id": 0}
LLAMA_TENSORS = {"model.embed_tokens.weight": [16, 8], "model.norm.weight": [8], "lm_head.weight": [16, 8], **{
    f"model.layers.0.{name}.weight": shape for name, shape in {
        "input_layernorm": [8], "post_attention_layernorm": [8], "self_attn.q_proj": [8, 8], "self_attn.k_proj": [8, 8],
        "self_attn.v_proj": [8, 8], "self_attn.o_proj": [8, 8], "mlp.gate_proj": [16, 8], "mlp.up_proj": [16, 8],
        "mlp.down_proj": [8, 16]}.items()}}


def llama_weights(change=None, cut=None, length=None, tail=b""):
    """The safetensors file of LLAMA. `change(header)` damages its header."""
    header, at = {}, 0
    for name, shape in LLAMA_TENSORS.items():
        size = 4
        for dim in shape:
            size *= dim
        header[name] = tensor("F32", shape, at, at + size)
        at += size
    if change:
        header = change(header) or header
    return safetensors(header, bytes(at) + tail, length)[:cut]


def with_norm(**parts):
    return lambda header: header["model.norm.weight"].update(parts)


SAFETENSORS = [
    ("empty", b"", "too short"),
    ("cut in the header", llama_weights(cut=100), "beyond the end"),
    ("cut in the data", llama_weights(cut=-100), "beyond the end"),
    ("bytes behind", llama_weights(tail=b"more"), "after the last tensor"),
    ("header of 2^60 bytes", llama_weights(length=HUGE), "too long"),
    ("header of 2^64-1 bytes", llama_weights(length=(1 << 64) - 1), "too long"),
    ("header is no JSON", safetensors(b"{" * 50), "not valid JSON"),
    ("header nested deep", safetensors(b"[" * 100_000), "nested too deep"),
    ("header is a list", safetensors(b"[]"), "not a JSON object"),
    ("a tensor twice", safetensors(b'{"a": {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}, "a": {"dtype": "U8", "shape": [0], '
                                   b'"data_offsets": [0, 0]}}'), "twice"),
    ("offsets overlap", llama_weights(with_norm(data_offsets=[0, 32])), "overlaps"),
    ("offsets backwards", llama_weights(with_norm(data_offsets=[32, 0])), "no range"),
    ("offsets negative", llama_weights(with_norm(data_offsets=[-32, 0])), "no range"),
    ("offsets of 2^60", llama_weights(with_norm(data_offsets=[HUGE, HUGE + 32])), "beyond the end"),
    ("shape negative", llama_weights(with_norm(shape=[-8])), "not a size"),
    ("shape of a fraction", llama_weights(with_norm(shape=[8.5])), "not a size"),
    ("shape overflows", llama_weights(with_norm(shape=[1 << 32, 1 << 32, 4])), "more elements than can be counted"),
    ("shape overflows to 8", llama_weights(with_norm(shape=[(1 << 61) + 8, 1 << 3, 1 << 3])), "more elements than can be counted"),
    ("shape and offsets disagree", llama_weights(with_norm(shape=[7])), "do not fit its shape"),
    ("dtype unknown", llama_weights(with_norm(dtype="F33")), "unknown dtype"),
    ("dtype a number", llama_weights(with_norm(dtype=32)), "unknown dtype"),
    ("no tensors", safetensors({}), "are missing"),
    ("a shape of another model", llama_weights(with_norm(shape=[4, 2])), "shape"),
    ("a name to steer terminals", llama_weights(lambda header: {"\x1b[2J\n" * 30: tensor("F32", [-1], 0, 4)}), "not a size"),
]


def test_safetensors():
    def refuse(name, content, says):
        path = folder("safetensors " + name, config_json=LLAMA, model_safetensors=content)
        refuses("safetensors " + name, ["convert", path, FOLDER / "out.gguf", "--no-tokenizer"], path, says)

    check_all(SAFETENSORS, refuse)
    whole = folder("safetensors whole", config_json=LLAMA, model_safetensors=llama_weights())
    subprocess.run([BIN / "llmtk", "convert", whole, FOLDER / "whole.gguf", "--no-tokenizer"], check=True, capture_output=True)


INDEXES = [
    ("a shard missing", {"weight_map": {name: "no.safetensors" for name in LLAMA_TENSORS}}, "missing"),
    ("a tensor elsewhere", {"weight_map": {"x.weight": "part.safetensors"}}, "is not in"),
    ("tensors not listed", {"weight_map": {"model.norm.weight": "part.safetensors"}}, "not in the index"),
    ("a path out of the folder", {"weight_map": {"model.norm.weight": "../part.safetensors"}}, "no file of this folder"),
    ("an absolute path", {"weight_map": {"model.norm.weight": "/etc/passwd"}}, "no file of this folder"),
    ("a number for a file", {"weight_map": {"model.norm.weight": 3}}, "no file of this folder"),
    ("no map", {"metadata": {}}, "weight_map"), ("cut", '{"weight_map": {"a": "b.saf', "not valid JSON"), ("a list", "[]", "weight_map"),
]


def test_index():
    def refuse(name, content, says):
        path = folder("index " + name, config_json=LLAMA, part_safetensors=llama_weights(), **{"model.safetensors.index_json": content})
        refuses("index " + name, ["inspect", "params", path], path, says)

    check_all(INDEXES, refuse)


# --- GGUF ---

PAIRS = [("general.architecture", "str", "llama"), ("llama.block_count", "u32", 1), ("llama.context_length", "u32", 16),
         ("llama.embedding_length", "u32", 32), ("llama.feed_forward_length", "u32", 32), ("llama.attention.head_count", "u32", 2),
         ("llama.attention.layer_norm_rms_epsilon", "f32", 1e-5)]
F32, Q4_K = 0, 12
TENSORS = [("token_embd.weight", [32, 9], F32, 32 * 9 * 4), ("output_norm.weight", [32], F32, 128)]


def but(key, kind, value):
    return [pair for pair in PAIRS if pair[0] != key] + [(key, kind, value)]


def patched(content, find, replacement):
    assert content.count(find) >= 1
    return content.replace(find, replacement, 1)


WHOLE = gguf(PAIRS, TENSORS)
GGUFS = [
    ("empty", b"", "too short"), ("cut in the metadata", WHOLE[:200], "beyond the end"), ("cut in the data", WHOLE[:-100], "beyond the end"),
    ("bad magic", b"GGML" + WHOLE[4:], "not a GGUF file"), ("version 99", gguf(PAIRS, TENSORS, version=99), "version"),
    ("version 1", gguf(PAIRS, TENSORS, version=1), "version"), ("big-endian", b"GGUF" + struct.pack(">I", 3) + WHOLE[8:], "big-endian"),
    ("2^60 tensors", gguf(PAIRS, TENSORS, count=HUGE), "more entries"),
    ("2^60 keys", WHOLE[:16] + struct.pack("<Q", HUGE) + WHOLE[24:], "more entries"),
    ("string of 2^60 bytes", patched(WHOLE, gguf_string("llama"), struct.pack("<Q", HUGE) + b"llama"), "beyond the end"),
    ("string of 2^64-1 bytes", patched(WHOLE, gguf_string("llama"), b"\xff" * 8 + b"llama"), "beyond the end"),
    ("list of 2^60", gguf(PAIRS)[:16] + struct.pack("<Q", 1) + gguf_string("k") + struct.pack("<IIQ", 9, 4, HUGE), "too many elements"),
    ("list of lists", gguf([])[:16] + struct.pack("<Q", 1) + gguf_string("k") + struct.pack("<IIQ", 9, 9, 1) * 50, "cannot read"),
    ("kind unknown", gguf([])[:16] + struct.pack("<Q", 1) + gguf_string("k") + struct.pack("<IQ", 77, 0), "unknown kind"),
    ("a key twice", gguf(PAIRS + PAIRS[:1], TENSORS), "twice"),
    ("a tensor twice", gguf(PAIRS, TENSORS + TENSORS[:1]), "twice"),
    ("alignment 0", gguf(PAIRS + [("general.alignment", "u32", 0)], TENSORS), "power of two"),
    ("alignment 24", gguf(PAIRS + [("general.alignment", "u32", 24)], TENSORS), "power of two"),
    ("alignment 2^40", gguf(PAIRS + [("general.alignment", "u64", 1 << 40)], TENSORS), "power of two"),
    ("alignment a string", gguf(PAIRS + [("general.alignment", "str", "32")], TENSORS), "an integer"),
    ("offset beyond the end", patched(WHOLE, struct.pack("<IQ", F32, 32 * 9 * 4), struct.pack("<IQ", F32, 1 << 40)), "beyond the end"),
    ("offset of 2^64-32", patched(WHOLE, struct.pack("<IQ", F32, 32 * 9 * 4), struct.pack("<IQ", F32, (1 << 64) - 32)), "can be counted"),
    ("offset not aligned", patched(WHOLE, struct.pack("<IQ", F32, 32 * 9 * 4), struct.pack("<IQ", F32, 33)), "not aligned"),
    ("tensors overlap", patched(WHOLE, struct.pack("<IQ", F32, 32 * 9 * 4), struct.pack("<IQ", F32, 32)), "overlaps"),
    ("shape of 2^80", gguf(PAIRS, [("t", [1 << 40, 1 << 40], F32, 32)]), "can be counted"),
    ("shape of 0", gguf(PAIRS, [("t", [0], F32, 32)]), "not a size"), ("shape of 2^63", gguf(PAIRS, [("t", [1 << 63], F32, 32)]), "not a size"),
    ("5 dimensions", gguf(PAIRS, [("t", [1] * 5, F32, 32)]), "too many dimensions"),
    ("part of a block", gguf(PAIRS, [("t", [100], Q4_K, 144)]), "whole blocks"), ("type unknown", gguf(PAIRS, [("t", [32], 200, 128)]), "type"),
    ("no architecture", gguf([]), "general.architecture"), ("architecture unknown", gguf(but("general.architecture", "str", "x"), TENSORS), "x"),
    ("2^60 layers", gguf(but("llama.block_count", "u64", HUGE), TENSORS), "block_count"),
    ("-1 layers", gguf(but("llama.block_count", "i32", -1), TENSORS), "block_count"),
    ("2^30 layers", gguf(but("llama.block_count", "u32", 1 << 30), TENSORS), "block_count"),
    ("0 heads", gguf(but("llama.attention.head_count", "u32", 0), TENSORS), "head_count"),
    ("layers missing", WHOLE, "block_count"),
    ("part 1 of 3", gguf(PAIRS + [("split.count", "u32", 3)], TENSORS), "parts"),
]


def test_gguf():
    def refuse(name, content, says):
        path = folder("gguf " + name, model_gguf=content) / "model.gguf"
        refuses("gguf " + name, ["convert", path, FOLDER / "out", "--no-tokenizer"], path, says)

    check_all(GGUFS, refuse)


SMALL = ("tokenizer.ggml.tokens", "[str", ["<s>", "a", "b", "ab"])
GPT2_PAIRS = [("tokenizer.ggml.model", "str", "gpt2"), ("tokenizer.ggml.pre", "str", "gpt-2"), SMALL]
GGUF_VOCABULARIES = [
    ("none", [], "tokenizer.ggml.model"), ("model unknown", [("tokenizer.ggml.model", "str", "bert2"), SMALL], "bert2"),
    ("rules unknown", [("tokenizer.ggml.model", "str", "gpt2"), ("tokenizer.ggml.pre", "str", "x"), SMALL], "tokenizer.ggml.pre"),
    ("no merges", GPT2_PAIRS, "tokenizer.ggml.merges"),
    ("merge of a piece that is not there", GPT2_PAIRS + [("tokenizer.ggml.merges", "[str", ["a c"])], "merge"),
    ("merge of one word", GPT2_PAIRS + [("tokenizer.ggml.merges", "[str", ["ab"])], "tokenizer.ggml.merges"),
    ("eos beyond the vocabulary", GPT2_PAIRS + [("tokenizer.ggml.merges", "[str", ["a b"]), ("tokenizer.ggml.eos_token_id", "u32", 1 << 31)],
     "eos_token_id"),
    ("types for other tokens", GPT2_PAIRS + [("tokenizer.ggml.token_type", "[i32", [1])], "token_type"),
    ("no scores", [("tokenizer.ggml.model", "str", "llama"), SMALL], "scores"),
    ("a score that is none", [("tokenizer.ggml.model", "str", "llama"), SMALL, ("tokenizer.ggml.scores", "[f32", [0, 0, float("nan"), 0])], "scores"),
    ("a piece of 1 MB", [("tokenizer.ggml.model", "str", "llama"), ("tokenizer.ggml.tokens", "[str", ["<unk>", "<s>", "</s>", "a" * (1 << 20)]),
                         ("tokenizer.ggml.scores", "[f32", [0.0] * 4)], "tokenizer.ggml.tokens"),
]


def test_gguf_vocabulary():
    def refuse(name, pairs, says):
        path = folder("vocabulary " + name, model_gguf=gguf(PAIRS + pairs)) / "model.gguf"
        refuses("vocabulary " + name, ["tokenize", "encode", "-t", path, "ab"], path, says)

    check_all(GGUF_VOCABULARIES, refuse)


# --- tokenizers ---

def bpe(vocab=None, merges=(), model=None, **parts):
    vocab = {"a": 0, "b": 1, "ab": 2} if vocab is None else vocab
    return json.dumps({**parts, "model": {"type": "BPE", "vocab": vocab, "merges": list(merges), **(model or {})}})


def regex_split(pattern):
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


def added(**parts):
    return [{"id": 3, "content": "<x>", "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True, **parts}]


LONG = "a" * 5000 + "!"
TOKENIZERS = [
    ("empty", "", "not valid JSON"), ("cut", bpe()[:-20], "not valid JSON"), ("random", random.Random(1).randbytes(5000), "not valid JSON"),
    ("invalid UTF-8", bpe().encode().replace(b'"ab"', b'"\xff\xfe"'), "not valid JSON"), ("a list", "[]", "an object"), ("null", "null", "an object"),
    ("nested 100k deep", '{"model": ' + "[" * 100_000 + "]" * 100_000 + "}", "model"),
    ("a part nested 100k deep", bpe(normalizer=0).replace('"normalizer": 0', '"normalizer": ' + '{"type": "Sequence", "normalizers": [' * 50_000 + "]}" * 50_000), "nested too deep"),
    ("merge of missing pieces", bpe(merges=[["a", "c"]]), "lacks a merge's token"),
    ("merge whose piece is missing", bpe(merges=[["b", "a"]]), "lacks a merge's token"),
    ("merge of three", bpe(merges=[["a", "b", "ab"]]), "merges"), ("merge of numbers", bpe(merges=[[0, 1]]), "merges"),
    ("merge of one word", bpe(merges=["ab"]), "merges"),
    ("id -1", bpe({"a": -1}), "not a token's id"), ("id 2^31", bpe({"a": 1 << 31}), "not a token's id"), ("id 2^60", bpe({"a": HUGE}), "not a token's id"),
    ("id 2^70", bpe({"a": 1 << 70}), "not a token's id"), ("id a fraction", bpe({"a": 0.5}), "not a token's id"), ("id twice", bpe({"a": 0, "b": 0}), "have the id 0"),
    ("added id 2^40", bpe(added_tokens=added(id=1 << 40)), "not a token's id"), ("added id -1", bpe(added_tokens=added(id=-1)), "not a token's id"),
    ("regex that blows up", bpe(pre_tokenizer=regex_split("(?:a|aa|aaa)+[bc]")), "cannot be matched"),
    ("regex in a normalizer that blows up", bpe(normalizer={"type": "Replace", "pattern": {"Regex": "(?:a|aa|aaa)+[bc]"}, "content": ""}), "cannot be matched"),
    ("regex that does not compile", bpe(pre_tokenizer=regex_split("(")), "does not compile"),
    ("regex with a huge repeat", bpe(pre_tokenizer=regex_split("((((a{1,999}){1,999}){1,999}){1,999}){1,999}")), "does not compile"),
    ("regex that calls itself for ever", bpe(pre_tokenizer=regex_split("(a(?1)|(?1)a)")), "cannot be matched"),
    ("no model", "{}", "model"), ("model unknown", '{"model": {"type": "X"}}', "is not supported"),
    ("vocab a list", bpe([]), "vocab"), ("no vocab", '{"model": {"type": "BPE", "merges": []}}', "vocab"),
    ("normalizer unknown", bpe(normalizer={"type": "X"}), "is not supported"),
    ("unigram score 1e999", '{"model": {"type": "Unigram", "unk_id": 0, "vocab": [["a", 1e999]]}}', "too large"),
    ("unigram unk beyond", '{"model": {"type": "Unigram", "unk_id": 7, "vocab": [["a", 0]]}}', "unk_id"),
    ("wordpiece without unk", '{"model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##", '
                              '"max_input_chars_per_word": 100, "vocab": {"a": 0}}}', "unk_token"),
]


def test_tokenizer_json():
    def refuse(name, content, says):
        path = folder("tokenizer " + name, tokenizer_json=content)
        refuses("tokenizer " + name, ["tokenize", "encode", "-t", path], path, says, stdin=LONG)

    check_all(TOKENIZERS, refuse)
    # Merges that go in a circle merge nothing for ever: the text ends.
    circle = folder("tokenizer merges in a circle", tokenizer_json=bpe(
        {"a": 0, "aa": 1, "aaa": 2}, [["a", "a"], ["aa", "a"], ["a", "aa"], ["aa", "a"]]))
    done = subprocess.run([BIN / "llmtk", "tokenize", "encode", "-t", circle, "aaaa"], capture_output=True, timeout=60)
    assert done.returncode in (0, 5), done


PIECES = [("<unk>", 0.0, 2), ("<s>", 0.0, 3), ("</s>", 0.0, 3), ("a", -1.0, 1), ("b", -2.0, 1), ("ab", -0.5, 1)]
SPM = sentencepiece_model(PIECES, 1)
MODELS = [
    ("empty", b"", "not a sentencepiece model"), ("random", random.Random(2).randbytes(4000), "sentencepiece"), ("cut", SPM[:45], "sentencepiece"),
    ("cut by one", SPM[:-1], "sentencepiece"),
    ("length 2^60", b"\x0a" + varint(HUGE) + SPM, "sentencepiece"), ("text", b"not a model at all\n" * 50, "sentencepiece"),
    ("no pieces", sentencepiece_model([], 1), "not a sentencepiece model"),
    ("table that leads outside", sentencepiece_model(PIECES, 1, charsmap([1 << 30] * 256, ["b"])), "table"),
    ("table with texts outside", sentencepiece_model(PIECES, 1, charsmap([1 << 8] + [1 << 31 | 99] * 255, ["b"])), "table"),
    ("table cut", sentencepiece_model(PIECES, 1, small_charsmap()[:99]), "table"),
    ("a piece twice", sentencepiece_model(PIECES + PIECES[3:], 1), "twice"), ("no unknown piece", sentencepiece_model(PIECES[1:], 1), "unk"),
    ("a piece that is not UTF-8", patched(SPM, field(1, "ab"), b"\x0a\x02\xff\xfe"), "UTF-8"),
    ("a score that is none", sentencepiece_model(PIECES + [("c", float("nan"), 1)], 1), "score"),
]


def test_sentencepiece():
    def refuse(name, content, says):
        path = folder("sentencepiece " + name, tokenizer_model=content)
        refuses("sentencepiece " + name, ["tokenize", "encode", "-t", path, "ab"], path, says)

    check_all(MODELS, refuse)
    t5 = folder("sentencepiece many extra ids", spiece_model=SPM, tokenizer_config_json={"tokenizer_class": "T5Tokenizer", "extra_ids": HUGE})
    refuses("many extra ids", ["tokenize", "encode", "-t", t5, "ab"], t5, "extra_ids")


# --- templates and configs ---

TEMPLATES = [
    ("loops for ever", "{% for i in range(10**9) %}{% for j in range(10**9) %}{% endfor %}{% endfor %}", "range"),
    ("loops long", "{% for i in range(5000) %}{% for j in range(5000) %}{{ i * j }}{% endfor %}{% endfor %}", "steps"),
    ("calls itself", "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "deep"),
    ("doubles a text", "{% set ns = namespace(t='ab') %}{% for i in range(99) %}{% set ns.t = ns.t ~ ns.t %}{% endfor %}{{ ns.t }}", "steps"),
    ("text of 1 GB", "{{ 'a' * 1000000000 }}", "steps"), ("wide format", "{{ '%1000000000d' % 1 }}", "width"),
    ("includes a file", "{% include '/etc/passwd' %}", "include"), ("imports a file", "{% import '/etc/passwd' as p %}", "import"),
    ("extends a file", "{% extends 'base.html' %}", "extends"),
    ("reaches for Python", "{{ ''.__class__.__mro__[1].__subclasses__() }}", "template"),
    ("not closed", "{% for m in messages %}", "endfor"), ("nested deep", "{{ " + "(" * 100_000 + " }}", "deep"),
    ("deep list", "{% set ns = namespace(l=[]) %}{% for i in range(9999) %}{% set ns.l = [ns.l] %}{% endfor %}{{ ns.l }}", "deep"),
    ("not UTF-8", b"{{ '\xff\xfe' }}", "UTF-8"),
]


def test_chat_template():
    def refuse(name, content, says):
        path = folder("template " + name, tokenizer_json=bpe(), chat_template_jinja=content)
        refuses("template " + name, ["tokenize", "render", "-t", path], path, says, stdin='[{"role": "user", "content": "Hi"}]')

    check_all(TEMPLATES, refuse)


CONFIGS = [
    ("empty", "", "not valid JSON"), ("a list", "[]", "a JSON object"), ("cut", json.dumps(LLAMA)[:-9], "not valid JSON"),
    ("nested deep", "[" * 100_000, "nested too deep"), ("a key twice", '{"model_type": "llama", "model_type": "gpt2"}', "twice"),
    ("no model_type", {k: v for k, v in LLAMA.items() if k != "model_type"}, "model_type"), ("model_type unknown", {**LLAMA, "model_type": "x"}, "model_type"),
    ("model_type a number", {**LLAMA, "model_type": 7}, "model_type"),
    *[(f"{key} {value}", {**LLAMA, key: value}, key) for key, value in [
        ("hidden_size", -8), ("hidden_size", 0), ("hidden_size", HUGE), ("hidden_size", 8.5), ("hidden_size", "8"), ("hidden_size", 7),
        ("num_hidden_layers", -1), ("num_hidden_layers", HUGE), ("num_hidden_layers", 1 << 64), ("vocab_size", -1),
        ("vocab_size", HUGE), ("num_attention_heads", 0), ("num_attention_heads", 3), ("num_key_value_heads", -2), ("intermediate_size", -1),
        ("max_position_embeddings", HUGE), ("rms_norm_eps", "x"), ("head_dim", -4), ("hidden_act", "x")]],
    ("2^30 layers", {**LLAMA, "num_hidden_layers": 1 << 30}, "num_hidden_layers"),
    ("2^20 tokens", {**LLAMA, "vocab_size": 1 << 20}, "shape"), ("2^31 tokens", {**LLAMA, "vocab_size": 1 << 31}, "shape"),
    ("2^31 wide", {**LLAMA, "intermediate_size": 1 << 31}, "shape"),
]


def test_config():
    def refuse(name, content, says):
        path = folder("config " + name, config_json=content, model_safetensors=llama_weights())
        refuses("config " + name, ["convert", path, FOLDER / "out.gguf", "--no-tokenizer"], path, says)

    check_all(CONFIGS, refuse)


try:
    main(dict(globals()))
finally:
    shutil.rmtree(FOLDER)
