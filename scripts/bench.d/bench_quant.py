"""Products with packed weights (NF4 doubly quantized, int8) against bitsandbytes on the CPU, and against plain ones.

  scripts/bench quant                    a layer of SmolLM2-135M in training, one of a 7B model in training and in decoding
  scripts/bench quant --shape 64x512x512 rows x out x in; may be given several times
  scripts/bench quant --check            exit 7 where a packed product is slower than bitsandbytes' or leaves no memory saved

forward: without a gradient. both: with the gradient for the input, which is what training on a frozen base takes. weight: the bytes it
is kept in. peak: what the process grew by while both ran, the result and the gradient included. The best of repeated calls; every
measurement is a process of its own.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

SHAPES = ["2048x1536x576", "512x4096x4096", "1x4096x4096"]
KINDS = ["float32", "bfloat16", "nf4", "nf4_bfloat16", "int8"]


def build_program(build):
    if (build / "build.ninja").exists():
        tools = Path(sys.executable).parent  # CMake and ninja stand beside this Python
        subprocess.run([tools / "cmake", "--build", build, "--target", "bench_quant"], check=True,
                       env=os.environ | {"PATH": f"{tools}:{os.environ['PATH']}"}, stdout=subprocess.DEVNULL)
    return build / "tests" / "bench_quant"


def measure(command, words):
    done = subprocess.run([*map(str, command), *map(str, words)], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))} failed with {done.returncode}:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", action="append", help="rows x out x in")
    parser.add_argument("--seconds", type=float, default=1.0, help="per measurement")
    parser.add_argument("--threads", type=int, default=0, help="0: all cores")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    ours = [build_program(Path(os.environ["LLMTK_BIN"]).parent)]
    theirs = [sys.executable, Path(__file__).with_name("peer_quant.py")]

    found, bad = [], False
    for shape in options.shape or SHAPES:
        if not options.json:
            print(f"{shape} (rows x out x in)\n{'':14}{'llmtk: forward':>16}{'both':>10}{'weight':>10}{'peak':>10}"
                  f"{'  peer: forward':>17}{'both':>10}{'peak':>10}   times faster")
        for kind in KINDS:
            words = [kind, *shape.split("x"), options.seconds, options.threads]
            a, b = measure(ours, words), measure(theirs, words)
            found.append(dict(shape=shape, kind=kind, llmtk=a, peer=b))
            if kind[0] in "ni":
                bad |= a["both"] > b["both"] or a["bytes"] > b["bytes"] or a["growth"] > b["growth"]
            if not options.json:
                print(f"  {kind:12}{a['forward']:13.2f} ms{a['both']:7.2f} ms{a['bytes'] / 1e6:7.1f} MB{a['growth'] / 1e6:7.1f} MB"
                      f"{b['forward']:14.2f} ms{b['both']:7.2f} ms{b['growth'] / 1e6:7.1f} MB"
                      f"{b['forward'] / a['forward']:9.2f} {b['both'] / a['both']:6.2f}", flush=True)
    if options.json:
        print(json.dumps(found))
    if options.check and bad:
        sys.exit(7)


main()
