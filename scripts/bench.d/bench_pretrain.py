"""Training speed: llmtk and its peers in turns, on one machine, at one shape, on the same rows of tokens.

  scripts/bench pretrain                              GPT-2 124M, bf16, 4 x 256
  scripts/bench pretrain --shape smollm2-135m
  scripts/bench pretrain --shape nanogpt-char --dtype float32
  scripts/bench pretrain --peers transformers,plain-compiled+tuned --rounds 5

Peers: `transformers`, `plain` (a GPT written by hand), `plain-compiled` (torch.compile); `+tuned` sets glibc up for huge pages and
large thresholds, the best that a user could get. llmtk runs as it is. A first run is not counted, and every second round goes
backwards: machines change while they are measured. Every round also measures the machine's peak in matrix products of the
dtype; `share` is the model's floating-point operations over that peak. The figures are medians over the rounds; ratios are
taken round by round.
"""

import argparse
import json
import os
import pathlib
import random
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent

SHAPES = {
    "gpt2-124m": dict(family="gpt2", vocab=50257, width=768, inner=3072, layers=12, heads=12, kv_heads=12, positions=1024,
                      batch=4, length=256, steps=8, warmup=3),
    "smollm2-135m": dict(family="llama", vocab=49152, width=576, inner=1536, layers=30, heads=9, kv_heads=3,
                         positions=2048, batch=4, length=256, steps=8, warmup=3),
    "nanogpt-char": dict(family="gpt2", vocab=65, width=128, inner=512, layers=4, heads=4, kv_heads=4, positions=64,
                         batch=12, length=64, steps=300, warmup=60),
}
DEFAULT_PEERS = "transformers,transformers+tuned,plain,plain+tuned,plain-compiled,plain-compiled+tuned"
TUNED = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=8589934592:"
                           "glibc.malloc.trim_threshold=8589934592:glibc.malloc.top_pad=268435456",
         "THP_MEM_ALLOC_ENABLE": "1"}

PEAK = """
import sys, time, torch
torch.set_num_threads(int(sys.argv[2]))
if sys.argv[3] == "medium": torch.set_float32_matmul_precision("medium")
a, b = (torch.randn(2048, 2048).to(getattr(torch, sys.argv[1])) for _ in range(2))
best = 1e9
for i in range(12):
    t = time.perf_counter(); torch.mm(a, b); best = min(best, time.perf_counter() - t)
print(2 * 2048**3 / best)
"""


def flops_per_token(s):
    """Forward and backward: six per weight in a product (the head included), and causal attention's two products."""
    head_dim = s["width"] // s["heads"]
    attention = s["width"] * (s["heads"] + 2 * s["kv_heads"]) * head_dim + s["width"] ** 2
    mlp = (3 if s["family"] == "llama" else 2) * s["width"] * s["inner"]
    products = s["layers"] * (attention + mlp) + s["vocab"] * s["width"]
    return 6 * products + 6 * s["layers"] * s["length"] * s["width"]


def run_measured(command, env):
    """The last line of stdout as JSON, and the peak memory of the process in GB."""
    done = subprocess.run(command, env={**os.environ, **env}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))} failed with {done.returncode}:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def write_shard(folder, vocab, count):
    """A token shard as `llmtk tokenize shard` writes it is not needed: llm.c's header is read too."""
    generator = random.Random(1)
    # Zipf-like ids, so that the embedding's gradient meets repeated rows as in real text.
    ids = [min(vocab - 1, int(vocab ** generator.random()) - 1) for _ in range(count)]
    raw = struct.pack(f"<{count}H", *ids)
    (folder / "tokens.raw").write_bytes(raw)
    (folder / "tokens.bin").write_bytes(struct.pack("<256i", 20240520, 1, count, *([0] * 253)) + raw)


def llmtk_config(shape, dtype, batch, length, steps, folder, threads):
    model = {"gpt2": dict(model_type="gpt2", vocab_size=shape["vocab"], n_embd=shape["width"], n_layer=shape["layers"],
                          n_head=shape["heads"], n_positions=shape["positions"], resid_pdrop=0.0, embd_pdrop=0.0,
                          attn_pdrop=0.0),
             "llama": dict(model_type="llama", vocab_size=shape["vocab"], hidden_size=shape["width"],
                           intermediate_size=shape["inner"], num_hidden_layers=shape["layers"],
                           num_attention_heads=shape["heads"], num_key_value_heads=shape["kv_heads"],
                           max_position_embeddings=shape["positions"], tie_word_embeddings=True, rms_norm_eps=1e-5)}
    (folder / "model").mkdir(exist_ok=True)
    (folder / "model" / "config.json").write_text(json.dumps(model[shape["family"]]))
    text = (HERE / "pretrain.yaml").read_text()
    for key, value in dict(MODEL=folder / "model" / "config.json", TOKENS=folder / "tokens.bin", OUTPUT=folder / "run",
                           DTYPE=dtype, BATCH=batch, LENGTH=length, STEPS=steps, THREADS=threads).items():
        text = text.replace(f"@{key}@", str(value))
    (folder / "bench.yaml").write_text(text)
    return folder / "bench.yaml"


