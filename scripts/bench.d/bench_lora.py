"""Training speed of LoRA: llmtk and peft + transformers in turns, on one machine, at one shape, on the same rows of tokens.

  scripts/bench lora                        SmolLM2-135M's shape, rank 8 on q_proj and v_proj, dropout 0.1, bf16, 4 x 512
  scripts/bench lora --dtype float32
  scripts/bench lora --model FOLDER         a model of one's own
  scripts/bench lora --target-modules all-linear --peers peft+tuned --rounds 5

Peers: `peft`, and `peft+tuned` with glibc set up for huge pages and large thresholds, the best that a user could get. llmtk runs
as it is. Both keep the base in the dtype and train branches in float32, as peft does by itself. A first run is not counted,
and every second round goes backwards. `share` is the operations that a step needs (no gradients of frozen weights)
over the machine's peak in products. The figures are medians over the rounds; ratios are taken round by round.
"""

import argparse
import json
import pathlib
import shutil
import tempfile

import turns
from bench_generate import SHAPES, make_model

HERE = pathlib.Path(__file__).resolve().parent

CONFIG = """
model: {name_or_path: @MODEL@}
data: {train: [{path: @ROWS@}], max_length: @LENGTH@, shuffle: false}
lora: {r: 8, lora_alpha: 32, lora_dropout: 0.1, target_modules: @TARGETS@}
optimizer: {learning_rate: 1.0e-4, weight_decay: 0, max_grad_norm: 1.0}
scheduler: {lr_scheduler_type: constant}
trainer:
  output_dir: @OUTPUT@
  overwrite_output_dir: true
  device: cpu
  dtype: @DTYPE@
  num_threads: @THREADS@
  per_device_train_batch_size: @BATCH@
  max_steps: @STEPS@
  logging_steps: 1
  save_steps: 0
"""


def flops_per_token(config, length):
    """Forward, and backward for activations alone: four per weight in a product; causal attention's two products six times."""
    width, heads = config["hidden_size"], config["num_attention_heads"]
    head_dim = config.get("head_dim") or width // heads
    attention = 2 * width * (heads + config["num_key_value_heads"]) * head_dim
    products = config["num_hidden_layers"] * (attention + 3 * width * config["intermediate_size"])
    products += config["vocab_size"] * width
    return 4 * products + 6 * config["num_hidden_layers"] * length * heads * head_dim


def write_rows(path, vocabulary, batch, length, steps):
    ids = turns.zipf_ids(batch * length * steps, vocabulary)
    with open(path, "w") as file:
        for begin in range(0, len(ids), length):
            row = ids[begin:begin + length]
            file.write(json.dumps({"input_ids": row, "labels": row}) + "\n")


def run_llmtk(args, folder, steps):
    shutil.rmtree(folder / "run", ignore_errors=True)
    text = CONFIG
    for key, value in dict(MODEL=args.model, ROWS=folder / "rows.jsonl", OUTPUT=folder / "run", DTYPE=args.dtype,
                           BATCH=args.batch, LENGTH=args.length, STEPS=steps, THREADS=args.threads,
                           TARGETS=json.dumps(args.target_modules)).items():
        text = text.replace(f"@{key}@", str(value))
    (folder / "bench.yaml").write_text(text)
    return turns.run_llmtk([args.llmtk, "lora", folder / "bench.yaml"], folder / "run", args.warmup)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=pathlib.Path, help="a folder; otherwise random weights of SmolLM2-135M's shape")
    parser.add_argument("--dtype", choices=["bfloat16", "float32"], default="bfloat16")
    parser.add_argument("--target-modules", default=["q_proj", "v_proj"], type=lambda text: text if text == "all-linear" else text.split(","))
    parser.add_argument("--length", type=int, default=512)
    turns.add_options(parser, peers="peft,peft+tuned", steps=6, warmup=2, batch=4)
    args = parser.parse_args()
    steps = args.warmup + args.steps
    with tempfile.TemporaryDirectory(prefix="llmtk-bench-") as temporary:
        folder = pathlib.Path(temporary)
        if not args.model:
            args.model = folder / "smollm2-135m"
            turns.apart(make_model, args.model, *SHAPES["smollm2-135m"])
        config = json.loads((args.model / "config.json").read_text())
        write_rows(folder / "rows.jsonl", config["vocab_size"], args.batch, args.length, steps)
        job = dict(model=str(args.model), rows=str(folder / "rows.jsonl"), dtype=args.dtype, batch=args.batch, steps=args.steps,
                   warmup=args.warmup, threads=args.threads, target_modules=args.target_modules)
        runs = {"llmtk": lambda: run_llmtk(args, folder, steps)}
        for name in filter(None, args.peers.split(",")):
            runs[name] = lambda name=name: turns.run_peer(HERE / "peer_lora.py", job, name.endswith("+tuned"))
        results = turns.take_turns(runs, args.rounds, args.dtype, args.threads, flops_per_token(config, args.length))
    turns.report(results, f"LoRA, {args.dtype}, batch {args.batch} x {args.length}, {args.threads} threads", args.json,
                 dtype=args.dtype, batch=args.batch, length=args.length, rounds=args.rounds)


if __name__ == "__main__":
    main()
