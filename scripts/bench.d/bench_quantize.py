"""What quantization costs in quality: perplexity of English text, beside llama.cpp's types of the same weights.

  scripts/bench quantize                            SmolLM2-135M, 60 windows of 512 tokens
  scripts/bench quantize --only bf16 bfloat16 4 --windows 20
  scripts/bench quantize --model FOLDER --text FILE
  scripts/bench quantize --check                    exit 7 when 8 bits cost more than 0.5 %, or GPTQ's 4 bits more than Q4_0

Every program scores the same tokens: windows that do not overlap, each from nothing, its first token not scored, no token added. llmtk
scores by `llmtk eval perplexity`, llama.cpp by its logits; their perplexities in 32 bits are equal but for rounding. `increase` is over
the same program in bfloat16. `bits` are those of the file by the model's numbers, what stays in more bits included. GPTQ is calibrated on
the quickstart's sayings, and judged on text of another kind.

The weights of SmolLM2-135M come from a file in Q4_1, so they lie on a grid of 16 values in each 32: Q4_1 of them would lose
nothing, and other schemes less than of a model as it was trained. Therefore each weight is moved first, at random and
evenly within its step of that grid (a step of Q8_0 in the token table): what rounding to the grid took away comes back as noise of the
same kind, and no scheme knows the grid any more. --as-it-is leaves that out; a model of one's own is never moved.
"""

import argparse
import json
import math
import os
import pathlib
import shutil
import sys
import tempfile

import precisions
import texts
import turns
from precisions import Row

ROWS = [Row("llmtk", "float32", 32), Row("llama.cpp", "F32", 32), Row("llmtk", "bfloat16", 16), Row("llama.cpp", "BF16", 16),
        Row("llmtk", "W8A8", 8), Row("llmtk", "W8A16", 8), Row("llama.cpp", "Q8_0", 8),
        *(Row("llmtk", name, 4) for name in ("W4A16", "W4A16 gptq", "W4A16_ASYM gptq", "W4A8", "W4A8 gptq", "NF4")),
        *(Row("llama.cpp", name, 4) for name in ("Q4_0", "Q4_1", "Q4_K_M"))]
REFERENCE = {"llmtk": "llmtk bfloat16", "llama.cpp": "llama.cpp BF16"}
BOUND_8_BITS = 0.005


def move_off_grid(source, target, seed=0):
    """Weights in bfloat16, each moved by up to half a step of the grid that it lies on."""
    import torch
    from safetensors.torch import load_file, save_file

    generator = torch.Generator().manual_seed(seed)
    shutil.copytree(source, target)
    weights = load_file(source / "model.safetensors")
    for name, weight in weights.items():
        if weight.dim() != 2:
            continue
        blocks = weight.float().view(-1, 32)
        if name == "model.embed_tokens.weight":
            low, step = 0.0, blocks.abs().amax(1, keepdim=True) / 127
        else:
            low, high = blocks.aminmax(dim=1, keepdim=True)
            step = (high - low) / 15
        codes = torch.where(step > 0, (blocks - low) / step, 0)
        if (codes - codes.round()).abs().mean() > 0.1:
            sys.exit(f"{name} lies on no grid of Q4_1 or Q8_0 (a mean distance of 0.25 steps would be no grid at all)")
        moved = blocks + step * (torch.rand(blocks.shape, generator=generator) - 0.5)
        weights[name] = moved.view_as(weight).bfloat16()
    save_file(weights, target / "model.safetensors", metadata={"format": "pt"})


def ours(options, path, row, file):
    dtype = "float32" if row.bits == 32 else "bfloat16"
    out, _ = turns.run_measured([options.llmtk, "eval", "perplexity", path, file, "--max-length", options.length, "--stride",
                                 options.length, "--no-add-special-tokens", "--dtype", dtype, "--threads", options.threads,
                                 "--device", "cpu", "--json", "--log-level", "warn"])
    found = json.loads(out.splitlines()[-1])
    return found["perplexity"], found["tokens"]


