"""Seeds for the fuzz targets: small valid files and some that are wrong in the ways that matter. `seeds.py NAME FOLDER` writes
those of one target."""

import json
import re
import struct
import sys
from pathlib import Path


# --- safetensors ---

def safetensors(header, data=b"", length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def tensor(dtype, shape, begin, end):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def safetensors_seeds():
    two = {"a": tensor("F32", [2, 3], 0, 24), "b": tensor("BF16", [4], 24, 32), "__metadata__": {"format": "pt"}}
    yield "two", safetensors(two, bytes(range(32)))
    yield "empty", safetensors({})
    yield "scalar", safetensors({"s": tensor("I64", [], 0, 8), "none": tensor("U8", [0], 8, 8)}, bytes(8))
    yield "header of 2^60 bytes", safetensors(two, bytes(32), 1 << 60)
    yield "cut", safetensors(two, bytes(32))[:50]
    yield "overlap", safetensors({"a": tensor("F32", [2], 0, 8), "b": tensor("F32", [2], 4, 12)}, bytes(12))
    yield "negative", safetensors({"a": tensor("F32", [-1, -2], 0, 8)}, bytes(8))
    yield "overflow", safetensors({"a": tensor("F64", [1 << 31, 1 << 31, 4], 0, 8)}, bytes(8))
    yield "deep", safetensors(b"[" * 500)


# --- GGUF ---

def gguf_string(text):
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw


def gguf_value(kind, value):
    plain = {"u32": (4, "<I"), "i32": (5, "<i"), "f32": (6, "<f"), "bool": (7, "<?"), "u64": (10, "<Q")}
    if kind == "str":
        return struct.pack("<I", 8) + gguf_string(value)
    if kind in plain:
        return struct.pack("<I", plain[kind][0]) + struct.pack(plain[kind][1], value)
    of = kind[1:]  # a list
    items = [gguf_value(of, item)[4:] for item in value]
    return struct.pack("<I", 9) + gguf_value(of, value[0])[:4] + struct.pack("<Q", len(items)) + b"".join(items)


def gguf(pairs, tensors=(), version=3, count=None):
    out = b"GGUF" + struct.pack("<IQQ", version, len(tensors) if count is None else count, len(pairs))
    for key, kind, value in pairs:
        out += gguf_string(key) + gguf_value(kind, value)
    data = b""
    for name, shape, kind, size in tensors:
        out += gguf_string(name) + struct.pack("<I", len(shape)) + struct.pack(f"<{len(shape)}Q", *shape)
        out += struct.pack("<IQ", kind, len(data))
        data += bytes(size) + bytes(-size % 32)
    return out + bytes(-len(out) % 32) + data


def gguf_seeds():
    bpe = [("general.architecture", "str", "llama"), ("tokenizer.ggml.model", "str", "gpt2"), ("tokenizer.ggml.pre", "str", "smollm"),
           ("tokenizer.ggml.tokens", "[str", ["<s>", "H", "e", "l", "o", "Ġ", "ll", "He", "1"]),
           ("tokenizer.ggml.token_type", "[i32", [3] + [1] * 8), ("tokenizer.ggml.merges", "[str", ["l l", "H e"]),
           ("tokenizer.ggml.bos_token_id", "u32", 0), ("tokenizer.ggml.eos_token_id", "u32", 0),
           ("tokenizer.chat_template", "str", "{{ messages }}"), ("tokenizer.chat_template.tool_use", "str", "{{ tools }}"), ("llama.block_count", "u32", 1)]
    pieces = ["<unk>", "<s>", "</s>"] + [f"<0x{i:02X}>" for i in range(256)] + ["▁", "H", "e", "▁H", "▁He"]
    spm = [("general.architecture", "str", "llama"), ("tokenizer.ggml.model", "str", "llama"), ("tokenizer.ggml.tokens", "[str", pieces),
           ("tokenizer.ggml.scores", "[f32", [0.0] * 259 + [-1.0, -2.0, -3.0, -0.5, -0.25]),
           ("tokenizer.ggml.token_type", "[i32", [2, 3, 3] + [6] * 256 + [1] * 5), ("tokenizer.ggml.add_bos_token", "bool", True)]
    tensors = [("token_embd.weight", [32, 9], 0, 32 * 9 * 4), ("blk.0.attn_q.weight", [32, 32], 8, 34 * 32), ("x.bias", [32], 1, 64)]
    def shape(name, **more):
        keys = {"block_count": 1, "context_length": 16, "embedding_length": 32, "feed_forward_length": 32, "attention.head_count": 2,
                "attention.layer_norm_rms_epsilon": 1e-5, "attention.layer_norm_epsilon": 1e-5, "rope.freq_base": 1e4, **more}
        kinds = {int: "u32", float: "f32", str: "str"}
        return [("general.architecture", "str", name)] + [(f"{name}.{key}", kinds[type(value)], value) for key, value in keys.items()]
    blocks = [("2", 18, 32), ("3", 20, 32), ("6", 22, 32), ("7", 24, 32), ("8", 34, 32), ("10", 84, 256), ("11", 110, 256), ("12", 144, 256),
              ("13", 176, 256), ("14", 210, 256), ("15", 292, 256), ("1", 2, 1), ("30", 2, 1)]  # type, bytes and elements of a block
    yield "bpe", gguf(bpe, tensors)
    yield "sentencepiece", gguf(spm)
    yield "types", gguf(shape("llama"), [(kind, [2 * elements], int(kind), 2 * size) for kind, size, elements in blocks])
    for name in ("llama", "qwen3", "gpt2", "gemma2", "gemma3"):
        yield f"shape of {name}", gguf(shape(name, **{"attention.sliding_window": 8}), tensors)
    yield "yarn", gguf(shape("llama", **{"rope.scaling.type": "yarn", "rope.scaling.factor": 2.0, "rope.scaling.original_context_length": 8}), tensors)
    yield "factors", gguf(shape("llama"), tensors + [("rope_freqs.weight", [8], 0, 32)])
    yield "empty", gguf([])
    yield "cut", gguf(bpe, tensors)[:200]
    yield "many tensors", gguf(bpe, tensors, count=1 << 60)
    yield "version", gguf(bpe, version=99)
    yield "shape", gguf(bpe, [("t", [1 << 40, 1 << 40], 0, 32)])
    yield "list of 2^60", gguf(bpe)[:24] + gguf_string("k") + struct.pack("<IIQ", 9, 4, 1 << 60)


# --- tokenizer.json ---

def tokenizer_json_seeds():
    def of(model, **parts):
        return json.dumps({"version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None,
                           "pre_tokenizer": None, "post_processor": None, "decoder": None, **parts, "model": model},
                          ensure_ascii=False).encode()
    letters = {letter: i for i, letter in enumerate(["<s>", "H", "e", "l", "o", "Ġ", "ll", "He", "Hell"])}
    bpe = {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None,
           "fuse_unk": False, "byte_fallback": False, "ignore_merges": False, "vocab": letters,
           "merges": [["l", "l"], ["H", "e"], ["He", "ll"]]}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    special = {"id": 0, "content": "<s>", "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    template = {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
                "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
                "special_tokens": {"<s>": {"id": "<s>", "ids": [0], "tokens": ["<s>"]}}}
    yield "bpe", of(bpe, pre_tokenizer=byte_level, decoder=byte_level, added_tokens=[special], post_processor=template,
                    normalizer={"type": "NFC"})
    yield "cycle", of({**bpe, "merges": [["He", "ll"], ["Hell", "He"], ["l", "l"], ["l", "l"]]})
    yield "digits", of(bpe, pre_tokenizer={"type": "Sequence", "pretokenizers": [
        {"type": "Digits", "individual_digits": True}, {"type": "Split", "pattern": {"Regex": "\\p{L}+|\\s+(?!\\S)|(a|b)*c"}, "behavior": "Isolated",
                                                         "invert": False}, {**byte_level, "use_regex": False}]})
    pieces = {piece: i for i, piece in enumerate(["[UNK]", "[CLS]", "[SEP]", "hello", "##lo", ",", "1", "##2", "world", "世"])}
    yield "wordpiece", of({"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100,
                           "vocab": pieces}, pre_tokenizer={"type": "BertPreTokenizer"}, decoder={"type": "WordPiece", "prefix": "##", "cleanup": True},
                          normalizer={"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "strip_accents": None,
                                      "lowercase": True})
    metaspace = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}
    yield "unigram", of({"type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0.0], ["▁", -1.5], ["▁Hello", -2.0], ["l", -3], ["o", -3.25]],
                         "byte_fallback": False}, pre_tokenizer=metaspace, decoder=metaspace,
                        normalizer={"type": "Sequence", "normalizers": [{"type": "NFKC"}, {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}]})
    yield "ids", of({**bpe, "vocab": {"a": 1 << 40, "b": -1, "c": 1.5}})
    yield "deep", b'{"model": ' + b"[" * 300


