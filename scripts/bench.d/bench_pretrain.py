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
import shutil
import struct
import tempfile

import turns

HERE = pathlib.Path(__file__).resolve().parent

SHAPES = {
    "gpt2-124m": dict(family="gpt2", vocab=50257, width=768, inner=3072, layers=12, heads=12, kv_heads=12, positions=1024,
                      batch=4, length=256, steps=8, warmup=3),
    "smollm2-135m": dict(family="llama", vocab=49152, width=576, inner=1536, layers=30, heads=9, kv_heads=3,
                         positions=2048, batch=4, length=256, steps=8, warmup=3),
    "nanogpt-char": dict(family="gpt2", vocab=65, width=128, inner=512, layers=4, heads=4, kv_heads=4, positions=64,
                         batch=12, length=64, steps=300, warmup=60),
}
DEFAULT_PEERS = "transformers,transformers+tuned,plain,plain+tuned,plain-compiled,plain-compiled+tuned"


def flops_per_token(s):
    """Forward and backward: six per weight in a product (the head included), and causal attention's two products."""
    head_dim = s["width"] // s["heads"]
    attention = s["width"] * (s["heads"] + 2 * s["kv_heads"]) * head_dim + s["width"] ** 2
    mlp = (3 if s["family"] == "llama" else 2) * s["width"] * s["inner"]
    products = s["layers"] * (attention + mlp) + s["vocab"] * s["width"]
    return 6 * products + 6 * s["layers"] * s["length"] * s["width"]


def write_shard(folder, vocab, count):
    """A token shard as `llmtk tokenize shard` writes it is not needed: llm.c's header is read too."""
    raw = struct.pack(f"<{count}H", *turns.zipf_ids(count, vocab))
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
    return turns.run_llmtk([args.llmtk, "pretrain", config], folder / "run", shape["warmup"])


def run_peer(name, args, shape, folder):
    kind, _, tuned = name.partition("+")
    base, _, compiled = kind.partition("-")
    job = dict(kind=base, compile=bool(compiled), shape=shape, dtype=args.dtype, batch=args.batch, length=args.length,
               steps=args.steps, warmup=shape["warmup"], threads=args.threads, tokens=str(folder / "tokens.raw"))
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(folder / "inductor")
    return turns.run_peer(HERE / "peer_pretrain.py", job, tuned)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="gpt2-124m")
    parser.add_argument("--dtype", choices=["bfloat16", "float32"], default="bfloat16")
    parser.add_argument("--length", type=int)
    turns.add_options(parser, peers=DEFAULT_PEERS)
    args = parser.parse_args()
    shape = dict(SHAPES[args.shape])
    for key in ("steps", "batch", "length"):
        setattr(args, key, getattr(args, key) or shape[key])
    shape["length"] = args.length
    with tempfile.TemporaryDirectory(prefix="llmtk-bench-") as temporary:
        folder = pathlib.Path(temporary)
        rows = args.batch * (args.length + 1) * (args.steps + shape["warmup"] + 2)
        write_shard(folder, shape["vocab"], rows)
        runs = {"llmtk": lambda: run_llmtk(args, shape, folder)}
        for name in filter(None, args.peers.split(",")):
            runs[name] = lambda name=name: run_peer(name, args, shape, folder)
        results = turns.take_turns(runs, args.rounds, args.dtype, args.threads, flops_per_token(shape))
    turns.report(results, f"{args.shape}, {args.dtype}, batch {args.batch} x {args.length}, {args.threads} threads", args.json,
                 shape=args.shape, dtype=args.dtype, batch=args.batch, length=args.length, rounds=args.rounds)


if __name__ == "__main__":
    main()