def theirs(options, path, windows):
    found = precisions.llama_cpp(dict(do="score", model=str(path), threads=options.threads, windows=windows))
    return math.exp(found["nats_per_token"]), found["tokens"]


def measure(options, folder):
    made = precisions.Precisions(folder, options.llmtk, options.model, options.threads)
    if not options.model and not options.as_it_is:
        turns.apart(move_off_grid, made.base, folder / "moved")
        made.base = folder / "moved"
    text, windows = texts.windows(made.base, texts.english(options.text), options.length, options.windows)
    (folder / "text.txt").write_text(text)
    numbers = precisions.size(made.path("bfloat16")) / 2
    found = []
    for row in precisions.choose(ROWS, options.only):
        path = made.path(row.precision)
        if path is None:
            print(f"{precisions.name(row)}: skipped, this llmtk has no command quantize", file=sys.stderr)
            continue
        perplexity, tokens = ours(options, path, row, folder / "text.txt") if row.program == "llmtk" else theirs(options, path, windows)
        if tokens != len(windows) * (options.length - 1):
            sys.exit(f"{precisions.name(row)} scored {tokens} tokens, not {len(windows) * (options.length - 1)}")
        file = precisions.size(path)
        found.append(dict(name=precisions.name(row), perplexity=perplexity, file=file, bits=8 * file / numbers))
        reference = next((other["perplexity"] for other in found if other["name"] == REFERENCE[row.program]), None)
        found[-1]["increase"] = perplexity / reference - 1 if reference and row.bits < 16 else None
        if not options.json:
            if len(found) == 1:
                print(f"{tokens} tokens in windows of {options.length}\n{'':24}{'file':>9}{'bits':>7}{'perplexity':>12}{'increase':>10}")
            increase = found[-1]["increase"]
            print(f"  {found[-1]['name']:22}{file / 1e6:6.0f} MB{found[-1]['bits']:7.2f}{perplexity:12.4f}"
                  f"{'' if increase is None else f'{100 * increase:+8.2f} %'}", flush=True)
    return found


def missed(rows):
    """Goals that are not met, told as text; those whose rows were not measured are not asked for."""
    by_name = {row["name"]: row["increase"] for row in rows}
    found = [f"{name}: {100 * by_name[name]:.2f} % more perplexity than bfloat16, not {100 * BOUND_8_BITS} at most"
             for name in ("llmtk W8A8", "llmtk W8A16") if by_name.get(name) is not None and by_name[name] > BOUND_8_BITS]
    gptq, theirs = by_name.get("llmtk W4A16 gptq"), by_name.get("llama.cpp Q4_0")
    if gptq is not None and theirs is not None and gptq >= theirs:
        found.append(f"llmtk W4A16 gptq: {100 * gptq:.2f} % more perplexity than bfloat16, Q4_0 has {100 * theirs:.2f} %")
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=pathlib.Path, help="a folder; otherwise SmolLM2-135M-Instruct")
    parser.add_argument("--as-it-is", action="store_true", help="SmolLM2's weights where the file has them")
    parser.add_argument("--only", nargs="+", metavar="WORD", help="rows whose names hold one of these words")
    parser.add_argument("--text", type=pathlib.Path, help="English, a plain file or the `text` of .jsonl")
    parser.add_argument("--length", type=int, default=512, help="tokens of a window")
    parser.add_argument("--windows", type=int, default=60)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    options.llmtk = pathlib.Path(os.environ["LLMTK_BIN"]).resolve() / "llmtk"
    with tempfile.TemporaryDirectory(prefix="llmtk-bench-quantize-") as temporary:
        found = measure(options, pathlib.Path(temporary))
    if options.json:
        print(json.dumps(found))
    if options.check and (misses := missed(found)):
        print("\n".join(misses), file=sys.stderr)
        sys.exit(7)


if __name__ == "__main__":
    main()
