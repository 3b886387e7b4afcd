"""How fast llmtk writes, against transformers' generate(): greedy, batches and beams.

  scripts/bench generate                    models of GPT-2's and SmolLM2's shape with random weights
  scripts/bench generate --model FOLDER     a model of one's own
  scripts/bench generate --threads 2 --dtypes bfloat16 --rounds 5

New tokens per second after the prompt, of all sequences of a batch; of beams, those of the best one. The programs take
turns, and each number is the median over the rounds; the ratio is that of the medians.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile

from bench_start import make_tokenizer

VOCABULARY = 49152
SHAPES = {
    "gpt2-124m": ("gpt2", dict(n_layer=12, n_head=12, n_embd=768, n_positions=1024)),
    "smollm2-135m": ("llama", dict(hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9,
                                   num_key_value_heads=3, max_position_embeddings=8192, tie_word_embeddings=True)),
}
WORK = {"greedy": (1, 1), "batch of 8": (8, 1), "4 beams": (1, 4)}  # batch, beams


def make_model(folder, family, shape, vocabulary=VOCABULARY):
    import torch
    import transformers
    folder.mkdir()
    make_tokenizer(folder, vocabulary)
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(family, vocab_size=vocabulary, bos_token_id=0, eos_token_id=None, **shape)
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder)


def run(command):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))} failed with {done.returncode}:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def ours(folder, dtype, threads, batch, beams, new_tokens):
    prompts = [word for _ in range(batch) for word in ("--prompt", "Once")]
    command = [pathlib.Path(os.environ["LLMTK_BIN"]) / "llmtk", "generate", folder, *prompts, "--num-beams", beams,
               "--max-new-tokens", new_tokens, "--batch-size", max(batch, beams),
               "--dtype", dtype, "--threads", threads, "--device", "cpu", "--json"]
    return run(command)["timings"]["decode_tokens_per_second"]


def theirs(*work):
    return run([sys.executable, pathlib.Path(__file__).parent / "peer_generate.py", *work])["tokens_per_second"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=pathlib.Path)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory(prefix="llmtk-bench-generate-") as temporary:
        models = {"model": options.model} if options.model else {}
        for name, (family, shape) in SHAPES.items() if not options.model else ():
            models[name] = pathlib.Path(temporary) / name
            make_model(models[name], family, shape)
        for name, folder in models.items():
            for dtype in options.dtypes:
                for threads in options.threads:
                    for what, (batch, beams) in WORK.items():
                        work = folder, dtype, threads, batch, beams, options.new_tokens
                        pairs = [(ours(*work), theirs(*work)) for _ in range(options.rounds)]
                        llmtk, peer = (statistics.median(rates) for rates in zip(*pairs))
                        rows.append(dict(model=name, dtype=dtype, threads=threads, work=what, llmtk=llmtk, transformers=peer))
                        if not options.json:
                            print(f"{name:14} {dtype:9} {threads} threads  {what:10}  llmtk {llmtk:7.1f} tokens/s  "
                                  f"transformers {peer:7.1f}  {llmtk / peer:5.2f} times", flush=True)
    if options.json:
        print(json.dumps(rows))


if __name__ == "__main__":
    main()
