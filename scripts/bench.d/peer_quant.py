"""bitsandbytes and plain PyTorch for bench_quant.py: peer_quant.py KIND ROWS OUT IN SECONDS THREADS, as tests/quant/bench_quant.cpp."""

import json
import sys
import time

import torch


def best(seconds, f):
    found, begin = [], time.perf_counter()
    while len(found) < 3 or time.perf_counter() - begin < seconds:
        start = time.perf_counter()
        f()
        found.append(time.perf_counter() - start)
    return min(found) * 1e3


def status(key):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(key + ":"))


def growth(f):
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    before = status("VmRSS")
    f()
    return status("VmHWM") - before


def products(kind, weight, dtype):
    """The product without a gradient, the one with, and the weight's bytes."""
    if kind.startswith("nf4"):
        import bitsandbytes as bnb

        codes, state = bnb.functional.quantize_4bit(weight, quant_type="nf4", compress_statistics=True)
        size = codes.nbytes + state.absmax.nbytes + state.state2.absmax.nbytes
        product = lambda x: bnb.matmul_4bit(x, codes.t(), quant_state=state)
        return product, product, size
    if kind == "int8":
        import bitsandbytes as bnb

        codes, scales, _ = bnb.functional.int8_vectorwise_quant(weight.half())

        def product(training):
            state = bnb.MatmulLtState()
            state.CB, state.SCB, state.is_training, state.has_fp16_weights, state.threshold = codes, scales, training, False, 6.0
            return lambda x: bnb.matmul(x, codes, state=state)

        return product(False), product(True), codes.nbytes + scales.nbytes
    plain = weight.to(dtype)
    product = lambda x: torch.nn.functional.linear(x, plain)
    return product, product, plain.nbytes


def main():
    kind, rows, out, inner, seconds, threads = sys.argv[1], *map(int, sys.argv[2:5]), float(sys.argv[5]), int(sys.argv[6])
    if threads:
        torch.set_num_threads(threads)
    dtype = torch.bfloat16 if kind.endswith("bfloat16") else torch.float32
    forward, training, size = products(kind, torch.randn(out, inner) * 0.02, dtype)
    x = torch.randn(rows, inner).to(dtype)
    dy = torch.ones(rows, out, dtype=dtype)
    with torch.no_grad():
        once = best(seconds, lambda: forward(x))
    x.requires_grad_(True)
    both = lambda: torch.autograd.grad(training(x), x, dy)
    peak = growth(both)
    print(json.dumps(dict(forward=once, both=best(seconds, both), bytes=size, growth=peak)))


main()
