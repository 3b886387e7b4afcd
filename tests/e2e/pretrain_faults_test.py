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
LONG = [f"trainer.max_steps={STEPS}", "trainer.eval_steps=50", "trainer.num_threads=2"]
SHORT_STEPS = 60  # of three micro-batches each, in bfloat16 with masters
SHORT = [f"trainer.max_steps={SHORT_STEPS}", "trainer.eval_steps=20", "trainer.num_threads=2", "trainer.dtype=bfloat16",
         "trainer.gradient_accumulation_steps=3", "trainer.per_device_train_batch_size=2"]
RESUME = "trainer.resume_from_checkpoint=auto"
# Two threads that wait for each other by spinning take ten times as long where something else runs on their processors.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")


def start(config, *overrides):
    return subprocess.Popen([str(PRETRAIN), str(config), "--log-level", "warn", *overrides],
                            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def reference(folder, name, settings, steps):
    """What the run that nobody disturbs ends with, and its seconds."""
    config = write_config(folder, folder / name, name + ".yaml")
    begin = time.monotonic()
    pretrain(config, *settings)
    return final_state(folder / name, steps), time.monotonic() - begin


def test_kill(folder, expected, seconds, kills, name="killed", settings=LONG, steps=STEPS):
    output = folder / name
    config = write_config(folder, output, name + ".yaml")
    rng = random.Random(11)
    landed = finished = 0
    while landed < kills:
        process = start(config, *settings, RESUME)
        try:
            process.wait(timeout=rng.uniform(0.2, 0.9) * seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            landed += 1
            continue
        assert process.returncode == 0, process.stderr.read()
        require_equal(expected, final_state(output, steps), f"after {landed} kills")
        finished += 1
        shutil.rmtree(output)
    pretrain(config, *settings, RESUME)
    require_equal(expected, final_state(output, steps), f"after {landed} kills")
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


def test_signal(folder, expected, number, name="signal", settings=LONG, steps=STEPS):
    output = folder / f"{name}{number}"
    config = write_config(folder, output, f"{name}{number}.yaml")
    process = start(config, *settings, "trainer.save_steps=0")
    while not (output / "metrics.jsonl").exists() and process.poll() is None:
        time.sleep(0.02)
    time.sleep(0.3)
    process.send_signal(number)
    process.wait(timeout=60)
    assert process.returncode == 75, (process.returncode, process.stderr.read())
    saved = [p.name for p in output.iterdir() if p.name.startswith("checkpoint-")]
    assert len(saved) == 1, saved
    pretrain(config, *settings, "trainer.save_steps=7", RESUME)
    require_equal(expected, final_state(output, steps), f"after signal {number} at {saved[0]}")


def test_full_disk(folder):
    """A run that a tmpfs has no room for does not begin. One whose disk fills up on the way ends with exit code 5, the
    checkpoints before are whole, and with room it goes on from them."""
    with small_disk(folder / "disk", "12m") as disk:
        output = disk / "run"
        config = write_config(folder, output, "disk.yaml")
        done, _ = pretrain(config, *LONG, check=5)
        assert "no room for the run's checkpoints" in done.stderr and not output.exists(), done.stderr
        resize(disk, "200m")
        process = start(config, *LONG)
        while not (output / "checkpoint-14").exists() and process.poll() is None:
            time.sleep(0.01)
        resize(disk, shutil.disk_usage(disk).used + (6 << 20))
        said = process.communicate(timeout=60)[1]
        assert process.returncode == 5 and "not enough disk space" in said, (process.returncode, said)
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
        pretrain(write_config(folder, folder / "warm", "warm.yaml"), "trainer.max_steps=1")  # tokenizes into the cache
        expected, seconds = reference(folder, "reference", LONG, STEPS)
        test_kill(folder, expected, seconds, args.kills)
        test_damage(folder, expected)
        test_signal(folder, expected, signal.SIGTERM)
        test_signal(folder, expected, signal.SIGINT)
        test_two_runs(folder)
        expected, seconds = reference(folder, "bfloat16", SHORT, SHORT_STEPS)
        test_kill(folder, expected, seconds, 3, "bfloat16-killed", SHORT, SHORT_STEPS)
        test_signal(folder, expected, signal.SIGTERM, "bfloat16-signal", SHORT, SHORT_STEPS)


main()
