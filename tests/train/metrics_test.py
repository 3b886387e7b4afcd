"""What `llmtk pretrain` says of a run: metrics.jsonl as docs/metrics.md has it, TensorBoard's own reader, loss.svg."""

import json
import math
import os
import re
import shutil
import sys
import tempfile
import xml.etree.ElementTree
from pathlib import Path

ROOT = Path(os.environ["LLMTK_SOURCE"])
sys.path.insert(0, str(ROOT / "tests" / "e2e"))
from runs import pretrain, write_config

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

SAMPLES = ["samples.prompts=[the quick, 人生 如]", "samples.max_new_tokens=8", "trainer.sample_steps=30"]


def rows_of(output):
    lines = (output / "metrics.jsonl").read_text().splitlines()
    assert json.loads(lines[0]) == {"schema": "llmtk-metrics", "version": 1}, lines[0]
    return [json.loads(line, parse_constant=lambda word: sys.exit(f"{word} is no JSON")) for line in lines[1:]]


def tables():
    """The tables of docs/metrics.md as lists of (first, second column), without backquotes and notes in brackets."""
    text = (ROOT / "docs" / "metrics.md").read_text()
    found = []
    for table in re.findall(r"(?m)^\| --- \| --- \|\n((?:\|.*\n)+)", text):
        cells = [[re.sub(r"`| \(.*", "", cell).strip() for cell in line.split("|")[1:3]] for line in table.splitlines()]
        found.append(cells)
    return found


def check_rows(rows):
    """Each row has exactly the keys that one of the documented kinds has, and they are what the document says."""
    kinds = [{key for key, _ in table} for table in tables() if table[0][0] == "step"]
    assert len(kinds) == 3, kinds
    seen = [0, 0, 0]
    for row in rows:
        assert set(row) in kinds, (row, "is no kind of row in docs/metrics.md")
        seen[kinds.index(set(row))] += 1
        if "eval_loss" in row:
            assert math.isclose(math.exp(row["eval_loss"]), row["eval_perplexity"], rel_tol=1e-9), row
        if "sample" in row:
            assert row["sample"].startswith(row["prompt"]), row
    # 60 steps, rows every 5, evaluations every 20, two samples every 30; the end repeats none of them
    assert seen == [12, 3, 4], seen
    for row in rows:
        if "loss" in row:
            assert row["tokens"] == row["step"] * 4 * 32 and 0 < row["target_tokens"] <= row["tokens"], row
    for key in ("step", "time"):
        values = [row[key] for row in rows]
        assert values == sorted(values), (key, values)
    best = math.inf
    for row in rows:
        if "best" in row:
            assert row["best"] == (row["eval_loss"] < best), row
            best = min(best, row["eval_loss"])


def check_tensorboard(output, rows):
    files = list(output.glob("events.out.tfevents.*"))
    assert len(files) == 1, files
    events = EventAccumulator(str(output), size_guidance={"scalars": 0, "tensors": 0})
    events.Reload()
    tags = next(table for table in tables() if table[0][0] == "train/loss")
    expected = {tag: key for tag, key in tags if not tag.startswith("sample/")}
    for tag, key in expected.items():
        want = [(row["step"], row[key], row["time"]) for row in rows if row.get(key) is not None]
        if not want:
            assert tag not in events.Tags()["scalars"], tag
            continue
        got = events.Scalars(tag)
        assert [event.step for event in got] == [step for step, _, _ in want], (tag, got, want)
        for event, (_, value, time) in zip(got, want):
            assert math.isclose(event.value, value, rel_tol=1e-6) and event.wall_time == time, (tag, event, value)
    assert set(events.Tags()["scalars"]) <= set(expected), events.Tags()["scalars"]
    want = [(row["prompt"], row["step"], row["sample"]) for row in rows if "sample" in row]
    got = [(tag.removeprefix("sample/"), event.step, event.tensor_proto.string_val[0].decode())
           for tag in events.Tags()["tensors"] for event in events.Tensors(tag)]
    assert sorted(got) == sorted(want), (got, want)
    if want:
        assert events.PluginTagToContent("text").keys() == {f"sample/{row[0]}" for row in want}


def check_picture(output):
    svg = xml.etree.ElementTree.parse(output / "loss.svg").getroot()
    name = "{http://www.w3.org/2000/svg}"
    assert svg.tag == name + "svg" and svg.find(name + "title").text == output.name
    points = {line.get("class").split()[1]: len(line.get("points").split())
              for line in reversed(svg.findall(name + "polyline"))}  # those of the legend come last
    assert points == {"train": 12, "eval": 3}, points


def test_a_run(folder):
    output = folder / "a run <&> 人生"
    pretrain(write_config(folder, output), *SAMPLES)
    rows = rows_of(output)
    check_rows(rows)
    check_tensorboard(output, rows)
    check_picture(output)
    return output, rows


def test_resume(folder, output, first):
    """As if killed after step 28, in the midst of a line."""
    for checkpoint in output.glob("checkpoint-*"):
        if int(checkpoint.name.split("-")[1]) > 28:
            shutil.rmtree(checkpoint)
    with open(output / "metrics.jsonl", "a") as file:
        file.write('{"step": 61, "lo')
    pretrain(folder / "config.yaml", *SAMPLES, "trainer.resume_from_checkpoint=auto")
    rows = rows_of(output)
    check_rows(rows)
    check_tensorboard(output, rows)
    check_picture(output)
    kept = [row for row in first if row["step"] <= 28]
    assert rows[: len(kept)] == kept
    for key in ("loss", "eval_loss", "sample", "grad_norm", "target_tokens"):
        assert [row[key] for row in rows if key in row] == [row[key] for row in first if key in row], key


def test_no_number(folder):
    output = folder / "diverges"
    done, _ = pretrain(write_config(folder, output, "diverges.yaml"), "optimizer.learning_rate=1e12", "optimizer.type=sgd",
                       "optimizer.max_grad_norm=0", "scheduler.warmup_steps=0", "trainer.save_steps=1",
                       "trainer.logging_steps=1", "trainer.eval_steps=0", check=4)
    rows = rows_of(output)
    assert any(row["loss"] is None or row["grad_norm"] is None for row in rows), rows
    check_tensorboard(output, rows)


def main():
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        output, rows = test_a_run(folder)
        test_resume(folder, output, rows)
        test_no_number(folder)


main()
