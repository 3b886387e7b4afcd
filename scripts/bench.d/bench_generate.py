"""How fast llmtk writes, beside transformers and llama.cpp: one text, eight at once, in every precision.

  scripts/bench generate                              SmolLM2-135M, 512 tokens in, 128 out, all processors
  scripts/bench generate --only llmtk llama.cpp       without transformers
  scripts/bench generate --model FOLDER --only bf16 bfloat16 --rounds 5
  scripts/bench generate --check                      exit 7 when llmtk misses what GOALS below say
  scripts/bench generate --shapes                     models of GPT-2's and SmolLM2's shape with random weights, beside
                                                      transformers: greedy, a batch of 8, 4 beams, short prompts

Prompts are pieces of English text (--text; else that of LLMTK_TEST_DATA, else of the quickstart) of exactly --prompt-tokens tokens;
every program gets the same ones, greedy and without a stop token. `prefill` is the prompt's tokens a second of one text, `one` and
`eight` new tokens a second after the first one, of all texts together. `first` is seconds from the start of the process to the first
token of a prompt of one token, files in the page cache. `peak` is the largest resident size of a process that writes one text, of a
mapped file what was touched; `beyond` is how much more than the file and the cache that is. llama.cpp is built from source with its
own defaults and runs through its Python bindings, whose memory is not counted.

The programs take turns, every second round backwards; each is warm before it is timed, but llmtk, which has to write at once. Figures
are medians over the rounds, ratios those of the medians, of the best of llmtk's rows with as many bits. A text of transformers ends
early when it takes longer than --limit.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import precisions
import texts
import turns
from bench_start import first_byte, make_tokenizer

HERE = pathlib.Path(__file__).resolve().parent
VOCABULARY = 49152
SHAPES = {
    "gpt2-124m": ("gpt2", dict(n_layer=12, n_head=12, n_embd=768, n_positions=1024)),
    "smollm2-135m": ("llama", dict(hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9,
                                   num_key_value_heads=3, max_position_embeddings=8192, tie_word_embeddings=True)),
}
WORK = {"greedy": (1, 1), "batch of 8": (8, 1), "4 beams": (1, 4)}  # batch, beams

# How many times as fast llmtk has to be as the peer of as many bits: (bits, peer, figure).
GOALS = {(16, "llama.cpp BF16", "one"): 1.1, (8, "llama.cpp Q8_0", "one"): 1.5, (4, "llama.cpp Q4_0", "one"): 1.5,
         (16, "llama.cpp BF16", "eight"): 2, (8, "llama.cpp Q8_0", "eight"): 2, (4, "llama.cpp Q4_0", "eight"): 2,
         (16, "transformers bfloat16", "prefill"): 1.3, (8, "transformers int8", "prefill"): 1.2}
GOAL_BEYOND = 150e6
SPEEDS = ("prefill", "one", "eight")


def make_model(folder, family, shape, vocabulary=VOCABULARY):
    import torch
    import transformers
    folder.mkdir()
    make_tokenizer(folder, vocabulary)
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(family, vocab_size=vocabulary, bos_token_id=0, eos_token_id=None, **shape)
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder)


def llmtk(command):
    """The timings of a run of `llmtk generate`, with its peak memory."""
    out, peak = turns.run_measured(command)
    *rows, last = [json.loads(line) for line in out.splitlines()]
    if early := [row for row in rows if row["finish_reason"] != "length"]:
        sys.exit(f"llmtk ended a text early: {early[0]['finish_reason']}")
    return dict(last["timings"], peak_gb=peak)


def ours(options, path, row, pieces, threads):
    """Of the work on these prompts: prefill, decode, peak_gb."""
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as file:
        file.writelines(json.dumps({"prompt": text}) + "\n" for text, _ in pieces)
        file.flush()
        dtype = "float32" if row.bits == 32 else "bfloat16"
        last_token = options.vocabulary - 1  # hardly what a model ends with, while `eos` may come at any time
        common = [options.llmtk, "generate", path, "--dtype", dtype, "--threads", threads, "--device", "cpu",
                  "--no-add-special-tokens"]
        found = llmtk([*common, "--prompts-file", file.name, "--batch-size", len(pieces), "--max-new-tokens", options.new_tokens,
                       "--eos-token-id", last_token, "--json"])
        first, _ = first_byte([str(word) for word in common + ["--prompt", "a", "--max-new-tokens", "1"]])
    return dict(prefill=found["prefill_tokens_per_second"], decode=found["decode_tokens_per_second"], first=first,
                peak_gb=found["peak_gb"])


def theirs(options, path, row, pieces, threads):
    job = dict(model=str(path), threads=threads, prompts=[ids for _, ids in pieces], new_tokens=options.new_tokens)
    if row.program == "llama.cpp":
        found = precisions.llama_cpp(dict(job, do="generate"))
        found["peak_gb"] -= found["python_gb"]
    else:
        job |= dict(dtype=row.precision, beams=1, limit=options.limit, started=time.time())
        found = turns.run_peer(HERE / "peer_generate.py", job)
    return dict(prefill=found["prefill"], decode=found["decode"], first=found["first_token"], peak_gb=found["peak_gb"])


def measure(options, path, row, pieces, threads):
    """One round of a row."""
    run = ours if row.program == "llmtk" else theirs
    one = run(options, path, row, pieces[:1], threads)
    found = dict(prefill=one["prefill"], one=one["decode"], first=one["first"], peak=one["peak_gb"] * 2**30)
    if row.program == "llmtk" or len(pieces[0][1]) * len(pieces) / one["prefill"] < options.limit:
        several = run(options, path, row, pieces, threads)
        found |= dict(eight=several["decode"], eight_prefill=several["prefill"], eight_peak=several["peak_gb"] * 2**30)
    return found


def cache_bytes(config, row, tokens):
    """Of one text: llama.cpp's cache is always in 16 bits; transformers' has the type that it computes in."""
    size = 4 if row.precision in ("float32", "int8") else 2
    width = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    return 2 * config["num_hidden_layers"] * config["num_key_value_heads"] * width * tokens * size


def summarize(row, path, results, config, options):
    keys = [key for key in results[0] if all(key in result for result in results)]
    found = {key: statistics.median(result[key] for result in results) for key in keys}
    file = precisions.size(path)
    beyond = found["peak"] - file - cache_bytes(config, row, options.prompt_tokens + options.new_tokens)
    return dict(name=precisions.name(row), bits=row.bits, **found, file=file, beyond=beyond,
                best={key: (min if key in ("first", "peak", "eight_peak") else max)(result[key] for result in results)
                      for key in keys})


def compare(rows):
    """Beside each peer, how many times as fast the best of llmtk's rows of as many bits is."""
    for row in rows:
        mine = [other for other in rows if other["bits"] == row["bits"] and other["name"].startswith("llmtk")]
        if mine and row not in mine:
            row["times"] = {key: max(other[key] for other in mine) / row[key] for key in SPEEDS if key in row}


