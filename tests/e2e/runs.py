"""What the tests of training runs share: a small config, running llmtk-pretrain, comparing what it wrote."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

BIN = Path(os.environ["LLMTK_BIN"])
PRETRAIN = BIN / "llmtk-pretrain"

CONFIG = """
model:
  config:
    model_type: llama
    hidden_size: 32
    intermediate_size: 64
    num_hidden_layers: 2
    num_attention_heads: 4
    num_key_value_heads: 2
    max_position_embeddings: 64
    rms_norm_eps: 1.0e-5
    tie_word_embeddings: true
    attention_dropout: 0.1
tokenizer:
  train:
    vocab_size: 400
data:
  train:
    - path: {text}
  validation_fraction: 0.1
  max_length: 32
  cache_dir: {cache}
optimizer:
  learning_rate: 5.0e-3
  weight_decay: 0.1
scheduler:
  lr_scheduler_type: cosine
  warmup_steps: 5
trainer:
  output_dir: {output}
  max_steps: 60
  per_device_train_batch_size: 4
  logging_steps: 5
  eval_steps: 20
  save_steps: 7
  num_threads: 1
samples:
  do_sample: false
  max_new_tokens: 40
"""

WORDS = "the quick brown fox jumps over a lazy dog while 人生 如 夢 and 学而时习之 不亦说乎 12345 \U0001f98a".split()


def write_text(path, rows=800):
    """Sentences in which each word says which may follow: something to learn."""
    with open(path, "w") as file:
        for row in range(rows):
            words = [WORDS[(row * 7 + i * (1 + row % 3)) % len(WORDS)] for i in range(12)]
            file.write(json.dumps({"text": " ".join(words) + "."}, ensure_ascii=False) + "\n")


def write_config(folder, output, name="config.yaml"):
    folder.mkdir(exist_ok=True)
    text = folder / "text.jsonl"
    if not text.exists():
        write_text(text)
    path = folder / name
    path.write_text(CONFIG.format(text=text, cache=folder / "cache", output=output))
    return path


def pretrain(config, *overrides, check=0, **popen):
    command = [str(PRETRAIN), str(config), "--json", *overrides]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **popen)
    if check is not None and done.returncode != check:
        sys.exit(f"{' '.join(command)}\nexited with {done.returncode}, expected {check}\n{done.stderr[-3000:]}")
    lines = done.stdout.strip().splitlines()
    return done, json.loads(lines[-1]) if lines else None


def digest(path):
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def final_state(output, step):
    """Everything that a run ends with and that must not depend on interruptions."""
    checkpoint = Path(output) / f"checkpoint-{step}"
    names = ["model.safetensors", "optimizer.safetensors", "random_state.safetensors"]
    state = {name: digest(checkpoint / name) for name in names}
    state["final model"] = digest(Path(output) / "model.safetensors")
    saved = json.loads((checkpoint / "trainer_state.json").read_text())
    saved["loop"].pop("seconds")
    state["loop"], state["data"] = saved["loop"], saved["data"]
    return state


def require_equal(a, b, what):
    for key in a:
        assert a[key] == b[key], f"{what}: {key} differs\n{a[key]}\n{b[key]}"