def run_llmtk(args, shape, folder):
    shutil.rmtree(folder / "run", ignore_errors=True)
    steps = shape["warmup"] + args.steps
    config = llmtk_config(shape, args.dtype, args.batch, args.length, steps, folder, args.threads)
    command = [args.llmtk, "pretrain", str(config), "--json", "--log-level", "warn"]
    with open(folder / "time", "w") as timing:
        done = subprocess.run(["/usr/bin/env", "python3", "-c",
                               "import resource,subprocess,sys;"
                               "r=subprocess.run(sys.argv[1:],stdout=subprocess.DEVNULL).returncode;"
                               "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss);sys.exit(r)", *command],
                              stdout=timing)
    if done.returncode != 0:
        sys.exit("llmtk pretrain failed")
    peak = int((folder / "time").read_text()) / 1024 / 1024
    rows = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    rows = [row for row in rows if "tokens_per_second" in row]
    speeds = [row["tokens_per_second"] for row in rows if row["step"] > shape["warmup"]]
    losses = [row["loss"] for row in rows]
    return {"tokens_per_second": statistics.median(speeds), "peak_gb": peak, "first_loss": losses[0], "last_loss": losses[-1]}


def run_peer(name, args, shape, folder):
    kind, _, tuned = name.partition("+")
    base, _, compiled = kind.partition("-")
    job = dict(kind=base, compile=bool(compiled), shape=shape, dtype=args.dtype, batch=args.batch, length=args.length,
               steps=args.steps, warmup=shape["warmup"], threads=args.threads, tokens=str(folder / "tokens.raw"))
    env = {"TORCHINDUCTOR_CACHE_DIR": str(folder / "inductor"), **(TUNED if tuned else {})}
    return run_measured([sys.executable, str(HERE / "peer_pretrain.py"), json.dumps(job)], env)


def gemm_peak(args):
    precision = "medium" if args.dtype == "float32" else "highest"
    done = subprocess.run([sys.executable, "-c", PEAK, args.dtype, str(args.threads), precision], check=True,
                          stdout=subprocess.PIPE, text=True)
    return float(done.stdout)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="gpt2-124m")
    parser.add_argument("--dtype", choices=["bfloat16", "float32"], default="bfloat16")
    parser.add_argument("--peers", default=DEFAULT_PEERS, help="comma-separated; empty for llmtk alone")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, help="timed steps of each run")
    parser.add_argument("--batch", type=int)
    parser.add_argument("--length", type=int)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--llmtk", default=os.path.join(os.environ.get("LLMTK_BIN", ROOT / "build/release/bin"), "llmtk"),
                        help="the program to measure")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    shape = dict(SHAPES[args.shape])
    for key in ("steps", "batch", "length"):
        setattr(args, key, getattr(args, key) or shape[key])
    shape["length"] = args.length
    names = ["llmtk"] + [name for name in args.peers.split(",") if name]
    results = {name: [] for name in names}
    with tempfile.TemporaryDirectory(prefix="llmtk-bench-") as temporary:
        folder = pathlib.Path(temporary)
        rows = args.batch * (args.length + 1) * (args.steps + shape["warmup"] + 2)
        write_shard(folder, shape["vocab"], rows)
        run_llmtk(args, shape, folder)  # not counted: a virtual machine is slow to give memory that nobody has touched yet
        for turn in range(args.rounds):
            peak = gemm_peak(args)
            for name in names[::-1 if turn % 2 else 1]:
                result = run_llmtk(args, shape, folder) if name == "llmtk" else run_peer(name, args, shape, folder)
                result["share"] = result["tokens_per_second"] * flops_per_token(shape) / peak
                result["gemm_peak"] = peak / 1e9
                results[name].append(result)
                print(f"round {turn + 1}: {name:32} {result['tokens_per_second']:9.1f} tok/s  "
                      f"{result['peak_gb']:5.2f} GB  share {result['share']:.2f}  "
                      f"loss {result['first_loss']:.3f} -> {result['last_loss']:.3f}", file=sys.stderr, flush=True)
    median = lambda name, key: statistics.median(result[key] for result in results[name])
    summary = []
    for name in names:
        ratios = [ours["tokens_per_second"] / theirs["tokens_per_second"]
                  for ours, theirs in zip(results["llmtk"], results[name])]
        summary.append(dict(name=name, tokens_per_second=median(name, "tokens_per_second"), peak_gb=median(name, "peak_gb"),
                            share=median(name, "share"), llmtk_is_faster_by=statistics.median(ratios)))
    if args.json:
        print(json.dumps(dict(shape=args.shape, dtype=args.dtype, batch=args.batch, length=args.length, rounds=args.rounds,
                              results=summary)))
        return
    print(f"{args.shape}, {args.dtype}, batch {args.batch} x {args.length}, {args.threads} threads; "
          f"peak in products {median('llmtk', 'gemm_peak'):.0f} GFLOP/s; medians of {args.rounds} rounds")
    print(f"{'':32} {'tok/s':>9} {'peak GB':>8} {'share':>6} {'llmtk is faster by':>19}")
    for row in summary:
        print(f"{row['name']:32} {row['tokens_per_second']:9.1f} {row['peak_gb']:8.2f} {row['share']:6.2f} "
              f"{row['llmtk_is_faster_by']:18.2f}x")


if __name__ == "__main__":
    main()
