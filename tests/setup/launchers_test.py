"""scripts/train-gpu and scripts/slurm/train.sbatch with a program that only pretends to train."""

import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
import time
import unittest

SOURCE = pathlib.Path(os.environ["LLMTK_SOURCE"])

# Ends with the next word of $FAKE/codes; "wait" runs until a signal comes, saves for a moment and ends with 75; "kill"
# dies as the kernel kills what takes too much memory.
LLMTK = r"""#!/bin/bash
echo "$* gpu=$CUDA_VISIBLE_DEVICES" >>"$FAKE/runs"
read -r code rest <"$FAKE/codes"
echo "$rest" >"$FAKE/codes"
case $code in
  wait)
    trap 'trap "echo twice >>$FAKE/signals" TERM INT; echo one >>"$FAKE/signals"; sleep 0.3; exit 75' TERM INT
    touch "$FAKE/ready"
    for _ in {1..200}; do sleep 0.05; done
    exit 99 ;;
  kill) kill -9 $$ ;;
esac
exit "$code"
"""


class Launcher(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="llmtk-launch-"))
        self.addCleanup(shutil.rmtree, self.folder)
        self.bin = self.folder / "bin"
        self.bin.mkdir()
        self.fake("llmtk", LLMTK)
        self.env = {"PATH": f"{self.bin}:/usr/bin:/bin", "FAKE": str(self.folder), "LLMTK": str(self.bin / "llmtk")}

    def fake(self, name, text):
        (self.bin / name).write_text(text)
        (self.bin / name).chmod(0o755)

    def start(self, *command, **env):
        return subprocess.Popen([str(word) for word in command], env={**self.env, **env}, stdin=subprocess.DEVNULL,
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=self.folder)

    def finish(self, process, code):
        said = process.communicate(timeout=30)[0]
        self.assertEqual(process.returncode, code, said)
        return said

    def lines(self, name):
        file = self.folder / name
        return file.read_text().splitlines() if file.exists() else []


class TrainGpu(Launcher):
    def setUp(self):
        super().setUp()
        self.fake("nvidia-smi", "#!/bin/sh\necho 'GPU 0: pretended'\n")

    def train(self, codes, *arguments, **env):
        (self.folder / "codes").write_text(codes + "\n")
        return self.start(SOURCE / "scripts" / "train-gpu", *arguments, **env)

    def test_goes_on_until_the_run_is_finished(self):
        self.finish(self.train("75 75 0", "--gpu", "2", "pretrain", "a b.yaml", "trainer.max_steps=5"), 0)
        self.assertEqual(self.lines("runs"), ["pretrain a b.yaml trainer.max_steps=5 trainer.resume_from_checkpoint=auto "
                                              "trainer.device=cuda gpu=2"] * 3)

    def test_what_the_user_says_stands(self):
        (self.bin / "nvidia-smi").unlink()
        self.finish(self.train("0", "pretrain", "x.yaml", "trainer.device=cpu", "trainer.resume_from_checkpoint=false"), 0)
        self.assertEqual(self.lines("runs"),
                         ["pretrain x.yaml trainer.device=cpu trainer.resume_from_checkpoint=false gpu="])

    def test_without_a_gpu_nothing_starts(self):
        (self.bin / "nvidia-smi").write_text("#!/bin/sh\nexit 9\n")
        self.assertIn("no GPU", self.finish(self.train("0", "pretrain", "x.yaml"), 2))
        self.assertEqual(self.lines("runs"), [])

    def test_errors_end_it(self):
        for code in (1, 2, 3, 4, 5, 6, 7, 130, 143):
            (self.folder / "runs").unlink(missing_ok=True)
            self.finish(self.train(f"{code} 0", "pretrain", "x.yaml"), code)
            self.assertEqual(len(self.lines("runs")), 1)

    def test_deaths_are_survived_a_few_times_in_a_row(self):
        self.finish(self.train("kill kill 75 kill kill 0", "--wait", "0", "--retries", "2", "pretrain", "x.yaml"), 0)
        self.assertEqual(len(self.lines("runs")), 6)
        said = self.finish(self.train("kill kill kill 0", "--wait", "0", "--retries", "2", "pretrain", "x.yaml"), 137)
        self.assertIn("giving up", said)
        self.assertEqual(len(self.lines("runs")), 9)

    def test_a_signal_is_passed_on_once_and_ends_it(self):
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            for name in ("signals", "ready"):
                (self.folder / name).unlink(missing_ok=True)
            process = self.train("wait 0", "pretrain", "x.yaml")
            while not (self.folder / "ready").exists():
                self.assertIsNone(process.poll())
                time.sleep(0.02)
            process.send_signal(number)
            self.finish(process, 75)
            self.assertEqual(self.lines("signals"), ["one"])
        self.assertEqual(len(self.lines("runs")), 3)

    def test_usage(self):
        self.assertIn("Usage", self.finish(self.train("0", "--help"), 0))
        for wrong in ([], ["pretrain"], ["--nonsense", "pretrain", "x"], ["--gpu", "first", "pretrain", "x"], ["--retries"]):
            self.finish(self.train("0", *wrong), 2)
        self.assertEqual(self.lines("runs"), [])


