"""What the tests of `llmtk rlhf-ppo` and `llmtk grpo` share: a small random policy, prompts, configs, what a run wrote down."""

import hashlib
import json
import pathlib
import shutil
import tempfile

from support import json_lines, make_model, run

FOLDER = pathlib.Path(tempfile.mkdtemp(prefix="llmtk-e2e-policy-"))
POLICY = FOLDER / "policy"
make_model(POLICY, "llama", scale=1.0)
VOWELS = [{"type": "characters", "characters": "aeiou"}]


def write(name, rows):
    path = FOLDER / name
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return path


PROMPTS = write("prompts.jsonl", [{"prompt": text, "answer": str(i)} for i, text in enumerate(
    ("The quick", "To be, or", "fox", "the lazy dog", "床前明月", "question"))])


def write_config(name, method, sections):
    """method: the section of the command itself."""
    path = FOLDER / f"{name}.yaml"
    written = {"model": {"name_or_path": str(POLICY)}, "data": {"train": [{"path": str(PROMPTS)}]}, "rewards": VOWELS,
               "optimizer": {"learning_rate": 3e-3},
               "trainer": {"output_dir": str(FOLDER / name), "num_threads": 1, "per_device_train_batch_size": 8,
                           "gradient_accumulation_steps": 2, "save_steps": 0, "device": "cpu"}, **method}
    for section, values in sections.items():
        written[section] = {**written.get(section, {}), **values} if isinstance(values, dict) else values
    path.write_text(json.dumps(written))
    return path


def metrics(name):
    return json_lines((FOLDER / name / "metrics.jsonl").read_text())[1:]


def mean(rows, key):
    return sum(row[key] for row in rows) / len(rows)


def goes_on(command, path, name, back_to, files):
    """Runs a config whole, and again from its checkpoint `back_to`: bit for bit the same files and rows."""
    run(command, path)
    again = FOLDER / f"again-{name}"
    shutil.copytree(FOLDER / name, again)
    for checkpoint in again.glob("checkpoint-*"):
        if int(checkpoint.name.split("-")[1]) > back_to:
            shutil.rmtree(checkpoint)
    run(command, path, f"trainer.output_dir={again}", "trainer.resume_from_checkpoint=auto")
    for file in files:
        a, b = ((folder / file).read_bytes() for folder in (FOLDER / name, again))
        assert hashlib.sha256(a).digest() == hashlib.sha256(b).digest(), (name, file)
    keep = lambda row: {k: v for k, v in row.items() if k not in ("seconds", "time", "tokens_per_second", "share_of_peak")}
    assert [keep(row) for row in metrics(name)] == [keep(row) for row in metrics(again.name)], name
    return again