def missed(rows):
    """Goals that are not met, told as text; those whose rows were not measured are not asked for."""
    by_name = {row["name"]: row for row in rows}
    found = []
    for (bits, peer, key), goal in GOALS.items():
        times = by_name.get(peer, {}).get("times", {}).get(key)
        if times is not None and times < goal:
            found.append(f"{bits} bits, {key}: {times:.2f} times as fast as {peer}, not {goal}")
    for row in rows:
        if row["name"].startswith("llmtk") and row["beyond"] > GOAL_BEYOND:
            found.append(f"{row['name']}: {row['beyond'] / 1e6:.0f} MB beyond the file and the cache, not {GOAL_BEYOND / 1e6:.0f}")
    return found


def show(rows, options, threads):
    print(f"{options.prompt_tokens} tokens in, {options.new_tokens} out, {threads} threads; medians of {options.rounds} rounds; in "
          f"parentheses how many times as fast llmtk is\n{'':24}{'prefill tok/s':>20}{'one tok/s':>18}"
          f"{options.batch:>10} at once{'first':>9}{'file':>9}{'peak':>10}{'beyond':>10}")
    bits = None
    for row in rows:
        if row["bits"] != bits:
            bits = row["bits"]
            print(f"{bits} bits")
        times = lambda key: f" ({row['times'][key]:.2f})" if key in row.get("times", {}) else ""
        speed = lambda key, width: f"{f'{row[key]:.1f}' if key in row else '-':>{width - 7}}{times(key):7}"
        megabytes = lambda key: f"{row[key] / 1e6:7.0f} MB"
        print(f"  {row['name']:22}{speed('prefill', 20)}{speed('one', 18)}{speed('eight', 18)}{row['first']:7.2f} s"
              f"{row['file'] / 1e6:6.0f} MB{megabytes('peak')}{megabytes('beyond')}")


