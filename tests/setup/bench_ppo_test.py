"""scripts/bench.d/bench_ppo.py at a small size: both programs run, figures are told, and bounds that are missed are named."""

import json
import os
import pathlib
import subprocess
import sys
import unittest

BENCH = pathlib.Path(os.environ["LLMTK_SOURCE"]) / "scripts" / "bench.d"
sys.path.insert(0, str(BENCH))
os.environ["OMP_NUM_THREADS"] = "1"
import bench_ppo


class Ppo(unittest.TestCase):
    def test_small(self):
        done = subprocess.run([sys.executable, BENCH / "bench_ppo.py", *"--json --shape tiny --peers trl --rounds 1 --steps 1 --warmup 1 "
                               "--batch 2 --prompt 5 --response 4 --epochs 2 --threads 1".split()], capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stderr)
        rows = {row["name"]: row for row in json.loads(done.stdout)["results"]}
        self.assertEqual(list(rows), ["llmtk", "llmtk, trunk", "trl"])
        for name in "llmtk", "llmtk, trunk":
            found = rows[name]["beside"]["trl"]
            self.assertAlmostEqual(found["faster_by"], rows["trl"]["seconds"] / rows[name]["seconds"])
            self.assertAlmostEqual(found["memory"], rows[name]["peak_gb"] / rows["trl"]["peak_gb"])

    def test_bounds(self):
        row = lambda name, faster_by, memory: dict(name=name, beside={"trl": dict(faster_by=faster_by, memory=memory)})
        self.assertEqual(bench_ppo.missed([row("llmtk", 1.4, 0.5), row("llmtk, trunk", 3.5, 0.3), dict(name="trl")], "float32"), [])
        slow, large = bench_ppo.missed([row("llmtk", 1.39, 0.5), row("llmtk, trunk", 3.6, 0.51)], "float32")
        self.assertIn("llmtk: 1.39 times", slow)
        self.assertIn("llmtk, trunk: 0.51 of", large)


if __name__ == "__main__":
    unittest.main()