# --- sentencepiece (protocol buffers, by hand) ---

def varint(value):
    out = b""
    while value > 0x7F:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def field(number, value):
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    if isinstance(value, float):
        return varint(number << 3 | 5) + struct.pack("<f", value)
    raw = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(raw)) + raw


def charsmap(units, texts):
    """A normalization table: a double array, then texts."""
    return struct.pack(f"<{len(units) + 1}I", 4 * len(units), *units) + b"".join(text.encode() + b"\0" for text in texts)


def small_charsmap():
    """A becomes b."""
    units = [0] * 512
    units[0] = 256 << 10  # what follows begins at 256
    units[256 ^ ord("A")] = ord("A") | 1 << 8 | (256 ^ ord("A") ^ 300) << 10  # has a value, at 300
    units[300] = 1 << 31 | 0
    return charsmap(units, ["b", "é"])


def sentencepiece_model(pieces, model_type, table=b"", **trainer):
    """pieces: (text, score, type); types: 1 normal, 2 unknown, 3 control, 6 byte. `table`: charsmap()."""
    out = b"".join(field(1, field(1, text) + field(2, score) + field(3, kind)) for text, score, kind in pieces)
    settings = {3: model_type, 4: len(pieces), 40: 0, 41: 1, 42: 2, 43: (1 << 64) - 1, **{int(k[1:]): v for k, v in trainer.items()}}
    out += field(2, b"".join(field(number, value) for number, value in settings.items()))
    return out + field(3, field(1, "identity") + field(2, table) + field(3, 1) + field(4, 0) + field(5, 1))


