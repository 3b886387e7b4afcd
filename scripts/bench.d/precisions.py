"""One model in every precision that llmtk, transformers and llama.cpp have: what makes each of them."""

import collections
import functools
import json
import pathlib
import subprocess
import sys
import time

import texts
import turns
from bench_finetune import PACKAGES, make_models

HERE = pathlib.Path(__file__).resolve().parent
MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"

Row = collections.namedtuple("Row", "program precision bits")

# Of `llmtk quantize`; GPTQ where "gptq" stands behind the name. The token table, which is the head too, is kept in 8 bits as
# llama.cpp does, but beside NF4.
SCHEMES = ("W8A8", "W8A16", "W4A16", "W4A16_ASYM", "W4A8", "NF4")
GROUP_SIZE = 64
CONVERTED = ("F32", "BF16", "F16", "Q8_0")  # the types that `llmtk convert` writes; llama.cpp makes others itself

ROWS = [Row("llmtk", "float32", 32), Row("transformers", "float32", 32), Row("llama.cpp", "F32", 32),
        Row("llmtk", "bfloat16", 16), Row("transformers", "bfloat16", 16), Row("llama.cpp", "BF16", 16),
        Row("llama.cpp", "F16", 16),
        Row("llmtk", "W8A8", 8), Row("llmtk", "W8A16", 8), Row("transformers", "int8", 8), Row("llama.cpp", "Q8_0", 8),
        Row("llmtk", "W4A16", 4), Row("llmtk", "W4A8", 4), Row("llama.cpp", "Q4_0", 4), Row("llama.cpp", "Q4_1", 4),
        Row("llama.cpp", "Q4_K_M", 4)]


def name(row):
    return f"{row.program} {row.precision}"


def choose(rows, only):
    """Those whose name holds one of these words; all without any."""
    found = [row for row in rows if not only or any(word.lower() in name(row).lower() for word in only)]
    return found or sys.exit("--only leaves nothing; there are: " + ", ".join(map(name, rows)))


@functools.cache
def llama_cpp_environment():
    """Built when that has not happened yet."""
    folder = subprocess.run([HERE / "llama-cpp"], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
    return {"PYTHONPATH": folder}


def llama_cpp(job):
    return turns.run_peer(HERE / "peer_llama_cpp.py", dict(job, started=time.time()), environment=llama_cpp_environment())


@functools.cache
def quantizes(llmtk):
    """Whether this llmtk has the command."""
    return subprocess.run([llmtk, "quantize", "--help"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0


class Precisions:
    """The files of one model, each made when it is first asked for. Below bfloat16 all are made of the model in bfloat16, as
    published models are; float32 is that with the same numbers."""

    def __init__(self, folder, llmtk, model, threads):
        self.folder, self.llmtk, self.threads, self.made = folder, llmtk, threads, {}
        if not model:
            make_models(folder, llmtk, {MODEL})
            model = folder / "hub" / ("models--" + MODEL.replace("/", "--")) / "snapshots/0"
            if not model.exists():
                sys.exit(f"the package {PACKAGES[MODEL][0]}, which holds {MODEL}, is not here: run scripts/bootstrap --peers")
        self.base = self.folder / "bfloat16"
        self.convert(model, self.base, "--dtype", "bfloat16")

    def convert(self, *words):
        turns.run_measured([self.llmtk, "convert", *words])

    def gguf(self, kind):
        target = self.folder / f"{kind}.gguf"
        if kind in CONVERTED:
            self.convert(self.base, target, "--type", kind)
        else:
            llama_cpp(dict(do="quantize", model=str(self.path("F32")), target=str(target), type=kind, threads=self.threads))
        return target

    def quantize(self, scheme, method="rtn", *, target):
        config = dict(model=dict(name_or_path=str(self.base)), output_dir=str(target), scheme=scheme, method=method,
                      receipt=dict(speed=False), num_threads=self.threads)
        if scheme.startswith("W4"):
            config["group_size"] = GROUP_SIZE
        if scheme != "NF4":
            config["groups"] = [dict(targets=["Embedding"], scheme="W8A16")]
        if method == "gptq":
            config["calibration"] = dict(files=[str(texts.sayings())])
        file = self.folder / f"{target.name}.yaml"
        file.write_text(json.dumps(config))
        turns.run_measured([self.llmtk, "quantize", file])

    def make(self, precision):
        target = self.folder / precision.replace(" ", "-")
        if precision.split()[0] in SCHEMES:
            if not quantizes(self.llmtk):
                return None
            self.quantize(*precision.split(), target=target)
        elif precision == "float32":
            self.convert(self.base, target, "--dtype", "float32")
        else:
            return self.gguf(precision)
        return target

    def path(self, precision):
        """Its folder or file; None where this llmtk cannot make it."""
        precision = "float32" if precision == "int8" else precision  # transformers quantizes what it has opened
        if precision == "bfloat16":
            return self.base
        if precision not in self.made:
            self.made[precision] = self.make(precision)
        return self.made[precision]

    def config(self):
        return json.loads((self.base / "config.json").read_text())


def size(path):
    """Bytes of a model's weights."""
    return sum(file.stat().st_size for file in path.glob("*.safetensors")) if path.is_dir() else path.stat().st_size
