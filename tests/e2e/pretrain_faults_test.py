"""Runs that are killed, stopped, or left without disk: nothing is lost, and nothing half-written counts as whole.

  pretrain_faults_test.py [--kills N]    kill -9 at N random moments (20)
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from runs import PRETRAIN, final_state, pretrain, require_equal, write_config
from small_disk import become_able_to_mount, resize, small_disk

STEPS = 400
LONG = [f"trainer.max_steps={STEPS}", "trainer.eval_steps=50"]
RESUME = "trainer.resume_from_checkpoint=auto"


def start(config, *overrides):
    return subprocess.Popen([str(PRETRAIN), str(config), "--log-level", "warn", *overrides],
                            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def test_kill(folder, expected, seconds, kills):
    output = folder / "killed"
    config = write_config(folder, output, "killed.yaml")
    rng = random.Random(11)
    landed = finished = 0
    while landed < kills:
        process = start(config, *LONG, RESUME)
        try:
            process.wait(timeout=rng.uniform(0.2, 0.9) * seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            landed += 1
            continue
        assert process.returncode == 0, process.stderr.read()
        require_equal(expected, final_state(output, STEPS), f"after {landed} kills")
        finished += 1
        shutil.rmtree(output)
    pretrain(config, *LONG, RESUME)
    require_equal(expected, final_state(output, STEPS), f"after {landed} kills")
    left = [p.name for p in output.iterdir() if "tmp" in p.name]
    assert not left, f"left behind: {left}"
    print(f"{landed} kills, {finished + 1} runs that got to their end, all with the same bits")


def test_damage(folder, expected):
    """A checkpoint that is cut short or has a bit turned is passed over for the one before."""
    output = folder / "killed"
    config = folder / "killed.yaml"
    for step, harm in ((STEPS, "cut"), (399, "flip")):
        model = output / f"checkpoint-{step}" / "model.safetensors"
        data = bytearray(model.read_bytes())
        if harm == "cut":
            data = data[:len(data) // 2]
        else:
            data[len(data) // 2] ^= 4
        model.write_bytes(data)
    done, _ = pretrain(config, *LONG, RESUME)
    assert "checkpoint-392" in done.stderr and "model.safetensors" in done.stderr, done.stderr
    require_equal(expected, final_state(output, STEPS), "after damage")


def test_signal(folder, expected, number):
    output = folder / f"signal{number}"
    config = write_config(folder, output, f"signal{number}.yaml")
    process = start(config, *LONG, "trainer.save_steps=0")
    while not (output / "metrics.jsonl").exists() and process.poll() is None:
        time.sleep(0.02)
    time.sleep(0.3)
    process.send_signal(number)
    process.wait(timeout=60)
    assert process.returncode == 75, (process.returncode, process.stderr.read())
    saved = [p.name for p in output.iterdir() if p.name.startswith("checkpoint-")]
    assert len(saved) == 1, saved
    pretrain(config, *LONG, "trainer.save_steps=7", RESUME)
    require_equal(expected, final_state(output, STEPS), f"after signal {number} at {saved[0]}")


def test_full_disk(folder):
    """On a tmpfs of 12 MB: exit code 5, the checkpoints before are whole, and with room the run goes on from them."""
    with small_disk(folder / "disk", "12m") as disk:
        output = disk / "run"
        config = write_config(folder, output, "disk.yaml")
        done, _ = pretrain(config, *LONG, check=5)
        assert "disk" in done.stderr or "space" in done.stderr, done.stderr
        steps = sorted(int(p.name.split("-")[1]) for p in output.iterdir() if p.name.startswith("checkpoint-")
                       and p.name.split("-")[1].isdigit())
        assert steps, "no checkpoint before the disk was full"
        resize(disk, "200m")
        done, answer = pretrain(config, *LONG, RESUME)
        assert f"checkpoint-{steps[-1]}" in done.stderr, (steps, done.stderr)
        assert answer["end"] == "finished", answer


def test_two_runs(folder):
    """A second run in the same folder is refused while the first one writes there."""
    output = folder / "twice"
    config = write_config(folder, output, "twice.yaml")
    process = start(config, "trainer.max_steps=100000")
    while not (output / "metrics.jsonl").exists() and process.poll() is None:
        time.sleep(0.02)
    done, _ = pretrain(config, RESUME, "trainer.max_steps=100000", check=2)
    assert str(output) in done.stderr, done.stderr
    process.kill()
    process.wait()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--full-disk", action="store_true", help="only the disk that is full")
    args = parser.parse_args()
    if args.full_disk:
        become_able_to_mount()
        with tempfile.TemporaryDirectory() as folder:
            return test_full_disk(Path(folder))
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        reference = folder / "reference"
        config = write_config(folder, reference, "reference.yaml")
        pretrain(config, "trainer.max_steps=1", "trainer.output_dir=" + str(folder / "warm"))  # tokenizes into the cache
        begin = time.monotonic()
        pretrain(config, *LONG)
        seconds = time.monotonic() - begin
        expected = final_state(reference, STEPS)
        test_kill(folder, expected, seconds, args.kills)
        test_damage(folder, expected)
        test_signal(folder, expected, signal.SIGTERM)
        test_signal(folder, expected, signal.SIGINT)
        test_two_runs(folder)


main()
