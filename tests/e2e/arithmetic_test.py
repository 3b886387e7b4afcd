"""A T5 from random weights, with a tokenizer learnt from its rows, learns to add: sums that it never saw are right."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from support import json_lines, main, run

ROOT = Path(os.environ["LLMTK_SOURCE"])
CONFIG = ROOT / "configs/finetune/arithmetic-t5.yaml"
DRAWN = 200


def make_sums(folder, *options):
    subprocess.run([sys.executable, ROOT / "scripts/data/arithmetic.py", folder, *options], check=True)
    return [json_lines((folder / f"{part}.jsonl").read_text()) for part in ("train", "test")]


def right(prompt):
    return str(sum(map(int, prompt.split("+"))))


def test_sums_are_sums():
    with tempfile.TemporaryDirectory() as name:
        train, test = make_sums(Path(name), "--train", "900", "--test", "100", "--digits", "3")
    assert len(train) == 900 and len(test) == 100
    assert all(row["output"] == right(row["input"]) for row in train + test)
    assert len({row["input"] for row in train + test}) == 1000


def test_learns_to_add():
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _, test = make_sums(folder)
        overrides = [f"data.train.0.path={folder}/train.jsonl", f"data.validation.0.path={folder}/test.jsonl",
                     f"trainer.output_dir={folder}/model", "model.config.num_layers=1", "trainer.max_steps=600",
                     "trainer.per_device_train_batch_size=128", "trainer.eval_steps=0", "optimizer.learning_rate=5e-3",
                     "scheduler.warmup_steps=50", "trainer.num_threads=1"]
        seen = json.loads(run("data", CONFIG, "--json", *overrides[:2]))
        assert seen["objective"] == "seq2seq" and seen["train"]["rows"] == 6000, seen
        assert len(seen["rows"][0]["input_ids"]) == len(json_lines((folder / "train.jsonl").read_text())[0]["input"]), seen["rows"]
        run("finetune", CONFIG, *overrides)
        metrics = json_lines((folder / "model/metrics.jsonl").read_text())
        told = [row["eval_exact_match"] for row in metrics if "eval_exact_match" in row][-1]

        prompts = [row["input"] for row in test[:DRAWN]]
        (folder / "prompts.jsonl").write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in prompts))
        *written, _ = json_lines(run("generate", "--model", folder / "model", "--prompts-file", folder / "prompts.jsonl",
                                     "--max-new-tokens", 8, "--batch-size", 50, "--json", "--threads", 1))
        share = sum(row["text"].strip() == right(prompt) for row, prompt in zip(written, prompts, strict=True)) / DRAWN
        print(f"{share:.1%} of {DRAWN} new sums are right; the run said {told:.1%} of {len(test)}")
        assert share > 0.4, written[:5]
        assert abs(share - told) < 0.1, (share, told)


main(globals())
