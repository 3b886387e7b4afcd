"""GGUF's element types against the Python package gguf: any bytes decode to the same numbers, bit for bit."""

import os
import pathlib
import subprocess
import tempfile

import gguf
import numpy as np

TOOL = pathlib.Path(os.environ["LLMTK_BIN"]).parent / "tests" / "gguf_tool"
TYPES = ["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "Q8_K"]


def tool(*arguments, stdin=b""):
    done = subprocess.run([TOOL, *map(str, arguments)], input=stdin, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def decoded_q8_k(blocks):
    """The package cannot decode this one: a float32 scale, 256 bytes, and sums that only products need."""
    blocks = blocks.reshape(-1, 292)
    scales = blocks[:, :4].copy().view(np.float32)
    return (scales * blocks[:, 4:260].view(np.int8).astype(np.float32)).reshape(-1)


def expected(name, data):
    with np.errstate(all="ignore"):
        if name == "Q8_K":
            return decoded_q8_k(data)
        return gguf.quants.dequantize(data, gguf.GGMLQuantizationType[name]).reshape(-1)


def same(ours, theirs, what):
    numbers = np.isfinite(theirs)
    assert (np.isnan(ours) == np.isnan(theirs)).all(), what
    different = ours[~np.isnan(theirs)].view(np.uint32) != theirs[~np.isnan(theirs)].view(np.uint32)
    zero = (ours[~np.isnan(theirs)] == 0) & (theirs[~np.isnan(theirs)] == 0)
    assert not (different & ~zero).any(), f"{what}: {(different & ~zero).sum()} of {numbers.size} numbers differ"


def decode_any_bytes(folder):
    """Random bytes: every pattern of scales, infinite and subnormal ones too."""
    random = np.random.default_rng(0)
    path = folder / "types.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    rows, columns, all_data = 24, 512, {}
    for name in TYPES:
        block, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[name]]
        data = random.integers(0, 256, (rows, columns // block * size), dtype=np.uint8)
        if name in ("F32", "F16", "BF16"):
            data = data.view({"F32": np.float32, "F16": np.float16, "BF16": np.uint16}[name])
        all_data[name] = data
        writer.add_tensor(name, data, raw_dtype=gguf.GGMLQuantizationType[name],
                          raw_shape=(rows, columns) if name == "BF16" else None)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    ours = np.frombuffer(tool("decode", path), np.float32).reshape(len(TYPES), -1)
    for numbers, (name, data) in zip(ours, all_data.items()):
        with np.errstate(all="ignore"):
            theirs = expected(name, data.view(np.uint8) if name == "BF16" else data)
        assert theirs.size == rows * columns, name
        same(numbers, theirs, name)


def encode(name):
    random = np.random.default_rng(1)
    numbers = (random.standard_normal(32 * 4096) * np.repeat(10.0 ** random.uniform(-12, 5, 4096), 32)).astype(np.float32)
    numbers[:32] = 0
    numbers[32:64] = 0.25  # all alike
    theirs = gguf.quants.quantize(numbers, gguf.GGMLQuantizationType[name]).tobytes()
    assert tool("encode", name, stdin=numbers.tobytes()) == theirs, name


with tempfile.TemporaryDirectory() as temporary:
    decode_any_bytes(pathlib.Path(temporary))
for written in ("Q8_0", "Q4_0", "Q4_1"):
    encode(written)
print(f"{len(TYPES)} types decode as the package gguf decodes them; Q8_0, Q4_0 and Q4_1 are encoded to the same bytes")