def sentencepiece_seeds():
    base = [("<unk>", 0.0, 2), ("<s>", 0.0, 3), ("</s>", 0.0, 3)]
    words = [("▁", -1.0, 1), ("a", -2.0, 1), ("b", -2.5, 1), ("ab", -0.5, 1), ("▁ab", -0.25, 1), ("c", -3.0, 1), ("世", -4.0, 1)]
    as_bytes = [(f"<0x{i:02X}>", 0.0, 6) for i in range(256)]
    yield "unigram", sentencepiece_model(base + words, 1)
    yield "bpe", sentencepiece_model(base + as_bytes + words, 2, _35=1)
    yield "table", sentencepiece_model(base + words, 1, small_charsmap())
    yield "table that leads outside", sentencepiece_model(base + words, 1, charsmap([1 << 30] * 256, ["b"]))
    yield "no unknown", sentencepiece_model(words, 1)
    yield "twice", sentencepiece_model(base + words + words, 2)
    yield "cut", sentencepiece_model(base + words, 1)[:40]
    yield "length", b"\x0a" + varint(1 << 60)
    yield "empty", b""


# --- jinja ---

JINJA = ["{{ bos_token }}{% for m in messages %}{{ '<|' + m['role'] + '|>\\n' + (m.content or '') | trim }}{% endfor %}",
         "{%- set ns = namespace(a=1) -%}{%- for x in range(n) if x is odd -%}{% set ns.a = ns.a + x %}{{ loop.last }}{% else %}none{% endfor %}{{ ns.a }}",
         "{% macro f(a, b='q', c=a) %}{{ a ~ b }}{{ varargs }}{{ kwargs|tojson(indent=2) }}{{ caller() if caller }}{% endmacro %}{% call f(1) %}x{% endcall %}",
         "{% for t in tools %}{{ t | tojson }}{{ t.function.name[1:-1:2] }}{% if not loop.last %}, {% endif %}{% endfor %}{{ x[::-1] }}",
         "{% set a, b = 1, [2, {'k': none}] %}{{ '%s-%05.2f' % (a, 1.5) }}{{ '{:>5}{!r}'.format(a, b) }}{{ x|map('string')|join('-')|upper }}",
         "{% generation %}{{ messages[1].content }}{% endgeneration %}{% raw %}{{ {% endraw %}{# c #}{% filter upper %}a{% endfilter %}",
         "{% for y in x recursive %}{{ loop(y) if y is iterable else y }}{{ loop.depth }}{% endfor %}{% with q = 1 %}{{ q }}{% endwith %}",
         "{{ 'a' * 1000000000 }}", "{{ range(10**9) }}", "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "{{ " + "(" * 300,
         "{% set ns = namespace(l=[]) %}{% for i in range(100000) %}{% set ns.l = [ns.l, ns.l] %}{% endfor %}{{ ns.l }}",
         "{% include '/etc/passwd' %}", "{{ ''.__class__.__mro__ }}", "{{ d.update({}) }}", "{{ messages[0].content.split('')|sort(attribute='a.b')|batch(0)|list }}"]


def jinja_seeds():
    for i, template in enumerate(JINJA):
        yield str(i), template.encode()


def write(name, folder):
    """Returns the contents."""
    seeds = dict(globals()[name + "_seeds"]())
    for seed, content in seeds.items():
        (Path(folder) / (seed.replace(" ", "-") + ".seed")).write_bytes(content)
    return seeds.values()


def write_dictionary(seeds, path):
    """The words of a language for libFuzzer."""
    words = {word for seed in seeds for word in re.findall(rb'"[\w ]{2,24}": ?|"[\w ]{2,24}"|\w{2,24}|[{(%]{2}|[%)}]{2}', seed)}
    escaped = ("".join(chr(b) if 32 < b < 127 and b not in b'"\\\\' else f"\\x{b:02x}" for b in word) for word in sorted(words))
    path.write_text("".join(f'"{word}"\n' for word in escaped))


if __name__ == "__main__":
    made = write(sys.argv[1], sys.argv[2])
    if sys.argv[1] in ("tokenizer_json", "jinja"):
        write_dictionary(made, Path(sys.argv[2] + ".dict"))
