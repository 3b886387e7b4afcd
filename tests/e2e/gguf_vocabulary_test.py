"""llmtk convert: what of a tokenizer GGUF can hold is kept, as the Python package gguf writes and reads it; what it cannot is said."""

import json
import pathlib
import shutil
import subprocess
import tempfile

import gguf
import torch
from tokenizers import AddedToken
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from support import BIN, main, make_tokenizer, run

FOLDER = pathlib.Path(tempfile.mkdtemp(prefix="llmtk-e2e-gguf-vocabulary-"))
TEMPLATES = {"default": "{% for m in messages %}D:{{ m.content }}\n{% endfor %}",
             "tool_use": "{% for m in messages %}T{{ tools | length }}:{{ m.content }}\n{% endfor %}",
             "rag_2": "{% for m in messages %}R:{{ m.content }}\n{% endfor %}"}
CHAT = json.dumps([{"role": "user", "content": "Hi 世界"}])


def make(name, templates, ends=(0,), tokens=()):
    folder = FOLDER / name
    tokenizer = make_tokenizer(folder)
    tokenizer.add_tokens([AddedToken(f"<end {i}>", special=True, normalized=False) for i in range(5)])
    tokenizer.add_tokens(list(tokens))
    tokenizer.chat_template = templates
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(
        "llama", vocab_size=len(tokenizer), hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        bos_token_id=0, eos_token_id=0, max_position_embeddings=64))
    model.generation_config.eos_token_id = list(ends)
    model.save_pretrained(folder)
    return folder, tokenizer


def convert(*arguments):
    """What it says beside the receipt."""
    done = subprocess.run([BIN / "llmtk", "convert", *map(str, arguments)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done
    return done.stderr.splitlines()


def write(name, more):
    """A vocabulary alone, as the package writes it. `more(writer)` adds to it."""
    writer = gguf.GGUFWriter(FOLDER / name, "llama")
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(["<s>", "a", "b", "ab"])
    writer.add_token_merges(["a b"])
    more(writer)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return FOLDER / name


def value(reader, key):
    return reader.get_field(key).contents()


def test_templates_with_names():
    folder, tokenizer = make("named", TEMPLATES)
    file, back = FOLDER / "named.gguf", FOLDER / "named-back"
    assert (folder / "additional_chat_templates" / "tool_use.jinja").exists()  # as transformers 5 saves them
    assert convert(folder, file) == []
    reader = gguf.GGUFReader(file)
    assert value(reader, "tokenizer.chat_template") == TEMPLATES["default"]
    assert value(reader, "tokenizer.chat_template.tool_use") == TEMPLATES["tool_use"]
    assert sorted(value(reader, "tokenizer.chat_templates")) == ["rag_2", "tool_use"]
    render = lambda *more: run("tokenize", "render", "-t", file, *more, stdin=CHAT)
    assert render() == "D:Hi 世界\n" and render("--template-name", "rag_2") == "R:Hi 世界\n"
    tools = FOLDER / "tools.json"
    tools.write_text('[{"name": "f"}, {"name": "g"}]')
    assert render("--tools", tools) == "T2:Hi 世界\n"
    convert(file, back)
    assert AutoTokenizer.from_pretrained(back).chat_template == TEMPLATES
    # As the package writes them, from the older form of a config.
    older = write("older.gguf", lambda writer: writer.add_chat_template(
        [{"name": name, "template": text} for name, text in TEMPLATES.items()]))
    assert run("tokenize", "render", "-t", older, "--template-name", "tool_use", stdin=json.dumps(
        {"messages": json.loads(CHAT), "tools": [{}]})) == "T1:Hi 世界\n"
    # What the tokenizer alone writes has them too.
    again = FOLDER / "one-more.gguf"
    convert(back, again)
    assert sorted(value(gguf.GGUFReader(again), "tokenizer.chat_templates")) == ["rag_2", "tool_use"]


def test_a_name_that_leads_elsewhere_is_refused():
    for name in ("../x", "a/b", "", "x" * 100, "a\nb"):
        file = write("name.gguf", lambda writer: writer.add_string(f"tokenizer.chat_template.{name}", "x"))
        _, error = run("tokenize", "encode", "-t", file, "a", exit=5)
        assert str(file) in error and "chat template" in error, error
    odd, _ = make("odd-name", {"default": "x", "très spécial": "y"})
    said = convert(odd, FOLDER / "odd.gguf")
    assert len(said) == 1 and "'très spécial'" in said[0] and "left out" in said[0], said


def test_what_gguf_cannot_hold_is_said():
    flags = [AddedToken("<mask>", lstrip=True, special=True), AddedToken("<r>", rstrip=True), AddedToken("fox", single_word=True),
             AddedToken("<plain>", normalized=False)]
    folder, tokenizer = make("flags", None, tokens=flags)
    said = convert(folder, FOLDER / "flags.gguf")
    assert len(said) == 1 and "'<mask>' (lstrip)" in said[0] and "'<r>' (rstrip)" in said[0] and "'fox' (single_word)" in said[0], said
    assert "<plain>" not in said[0], said
    ids = tokenizer.convert_tokens_to_ids([f"<end {i}>" for i in range(5)])
    folder, _ = make("ends", None, ends=ids)
    said = convert(folder, FOLDER / "ends.gguf")
    assert len(said) == 1 and "'<end 3>'" in said[0] and "'<end 4>'" in said[0] and "'<end 2>'" not in said[0], said
    reader = gguf.GGUFReader(FOLDER / "ends.gguf")
    assert [value(reader, f"tokenizer.ggml.{name}_token_id") for name in ("eos", "eot", "eom")] == ids[:3]
    assert convert(FOLDER / "ends.gguf", FOLDER / "ends-back") == []
    assert json.loads((FOLDER / "ends-back" / "config.json").read_text())["eos_token_id"] == ids[:3]
    folder, _ = make("three", None, ends=ids[:3])
    assert convert(folder, FOLDER / "three.gguf") == []


try:
    main(dict(globals()))
finally:
    shutil.rmtree(FOLDER)
