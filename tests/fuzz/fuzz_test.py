"""A few seconds of one fuzz target, over seeds made here. Its argument: the target's name. scripts/soak fuzz is the long form."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import seeds

name = sys.argv[1]
program = Path(os.environ["LLMTK_BIN"]).parent / "tests" / f"fuzz_{name}"
with tempfile.TemporaryDirectory(prefix=f"llmtk-fuzz-{name}-") as folder:
    corpus = Path(folder) / "seeds"
    corpus.mkdir()
    seeds.write(name, corpus)
    assert len(list(corpus.iterdir())) > 4
    done = subprocess.run([program, "2", "1", corpus], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=120)
    print(done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")[-4000:])
    crash = Path(folder) / "crash-input"
    if crash.exists():
        print("the input:", crash.read_bytes()[:2000])
    made = int(done.stdout.split()[3]) if done.returncode == 0 else 0
    sys.exit(0 if made > 20 else 1)
