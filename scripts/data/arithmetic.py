#!/usr/bin/env python3
"""Sums to fine-tune on, as JSON lines {"input": "47+8", "output": "55"}, or with --as completion {"prompt": "47+8=", "completion": "55"}:
no sum of the test is among those to train on.

Usage: arithmetic.py OUTPUT_FOLDER [--digits 2] [--train 6000] [--test 500] [--seed 0] [--as completion]
(writes train.jsonl and test.jsonl)
"""

import argparse
import json
import os
import pathlib
import random


def sums(digits, count, seed):
    """Different pairs of numbers of at most so many digits, each pair equally likely."""
    most = 10**digits
    if count > most**2:
        raise SystemExit(f"there are {most**2} sums of {digits} digits, not {count}")
    return [divmod(pair, most) for pair in random.Random(seed).sample(range(most**2), count)]


def row(a, b, shape):
    if shape == "completion":
        return {"prompt": f"{a}+{b}=", "completion": str(a + b)}
    return {"input": f"{a}+{b}", "output": str(a + b)}


def write(path, pairs, shape):
    partial = path.with_suffix(".partial")
    partial.write_text("".join(json.dumps(row(a, b, shape)) + "\n" for a, b in pairs))
    os.replace(partial, path)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--digits", type=int, default=2)
    parser.add_argument("--train", type=int, default=6000)
    parser.add_argument("--test", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--as", dest="shape", choices=["input", "completion"], default="input")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    pairs = sums(options.digits, options.train + options.test, options.seed)
    write(options.folder / "train.jsonl", pairs[:options.train], options.shape)
    write(options.folder / "test.jsonl", pairs[options.train:], options.shape)


if __name__ == "__main__":
    main()