def real_model(options, folder):
    """{threads: the figures of each row}."""
    made = precisions.Precisions(folder, options.llmtk, options.model, max(options.threads))
    config = made.config()
    options.vocabulary = config["vocab_size"]
    pieces = texts.prompts(made.base, texts.english(options.text), options.prompt_tokens, options.batch)
    rows = precisions.choose(precisions.ROWS, options.only)
    for row in [row for row in rows if made.path(row.precision) is None]:
        print(f"{precisions.name(row)}: skipped, this llmtk has no command quantize", file=sys.stderr)
        rows.remove(row)
    found = {}
    for threads in options.threads:
        results = {row: [] for row in rows}
        for turn in range(options.rounds):
            for row in rows[::-1 if turn % 2 else 1]:
                results[row].append(measure(options, made.path(row.precision), row, pieces, threads))
                print(f"round {turn + 1}: {precisions.name(row):24}" + "".join(
                    f" {key} {results[row][-1].get(key, 0):8.1f}" for key in SPEEDS), file=sys.stderr, flush=True)
        found[threads] = [summarize(row, made.path(row.precision), results[row], config, options) for row in rows]
        compare(found[threads])
        if not options.json:
            show(found[threads], options, threads)
    return found


def shaped_models(options, folder):
    """The table of models with random weights, beside transformers."""
    rows = []
    for name, (family, shape) in SHAPES.items():
        turns.apart(make_model, folder / name, family, shape)
        for dtype in options.dtypes:
            for threads in options.threads:
                for what, (batch, beams) in WORK.items():
                    command = [options.llmtk, "generate", folder / name, *["--prompt", "Once"] * batch, "--num-beams", beams,
                               "--max-new-tokens", options.new_tokens, "--batch-size", max(batch, beams), "--dtype", dtype,
                               "--threads", threads, "--device", "cpu", "--json"]
                    job = dict(model=str(folder / name), dtype=dtype, threads=threads, prompts=[[5, 6, 7, 8]] * batch, beams=beams,
                               new_tokens=options.new_tokens, limit=options.limit, started=0)
                    pairs = [(llmtk(command)["decode_tokens_per_second"], turns.run_peer(HERE / "peer_generate.py", job)["decode"])
                             for _ in range(options.rounds)]
                    mine, peer = (statistics.median(rates) for rates in zip(*pairs))
                    rows.append(dict(model=name, dtype=dtype, threads=threads, work=what, llmtk=mine, transformers=peer))
                    if not options.json:
                        print(f"{name:14} {dtype:9} {threads} threads  {what:10}  llmtk {mine:7.1f} tokens/s  "
                              f"transformers {peer:7.1f}  {mine / peer:5.2f} times", flush=True)
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=pathlib.Path, help="a folder; otherwise SmolLM2-135M-Instruct")
    parser.add_argument("--only", nargs="+", metavar="WORD", help="rows whose names hold one of these words")
    parser.add_argument("--text", type=pathlib.Path, help="English, a plain file or the `text` of .jsonl")
    parser.add_argument("--threads", type=int, nargs="+", default=[os.cpu_count()])
    parser.add_argument("--prompt-tokens", type=int, default=512)
    parser.add_argument("--new-tokens", type=int, default=128)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--limit", type=float, default=60, help="seconds")
    parser.add_argument("--shapes", action="store_true")
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"], help="of --shapes")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.shapes and (options.model or options.only or options.check):
        parser.error("--shapes has models and rows of its own: not beside --model, --only or --check")
    options.llmtk = pathlib.Path(os.environ["LLMTK_BIN"]).resolve() / "llmtk"
    with tempfile.TemporaryDirectory(prefix="llmtk-bench-generate-") as temporary:
        found = (shaped_models if options.shapes else real_model)(options, pathlib.Path(temporary))
    if options.json:
        print(json.dumps(found))
    if options.check and (misses := [miss for rows in found.values() for miss in missed(rows)]):
        print("\n".join(misses), file=sys.stderr)
        sys.exit(7)


if __name__ == "__main__":
    main()
