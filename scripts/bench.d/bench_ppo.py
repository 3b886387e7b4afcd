"""A batch of PPO: llmtk and TRL's PPOTrainer in turns, on one machine, at one shape, from the same weights and prompts.

  scripts/bench ppo                              a Llama shape of 33 M parameters, float32, batches of 8 x (64 + 64) tokens
  scripts/bench ppo --check                      exit 7 when llmtk is less faster or smaller than BOUNDS below say
  scripts/bench ppo --dtype bfloat16 --steps 1   an hour or more for TRL on a processor without bfloat16 instructions
  scripts/bench ppo --shape tiny --peers trl --rounds 5

A batch is what both do with it: a response of 64 tokens to each prompt of 64 (no stop token), log-probabilities of policy and of a
separate reference, values, and 4 epochs of one mini-batch. `llmtk` has a value model of its own, as TRL always has;
`llmtk, trunk` has llmtk's default, a value head on the policy. `trl+tuned` has glibc set up for huge pages and large thresholds, the
best that a user could get. Rewards cost neither much: llmtk's is a rule, the share of digits; TRL's is a reward model of one
layer. In bfloat16 TRL runs as its `bf16` has it (autocast on float32 weights), llmtk as its own (bfloat16 models, float32 copies).
TRL's gradient checkpointing is off.

A first run is not counted, and every second round goes backwards. Seconds are of a batch after warm-up, tokens those of
responses, memory the largest resident size of the whole process. `share` is the operations that llmtk's batch needs (the head over
responses alone) over the machine's peak in products. The figures are medians over the rounds; ratios are taken round by round.
"""

import argparse
import json
import pathlib
import random
import shutil
import statistics
import sys
import tempfile

import turns
from bench_generate import make_model
from bench_start import bytes_to_characters

HERE = pathlib.Path(__file__).resolve().parent

COMMON = dict(max_position_embeddings=512, tie_word_embeddings=True)
SHAPES = {
    "llama-33m": dict(hidden_size=512, intermediate_size=1376, num_hidden_layers=8, num_attention_heads=8,
                      num_key_value_heads=8, **COMMON),
    "tiny": dict(hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
                 **COMMON),
}
VOCABULARY = 16384
VALUE_MODELS = {"llmtk": "own", "llmtk, trunk": "trunk"}
# How many times faster than TRL, and the largest part of its memory.
BOUNDS = {"float32": {"llmtk": (1.4, 0.5), "llmtk, trunk": (3.5, 0.5)}, "bfloat16": {"llmtk": (2.2, 0.5)}}

CONFIG = """
model: {name_or_path: @MODEL@}
data: {train: [{path: @PROMPTS@}]}
rewards: [{type: characters, characters: "0123456789"}]
ppo:
  total_episodes: @EPISODES@
  response_length: @RESPONSE@
  stop_token: none
  num_ppo_epochs: @EPOCHS@
  value_model: @VALUE@
  num_samples: 0
optimizer: {learning_rate: 3.0e-6, weight_decay: 0}
trainer:
  output_dir: @OUTPUT@
  overwrite_output_dir: true
  device: cpu
  dtype: @DTYPE@
  num_threads: @THREADS@
  per_device_train_batch_size: @BATCH@
  save_steps: 0
"""


def write_prompts(path, count, length):
    """Random pairs of letters and of digits in turns: each is a token of make_tokenizer's."""
    characters = list(bytes_to_characters().values())
    generator = random.Random(1)
    with open(path, "w") as file:
        for _ in range(count):
            pairs = ["".join(generator.choices("0123456789" if i % 2 else "ABCDEFGHIJKLMNOPQRSTUVWXYZ", k=2))
                     for i in range(length)]
            ids = [len(characters) * (1 + characters.index(a)) + characters.index(b) for a, b in pairs]
            file.write(json.dumps({"prompt": "".join(pairs), "input_ids": ids}) + "\n")


def flops_per_token(config, args, value_model):
    """Of a response's token: generation, the reference, and passes, of which the first is what the rollout reads. Two per weight in
    a product, and causal attention's two products; twice as many backward."""
    width, heads, layers = config["hidden_size"], config["num_attention_heads"], config["num_hidden_layers"]
    attention = 2 * width * width * (1 + config["num_key_value_heads"] / heads)
    trunk = 2 * layers * (attention + 3 * width * config["intermediate_size"] + width * (args.prompt + args.response))
    texts, head = trunk * (args.prompt + args.response) / args.response, 2 * config["vocab_size"] * width
    values = texts if value_model == "own" else 0
    return 2 * (texts + head) + args.epochs * 3 * (texts + head + values)


