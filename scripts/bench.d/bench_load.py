"""How fast a model opens, and how much memory that takes: llmtk against transformers, on the same files.

  scripts/bench load                    random models of 500 MB: a folder in float32 and bfloat16, a GGUF file in Q8_0
  scripts/bench load --model PATH       a folder or GGUF file of one's own
  scripts/bench load --check            exit 7 when llmtk takes 1 s for a folder, or more than 1.3 times its bytes in memory

A load is a process that opens the model and its tokenizer and prints one token: llmtk's from its start to its end, its memory the
largest resident size of it. Where llmtk maps a file, what it has touched of it counts too. Of transformers the time of
from_pretrained alone is given as well as that of the whole process, `import torch` included; of a GGUF file its reader alone, which
needs no accelerate. Files are in the page cache; the two take turns; medians over the rounds.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

SHAPE = dict(hidden_size=768, intermediate_size=2048, num_hidden_layers=12, num_attention_heads=12, num_key_value_heads=12,
             max_position_embeddings=1024, tie_word_embeddings=True)
BOUND_SECONDS, BOUND_MEMORY = 1.0, 1.3
PEER = """
import json, sys, time
begin = time.perf_counter()
import torch
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint
middle = time.perf_counter()
path, dtype = sys.argv[1:]
if path.endswith(".gguf"):
    folder, name = path.rsplit("/", 1)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder, gguf_file=name))
    tensors = load_gguf_checkpoint(path, return_tensors=True, model_to_load=model, torch_dtype=getattr(torch, dtype))["tensors"]
else:
    model = AutoModelForCausalLM.from_pretrained(path, dtype=dtype)
    with torch.no_grad():
        model(torch.tensor([[1]])).logits.argmax().item()
print(json.dumps(dict(imports=middle - begin, load=time.perf_counter() - middle)))
"""


def run(command):
    """Seconds, the largest resident size in bytes, and what was written."""
    begin = time.perf_counter()
    with subprocess.Popen([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        out, error = process.stdout.read(), process.stderr.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))} failed with {process.returncode}:\n{error.decode()[-2000:]}")
    return time.perf_counter() - begin, usage.ru_maxrss * 1024, out.decode()


def make_folders(folder):
    """Random weights as transformers saves them, a tokenizer of bytes."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    bpe = Tokenizer(models.BPE({token: i for i, token in enumerate([*alphabet, "<|endoftext|>"])}, []))
    bpe.pre_tokenizer, bpe.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, bos_token="<|endoftext|>", eos_token="<|endoftext|>")
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(vocab_size=50304, bos_token_id=256, eos_token_id=256, **SHAPE))
    for name, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        model.to(dtype).save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)


def make_models(folder, llmtk):
    """{name: (path, dtype)}. In a process of its own: what is started from here would count this one's memory as its own."""
    run([sys.executable, __file__, "--make", folder])
    run([llmtk, "convert", folder / "float32", folder / "q8_0.gguf", "--type", "Q8_0"])
    return {"folder, float32": (folder / "float32", "float32"), "folder, bfloat16": (folder / "bfloat16", "bfloat16"),
            "GGUF, Q8_0": (folder / "q8_0.gguf", "float32")}


def model_bytes(path, dtype):
    """Of the model in memory: what a folder holds, or a GGUF file's numbers in the type that is asked for."""
    if path.is_dir():
        return sum(file.stat().st_size for file in path.glob("*.safetensors"))
    import gguf

    size = 4 if dtype == "float32" else 2
    return sum(int(tensor.n_elements) * size for tensor in gguf.GGUFReader(path).tensors)


def measure(options, path, dtype):
    ours, theirs = [], []
    for turn in range(options.rounds + 1):  # the first one fills the page cache
        seconds, memory, _ = run([options.llmtk, "generate", path, "--prompt", "a", "--max-new-tokens", "1", "--device", "cpu",
                                  "--dtype", dtype])
        ours.append(dict(seconds=seconds, memory=memory))
        seconds, memory, out = run([sys.executable, "-c", PEER, path, dtype])
        theirs.append(dict(seconds=seconds, memory=memory, load=json.loads(out.splitlines()[-1])["load"]))
        if turn == 0:
            ours, theirs = [], []
    median = lambda runs, key: statistics.median(run[key] for run in runs)
    base = run([options.llmtk, "generate", "--help"])[1]
    return dict(bytes=model_bytes(path, dtype), program_bytes=base,
                llmtk={key: median(ours, key) for key in ("seconds", "memory")},
                transformers={key: median(theirs, key) for key in ("seconds", "load", "memory")})


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=pathlib.Path)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--make", type=pathlib.Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.make:
        return make_folders(options.make)
    options.llmtk = pathlib.Path(os.environ["LLMTK_BIN"]) / "llmtk"

    with tempfile.TemporaryDirectory(prefix="llmtk-bench-load-") as temporary:
        models = ({str(options.model): (options.model, options.dtype)} if options.model
                  else make_models(pathlib.Path(temporary), options.llmtk))
        found = {name: measure(options, path.resolve(), dtype) for name, (path, dtype) in models.items()}
    if options.json:
        print(json.dumps(found))
    else:
        for name, row in found.items():
            megabytes = lambda size: f"{size / 1e6:7.0f} MB"
            print(f"{name}, {megabytes(row['bytes']).strip()} of numbers; medians of {options.rounds} rounds")
            print(f"  llmtk         {row['llmtk']['seconds']:6.2f} s {megabytes(row['llmtk']['memory'])}, of which the program "
                  f"{megabytes(row['program_bytes']).strip()}")
            theirs = row["transformers"]
            print(f"  transformers  {theirs['seconds']:6.2f} s {megabytes(theirs['memory'])}, loading {theirs['load']:.2f} s")
    over = lambda row: (row["llmtk"]["memory"] - row["program_bytes"]) / row["bytes"]
    slow = [name for name, row in found.items() if name.startswith("folder") and row["llmtk"]["seconds"] >= BOUND_SECONDS]
    if options.check and (slow or any(over(row) > BOUND_MEMORY for row in found.values())):
        sys.exit(7)


if __name__ == "__main__":
    main()
