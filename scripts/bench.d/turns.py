"""What the measurements of training share: programs run in turns on the same work, beside the machine's peak in products."""

import json
import multiprocessing
import os
import pathlib
import random
import statistics
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent

# glibc set up for huge pages and large thresholds: the best that a user of a Python program could get.
TUNED = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=8589934592:"
                           "glibc.malloc.trim_threshold=8589934592:glibc.malloc.top_pad=268435456",
         "THP_MEM_ALLOC_ENABLE": "1"}

PEAK = """
import sys, time, torch
torch.set_num_threads(int(sys.argv[2]))
if sys.argv[3] == "medium": torch.set_float32_matmul_precision("medium")
best = 0
for size in (512,) * 3 + (2048,) * 12:
    if size > 512 and best < 1e10: break  # a dtype that the machine has no instructions for would take minutes
    a, b = (torch.randn(size, size).to(getattr(torch, sys.argv[1])) for _ in range(2))
    t = time.perf_counter(); torch.mm(a, b); best = max(best, 2 * size**3 / (time.perf_counter() - t))
print(best)
"""


def add_options(parser, peers, steps=None, batch=None, warmup=None):
    """What each of these measurements can be told, with its own defaults; without one for --warmup there is no such option."""
    parser.add_argument("--peers", default=peers, help="comma-separated; empty for llmtk alone")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=steps, help="timed steps of each run")
    if warmup is not None:
        parser.add_argument("--warmup", type=int, default=warmup, help="steps before them")
    parser.add_argument("--batch", type=int, default=batch)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--llmtk", default=os.path.join(os.environ.get("LLMTK_BIN", ROOT / "build/release/bin"), "llmtk"),
                        help="the program to measure")
    parser.add_argument("--json", action="store_true")


def gemm_peak(dtype, threads):
    """Floating-point operations a second of the machine in a product of matrices, now."""
    precision = "medium" if dtype == "float32" else "highest"
    done = subprocess.run([sys.executable, "-c", PEAK, dtype, str(threads), precision], check=True,
                          stdout=subprocess.PIPE, text=True)
    return float(done.stdout)


def zipf_ids(count, vocabulary, seed=1):
    """Random ids as frequent as words are, so that an embedding's gradient meets repeated rows as in real text."""
    generator = random.Random(seed)
    return [min(vocabulary - 1, int(vocabulary ** generator.random()) - 1) for _ in range(count)]


def apart(function, *arguments):
    """Calls it in a process of its own: the memory of programs that are started from here counts this one's largest as well."""
    process = multiprocessing.get_context("fork").Process(target=function, args=arguments)
    process.start()
    process.join()
    if process.exitcode != 0:
        sys.exit(f"{function.__name__} failed with {process.exitcode}")


def run_measured(command, env={}):
    """What a program prints, and its peak memory in GB."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen([str(word) for word in command], env={**os.environ, **env}, stdout=out, stderr=errors)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        for file in out, errors:
            file.seek(0)
        if process.returncode != 0:
            sys.exit(f"{' '.join(map(str, command))} failed with {process.returncode}:\n{errors.read()[-2000:]}")
        return out.read(), usage.ru_maxrss / 1024 / 1024


def run_peer(script, job, tuned=False, environment={}):
    """The JSON that a peer prints last, with its peak memory."""
    out, peak = run_measured([sys.executable, script, json.dumps(job)], {**environment, **(TUNED if tuned else {})})
    return {**json.loads(out.splitlines()[-1]), "peak_gb": peak}


def run_llmtk(command, output, warmup):
    """Speeds and losses that a training run of llmtk left in its metrics."""
    _, peak = run_measured([*command, "--json", "--log-level", "warn"])
    rows = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    rows = [row for row in rows if "tokens_per_second" in row]
    speeds = [row["tokens_per_second"] for row in rows if row["step"] > warmup]
    return {"tokens_per_second": statistics.median(speeds), "peak_gb": peak, "first_loss": rows[0]["loss"],
            "last_loss": rows[-1]["loss"]}


def take_turns(runs, rounds, dtype, threads, flops_per_token):
    """Runs {name: function} in turns, llmtk among them: every second round backwards. Returns {name: [result ...]}. One whose
    work is another says its own flops_per_token."""
    results = {name: [] for name in runs}
    runs["llmtk"]()  # not counted: a virtual machine is slow to give memory that nobody has touched yet
    for turn in range(rounds):
        peak = gemm_peak(dtype, threads)
        for name in list(runs)[::-1 if turn % 2 else 1]:
            result = runs[name]()
            result["share"] = result["tokens_per_second"] * result.get("flops_per_token", flops_per_token) / peak
            result["gemm_peak"] = peak / 1e9
            results[name].append(result)
            print(f"round {turn + 1}: {name:32} {result['tokens_per_second']:9.1f} tok/s  {result['peak_gb']:5.2f} GB  "
                  f"share {result['share']:.2f}  loss {result['first_loss']:.3f} -> {result['last_loss']:.3f}",
                  file=sys.stderr, flush=True)
    return results


def report(results, title, as_json, **facts):
    """Medians over the rounds; ratios are taken round by round."""
    median = lambda name, key: statistics.median(result[key] for result in results[name])
    summary = []
    for name in results:
        ratios = [ours["tokens_per_second"] / theirs["tokens_per_second"]
                  for ours, theirs in zip(results["llmtk"], results[name])]
        summary.append(dict(name=name, tokens_per_second=median(name, "tokens_per_second"), peak_gb=median(name, "peak_gb"),
                            share=median(name, "share"), llmtk_is_faster_by=statistics.median(ratios)))
    if as_json:
        print(json.dumps(dict(**facts, results=summary)))
        return summary
    print(f"{title}; peak in products {median('llmtk', 'gemm_peak'):.0f} GFLOP/s; "
          f"medians of {len(results['llmtk'])} rounds")
    print(f"{'':32} {'tok/s':>9} {'peak GB':>8} {'share':>6} {'llmtk is faster by':>19}")
    for row in summary:
        print(f"{row['name']:32} {row['tokens_per_second']:9.1f} {row['peak_gb']:8.2f} {row['share']:6.2f} "
              f"{row['llmtk_is_faster_by']:18.2f}x")
    return summary