def run_llmtk(args, folder, config, value_model):
    shutil.rmtree(folder / "run", ignore_errors=True)
    text = CONFIG
    for key, value in dict(MODEL=folder / "model", PROMPTS=folder / "prompts.jsonl", OUTPUT=folder / "run", DTYPE=args.dtype,
                           BATCH=args.batch, EPISODES=args.batch * (args.warmup + args.steps), RESPONSE=args.response,
                           EPOCHS=args.epochs, VALUE=value_model, THREADS=args.threads).items():
        text = text.replace(f"@{key}@", str(value))
    (folder / "bench.yaml").write_text(text)
    result = turns.run_llmtk([args.llmtk, "rlhf-ppo", folder / "bench.yaml"], folder / "run", args.warmup * args.epochs)
    return {**result, "flops_per_token": flops_per_token(config, args, value_model)}


def summarize(results, args):
    """Medians over the rounds, and beside each peer how many times faster llmtk is and what part of its memory it takes."""
    median = lambda name, key: statistics.median(result[key] for result in results[name])
    compare = lambda ours, theirs, key: statistics.median(a[key] / b[key] for a, b in zip(results[ours], results[theirs]))
    rows = []
    for name in results:
        row = dict(name=name, seconds=args.batch * args.response / median(name, "tokens_per_second"),
                   **{key: median(name, key) for key in ("tokens_per_second", "peak_gb", "share")})
        if name in VALUE_MODELS:
            row["beside"] = {peer: dict(faster_by=compare(name, peer, "tokens_per_second"), memory=compare(name, peer, "peak_gb"))
                             for peer in results if peer not in VALUE_MODELS}
        rows.append(row)
    return rows


def missed(rows, dtype):
    """Bounds that hold beside TRL as it is, told as text."""
    found = []
    for row in rows:
        beside, bounds = row.get("beside", {}).get("trl"), BOUNDS[dtype].get(row["name"])
        if not beside or not bounds:
            continue
        if beside["faster_by"] < bounds[0]:
            found.append(f"{row['name']}: {beside['faster_by']:.2f} times as fast as TRL, not {bounds[0]}")
        if beside["memory"] > bounds[1]:
            found.append(f"{row['name']}: {beside['memory']:.2f} of TRL's memory, not {bounds[1]}")
    return found


def show(rows, results, args):
    peak = statistics.median(result["gemm_peak"] for result in results["llmtk"])
    print(f"PPO, {args.shape}, {args.dtype}, batch {args.batch} x ({args.prompt} + {args.response}), {args.epochs} epochs, "
          f"{args.threads} threads; peak in products {peak:.0f} GFLOP/s; medians of {args.rounds} rounds")
    peers = [name for name in results if name not in VALUE_MODELS]
    print(f"{'':14} {'s/batch':>8} {'peak GB':>8} {'share':>6}" + "".join(f"  {'beside ' + peer:>26}" for peer in peers))
    for row in rows:
        beside = "".join(f"  {found['faster_by']:8.2f}x, {found['memory']:4.2f} of memory" for found in row.get("beside", {}).values())
        print(f"{row['name']:14} {row['seconds']:8.2f} {row['peak_gb']:8.2f} {row['share']:6.2f}{beside}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="llama-33m")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--prompt", type=int, default=64)
    parser.add_argument("--response", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--check", action="store_true")
    turns.add_options(parser, peers="trl,trl+tuned", steps=3, warmup=1, batch=8)
    args = parser.parse_args()
    if args.check and "trl" not in args.peers.split(","):
        parser.error("--check compares with the peer trl")
    with tempfile.TemporaryDirectory(prefix="llmtk-bench-ppo-") as temporary:
        folder = pathlib.Path(temporary)
        turns.apart(make_model, folder / "model", "llama", SHAPES[args.shape], VOCABULARY)
        write_prompts(folder / "prompts.jsonl", args.batch * (args.warmup + args.steps), args.prompt)
        config = json.loads((folder / "model/config.json").read_text())
        job = dict(model=str(folder / "model"), prompts=str(folder / "prompts.jsonl"), output=str(folder / "trl"),
                   dtype=args.dtype, batch=args.batch, response=args.response, epochs=args.epochs, steps=args.steps,
                   warmup=args.warmup, threads=args.threads)
        runs = {name: lambda value=value: run_llmtk(args, folder, config, value) for name, value in VALUE_MODELS.items()}
        for name in filter(None, args.peers.split(",")):
            runs[name] = lambda name=name: turns.run_peer(HERE / "peer_ppo.py", job, name.endswith("+tuned"))
        results = turns.take_turns(runs, args.rounds, args.dtype, args.threads, flops_per_token(config, args, "own"))
    rows = summarize(results, args)
    if args.json:
        print(json.dumps(dict(shape=args.shape, dtype=args.dtype, batch=args.batch, prompt=args.prompt, response=args.response,
                              epochs=args.epochs, rounds=args.rounds, results=rows)))
    else:
        show(rows, results, args)
    if args.check and (misses := missed(rows, args.dtype)):
        print("\n".join(misses), file=sys.stderr)
        sys.exit(7)


if __name__ == "__main__":
    main()