class Slurm(Launcher):
    SCRIPT = SOURCE / "scripts" / "slurm" / "train.sbatch"

    def setUp(self):
        super().setUp()
        self.fake("srun", '#!/bin/bash\necho "$*" >>"$FAKE/srun"\nwhile [[ $1 == --* ]]; do shift; done\n"$@"\n')
        self.fake("scontrol", '#!/bin/sh\necho "$*" >>"$FAKE/scontrol"\nexit "${SCONTROL_CODE:-0}"\n')
        self.fake("squeue", '#!/bin/sh\necho "${STATE:-RUNNING}"\n')
        self.env.update(SLURM_JOB_ID="7", SLURM_CPUS_PER_TASK="8", SLURM_SUBMIT_DIR=str(self.folder))

    def job(self, codes, *arguments, **env):
        (self.folder / "codes").write_text(codes + "\n")
        # Slurm runs a copy, from its own folder.
        copy = self.folder / "slurm_script"
        shutil.copy(self.SCRIPT, copy)
        return self.start(copy, *arguments, **env)

    def test_a_stopped_run_is_queued_again(self):
        self.finish(self.job("75", "pretrain", "x.yaml"), 75)
        self.assertEqual(self.lines("scontrol"), ["requeue 7"])
        self.assertEqual(self.lines("runs"),
                         ["pretrain x.yaml trainer.resume_from_checkpoint=auto trainer.device=cuda gpu="])
        self.assertIn("--cpus-per-task=8", self.lines("srun")[0])

    def test_other_ends_are_handed_on(self):
        for code in (0, 1, 3, 4, 143):
            self.finish(self.job(str(code), "pretrain", "x.yaml"), code)
        self.assertEqual(self.lines("scontrol"), [])

    def test_a_cancelled_job_does_not_come_back(self):
        self.assertIn("cancelled", self.finish(self.job("75", "pretrain", "x.yaml", STATE="COMPLETING"), 75))
        self.assertEqual(self.lines("scontrol"), [])

    def test_not_for_ever(self):
        said = self.finish(self.job("75", "pretrain", "x.yaml", SLURM_RESTART_COUNT="3", LLMTK_MAX_REQUEUE="3"), 75)
        self.assertIn("LLMTK_MAX_REQUEUE", said)
        self.assertEqual(self.lines("scontrol"), [])

    def test_a_cluster_that_does_not_queue_again(self):
        self.assertIn("submit it once more", self.finish(self.job("75", "pretrain", "x.yaml", SCONTROL_CODE="1"), 75))

    def test_finds_the_program(self):
        built = self.folder / "build" / "release" / "bin"
        built.mkdir(parents=True)
        shutil.copy(self.bin / "llmtk", built / "llmtk")
        self.finish(self.job("0", "pretrain", "x.yaml", LLMTK=""), 0)
        self.assertIn(str(built / "llmtk"), self.lines("srun")[0])
        shutil.rmtree(built)
        self.finish(self.job("0", "pretrain", "x.yaml", LLMTK=""), 0)  # on PATH
        self.assertIn(str(self.bin / "llmtk"), self.lines("srun")[1])
        (self.bin / "llmtk").unlink()
        self.assertIn("no llmtk", self.finish(self.job("0", "pretrain", "x.yaml", LLMTK=""), 2))

    def test_usage_and_what_sbatch_reads(self):
        self.assertIn("Usage", self.finish(self.job("0", "--help"), 0))
        self.finish(self.job("0", "pretrain"), 2)
        self.assertIn("sbatch", self.finish(self.job("0", "pretrain", "x.yaml", SLURM_JOB_ID=""), 2))
        # sbatch stops reading at the first line that is not a comment.
        head = []
        for line in self.SCRIPT.read_text().splitlines():
            if not line.startswith("#"):
                break
            head.append(line)
        for option in ("--gpus=1", "--signal=TERM@", "--requeue", "--time="):
            self.assertTrue(any(line.startswith(f"#SBATCH {option}") for line in head), option)


unittest.main()
