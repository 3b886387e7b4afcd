"""Every YAML under configs/ is tried with --dry-run: as it is where its files are there, else with stand-ins for them."""

import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from support import BIN, main

ROOT = Path(os.environ["LLMTK_SOURCE"])
CONFIGS = sorted((ROOT / "configs").rglob("*.yaml"))


# Tokenizers that encoders and encoder-decoders can be trained with.
STAND_INS = {"bert": "type: wordpiece, vocab_size: 400", "t5": "vocab_size: 400, extra_ids: 100"}


def dry_run(path, *overrides):
    """(exit code, the JSON answer), started as the config's first line says: in the repository's root."""
    first = path.read_text().split("\n", 1)[0]
    assert str(path.relative_to(ROOT)) in first.split(), f"{path}: its first line is not the command that runs it: {first}"
    command = first.partition("llmtk ")[2].split()
    done = subprocess.run([BIN / "llmtk", *command, *overrides, "--dry-run", "--json"], cwd=ROOT, capture_output=True,
                          text=True, timeout=300)
    assert done.returncode in (0, 5), f"{path}: exit {done.returncode}\n{done.stderr}"
    assert "has no effect" not in done.stderr, f"{path}: a key of the model's config is ignored\n{done.stderr}"
    return done.returncode, json.loads(done.stdout)


def missing(answer):
    """Whether an error says that something is not there; other errors of exit 5 are the config's."""
    return answer["error"]["what"].startswith(("no such file", "no such folder", "no such tokenizer"))


def stand_in_text(folder):
    """Some 2 MB of words: enough rows for any batch."""
    path = folder / "text.jsonl"
    words = random.Random(0)
    with open(path, "w") as file:
        for _ in range(4000):
            line = " ".join("".join(words.choices("etaoinshrdlu人生如夢", k=words.randint(1, 8))) for _ in range(80))
            file.write(json.dumps({"text": line}, ensure_ascii=False) + "\n")
    return path


ROWS = {"causal_lm": {"prompt": "ab cd", "completion": " ef"}, "seq2seq": {"input": "ab cd", "output": "ef"},
        "sequence_classification": {"text": "ab cd ef", "label": "up"},
        "token_classification": {"tokens": ["ab", "cd"], "tags": ["B-X", "O"]},
        "preference": {"prompt": "ab", "chosen": " cd", "rejected": " ef"}}


def finetuning(path, folder):
    """Stand-ins for the rows and the tokenizer of a config that fine-tunes."""
    teaches = any(f"\n{section}:" in path.read_text() for section in ("dpo", "reward"))
    objective = "preference" if teaches else next((name for name in ROWS if f"objective: {name}" in path.read_text()), "causal_lm")
    rows = folder / f"{objective}.jsonl"
    if not rows.exists():
        other = {"label": "down"} if objective == "sequence_classification" else {}
        rows.write_text("".join(json.dumps({**ROWS[objective], **(other if i % 2 else {})}) + "\n" for i in range(400)))
    tokenizer = folder / "wordpiece"
    if not tokenizer.exists():
        subprocess.run([BIN / "llmtk-tokenize", "train", folder / "text.jsonl", "--type", "wordpiece", "--vocab-size", "400",
                        "-o", tokenizer], check=True, capture_output=True)
    data = [f"data.train=[{{path: {rows}}}]", "data.validation=[]", "data.validation_fraction=0.05"]
    return data, [f"tokenizer.name_or_path={tokenizer}"]


def check_quantize(path, folder):
    """Its model is one to download; its texts come with set-up."""
    code, answer = dry_run(path, f"output_dir={folder / 'quantized'}")
    assert code == 0 and answer["matrices"] or missing(answer), f"{path}: {answer}"


def check(path, folder):
    if path.parent.name == "quantize":
        return check_quantize(path, folder)
    always = [f"trainer.output_dir={folder / 'output'}"]
    pretrains = path.parent.name == "pretrain"
    if pretrains:
        always.append(f"data.cache_dir={folder / 'cache'}")
    data = [f"data.train=[{{path: {folder / 'text.jsonl'}}}]", "data.validation=[]", "data.validation_fraction=0.05"]
    kind = next((kind for kind in STAND_INS if path.name.startswith(kind)), "")
    tokenizer = ['tokenizer.name_or_path=""', f"tokenizer.train={{{STAND_INS.get(kind, 'vocab_size: 400')}}}"]
    if path.parent.name in ("rlhf-ppo", "grpo"):  # its prompts are the repository's; what may be missing is the policy
        data, tokenizer = [], []
    elif not pretrains:
        data, tokenizer = finetuning(path, folder)
    for stands_in, overrides in (("nothing", []), ("the data", data), ("data and tokenizer", data + tokenizer)):
        code, answer = dry_run(path, *always, *overrides)
        if code == 0:
            assert answer["steps"] > 0 and answer["parameters"] > 0, (path, answer)
            print(f"{path.relative_to(ROOT)}: {answer['parameters']} parameters, {answer['steps']} steps; "
                  f"a stand-in for {stands_in}")
            return
        assert missing(answer), f"{path}: {answer['error']}"
    print(f"{path.relative_to(ROOT)}: its model is not here: {answer['error']['where']}")


def test_every_config():
    assert CONFIGS, f"no YAML under {ROOT / 'configs'}"
    with tempfile.TemporaryDirectory() as folder:
        stand_in_text(Path(folder))
        for path in CONFIGS:
            check(path, Path(folder))


main(globals())
