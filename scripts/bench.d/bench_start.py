"""How fast llmtk starts: its help, and the first token of a model.

  scripts/bench start                   a small model and one of GPT-2's shape, with random weights
  scripts/bench start --model FOLDER    a model of one's own
  scripts/bench start --check           exit 7 when `llmtk --help` takes 10 ms, or the small model's first token 1 s

The first token is timed from the start of the process to the first byte on stdout, the files in the page cache: the
loader of shared libraries, tokenizer, weights, prompt. Medians over the rounds.
"""

import argparse
import itertools
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

BOUNDS = {"help": 0.010, "small": 1.0}
SHAPES = {"small": dict(n_layer=4, n_head=4, n_embd=128, n_positions=256),
          "gpt2-124m": dict(n_layer=12, n_head=12, n_embd=768, n_positions=1024)}


def bytes_to_characters():
    """GPT-2's spelling of the 256 bytes in printable characters."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in printable]
    return {**{b: chr(b) for b in printable}, **{b: chr(256 + i) for i, b in enumerate(others)}}


def make_tokenizer(folder, vocabulary):
    """A tokenizer that merges pairs of bytes, as many as the vocabulary has room for: as much to read as GPT-2's own.
    Returns its tokens."""
    characters = list(bytes_to_characters().values())
    merges = list(itertools.islice(itertools.product(characters, characters), vocabulary - 257))
    tokens = [*characters, *(a + b for a, b in merges), "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}, ensure_ascii=False))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges))
    return tokens


def make_model(folder, vocabulary, **shape):
    """A GPT-2 with random weights, written by hand: needs neither torch nor transformers."""
    tokens = make_tokenizer(folder, vocabulary)
    config = dict(model_type="gpt2", architectures=["GPT2LMHeadModel"], vocab_size=len(tokens), dtype="float32",
                  bos_token_id=len(tokens) - 1, eos_token_id=len(tokens) - 1, **shape)
    (folder / "config.json").write_text(json.dumps(config))
    H, L = shape["n_embd"], shape["n_layer"]
    tensors = {"transformer.wte.weight": [len(tokens), H], "transformer.wpe.weight": [shape["n_positions"], H],
               "transformer.ln_f.weight": [H], "transformer.ln_f.bias": [H]}
    for layer in range(L):
        for name, size in {"ln_1.weight": [H], "ln_1.bias": [H], "ln_2.weight": [H], "ln_2.bias": [H],
                           "attn.c_attn.weight": [H, 3 * H], "attn.c_attn.bias": [3 * H], "attn.c_proj.weight": [H, H],
                           "attn.c_proj.bias": [H], "mlp.c_fc.weight": [H, 4 * H], "mlp.c_fc.bias": [4 * H],
                           "mlp.c_proj.weight": [4 * H, H], "mlp.c_proj.bias": [H]}.items():
            tensors[f"transformer.h.{layer}.{name}"] = size
    header, offset = {}, 0
    for name, size in tensors.items():
        count = 4
        for n in size:
            count *= n
        header[name] = dict(dtype="F32", shape=size, data_offsets=[offset, offset + count])
        offset += count
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    # Numbers near 0.02, as bytes: 0x3ca0_0000 to 0x3ca0_ffff and their negatives, so that nothing overflows.
    block = b"".join(os.urandom(2) + (b"\xa0\x3c" if i % 2 else b"\xa0\xbc") for i in range(1 << 16))
    with open(folder / "model.safetensors", "wb") as file:
        file.write(len(head).to_bytes(8, "little") + head)
        for begin in range(0, offset, len(block)):
            file.write(block[:offset - begin])


def first_byte(command):
    """Seconds from the start of the process to its first byte on stdout, and to its end."""
    start = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0) as process:
        process.stdout.read(1)
        first = time.perf_counter() - start
        process.stdout.read()
        error = process.stderr.read()
    if process.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))} failed with {process.returncode}:\n{error.decode()[-2000:]}")
    return first, time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=pathlib.Path)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    llmtk = pathlib.Path(os.environ["LLMTK_BIN"]) / "llmtk"

    found = {}
    with tempfile.TemporaryDirectory(prefix="llmtk-bench-start-") as temporary:
        commands = {"help": [llmtk, "--help"], "generate --help": [llmtk, "generate", "--help"]}
        models = {"model": options.model} if options.model else {}
        for name, shape in SHAPES.items() if not options.model else ():
            models[name] = pathlib.Path(temporary) / name
            models[name].mkdir()
            make_model(models[name], 50257, **shape)
        for name, folder in models.items():
            commands[name] = [llmtk, "generate", folder, "--prompt", "Once upon a time", "--max-new-tokens", "1",
                              "--device", "cpu"]
        for name, command in commands.items():
            first_byte(command)  # fills the page cache
            times = [first_byte(command)[0 if name in models else 1] for _ in range(options.rounds)]
            found[name] = dict(median=statistics.median(times), best=min(times), worst=max(times))
    if options.json:
        print(json.dumps(found))
    else:
        for name, times in found.items():
            what = "first token, " + name if name in models else "llmtk " + ("--help" if name == "help" else name)
            print(f"{what:24} {1000 * times['median']:8.1f} ms   (best {1000 * times['best']:.1f}, worst {1000 * times['worst']:.1f})")
    missed = [name for name, bound in BOUNDS.items() if name in found and found[name]["median"] >= bound]
    if options.check and missed:
        sys.exit(7)


if __name__ == "__main__":
    main()
