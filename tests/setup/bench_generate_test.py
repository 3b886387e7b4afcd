"""scripts/bench.d/bench_generate.py and bench_quantize.py at a small size, without llama.cpp, which is not built here: programs run,
figures are told, goals that are missed are named."""

import contextlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

BENCH = pathlib.Path(os.environ["LLMTK_SOURCE"]) / "scripts" / "bench.d"
sys.path.insert(0, str(BENCH))
os.environ["OMP_NUM_THREADS"] = "1"
import bench_generate
import bench_quantize
import gguf
import numpy
import texts
import torch
import transformers
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

WORDS = " ".join(f"the {i} of {i * i} and" for i in range(300))


def make_tokenizer(folder):
    """Tokens of bytes, and of a blank with "the": a piece that is cut within that word has other tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("t", "h"), ("th", "e"), ("Ġ", "the")]
    tokens = [*alphabet, *(a + b for a, b in merges), "<|endoftext|>"]
    bpe = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, merges))
    bpe.pre_tokenizer, bpe.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    transformers.PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="<|endoftext|>").save_pretrained(folder)
    return len(tokens)


def run(script, *words):
    done = subprocess.run([sys.executable, BENCH / script, "--json", *map(str, words)], capture_output=True, text=True)
    if done.returncode:
        raise AssertionError(done.stderr)
    return json.loads(done.stdout)


class Benchmarks(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = pathlib.Path(cls.enterClassContext(tempfile.TemporaryDirectory(prefix="llmtk-bench-")))
        vocabulary = make_tokenizer(cls.folder / "model")
        torch.manual_seed(0)
        config = transformers.LlamaConfig(vocab_size=vocabulary, hidden_size=64, intermediate_size=128, num_hidden_layers=2,
                                          num_attention_heads=4, num_key_value_heads=2, eos_token_id=vocabulary - 1)
        transformers.LlamaForCausalLM(config).save_pretrained(cls.folder / "model")
        (cls.folder / "text.txt").write_text(WORDS)

    def test_generate(self):
        rows, = run("bench_generate.py", "--model", self.folder / "model", "--text", self.folder / "text.txt", "--only", "float32",
                    *"--threads 1 --prompt-tokens 6 --new-tokens 4 --batch 3 --rounds 1".split()).values()
        llmtk, transformers = rows
        self.assertEqual([llmtk["name"], transformers["name"]], ["llmtk float32", "transformers float32"])
        for key in bench_generate.SPEEDS:
            self.assertAlmostEqual(transformers["times"][key], llmtk[key] / transformers[key])
        for row in rows:
            cache = 2 * 2 * 2 * 16 * (6 + 4) * 4  # keys and values, layers, heads, their size, tokens, bytes
            self.assertAlmostEqual(row["beyond"], row["peak"] - row["file"] - cache)
            self.assertGreater(row["first"], 0)

    def test_quantize(self):
        rows = run("bench_quantize.py", "--model", self.folder / "model", "--text", self.folder / "text.txt", "--only", "llmtk float32",
                   "llmtk bfloat16", "--length", 16, "--windows", 5, "--threads", 1)
        _, windows = texts.windows(self.folder / "model", WORDS, 16, 5)
        model = transformers.AutoModelForCausalLM.from_pretrained(self.folder / "model")
        with torch.no_grad():
            ids = torch.tensor(windows)
            expected = model(ids, labels=ids).loss.exp().item()
        self.assertAlmostEqual(rows[0]["perplexity"] / expected, 1, delta=0.01)  # its weights are rounded to bfloat16 first
        self.assertAlmostEqual(rows[1]["bits"], 16, delta=1.5)

    def test_prompts_have_the_tokens_that_are_asked_for(self):
        pieces = texts.prompts(self.folder / "model", WORDS, 7, 4)
        encoder = texts.tokenizer(self.folder / "model")
        self.assertEqual([encoder.encode(text).ids for text, _ in pieces], [ids for _, ids in pieces])
        self.assertEqual({len(ids) for _, ids in pieces}, {7})
        with contextlib.redirect_stderr(None), self.assertRaisesRegex(SystemExit, "only 0 pieces of 7 tokens"):
            texts.prompts(self.folder / "model", "the", 7, 1)

    def test_weights_leave_the_grid_of_Q4_1(self):
        random = numpy.random.default_rng(0).normal(size=(64, 96)).astype(numpy.float32)
        kinds = {"model.embed_tokens.weight": gguf.GGMLQuantizationType.Q8_0, "proj.weight": gguf.GGMLQuantizationType.Q4_1}
        error = lambda weight, kind: float(abs(gguf.dequantize(gguf.quantize(weight, kind), kind) - weight).mean())
        on_grid = {name: gguf.dequantize(gguf.quantize(random, kind), kind) for name, kind in kinds.items()}
        for name, weight in on_grid.items():
            self.assertLess(error(weight, kinds[name]), 0.05 * error(random, kinds[name]))
        (self.folder / "grid").mkdir()
        save_file({name: torch.tensor(weight) for name, weight in on_grid.items()}, self.folder / "grid/model.safetensors")
        bench_quantize.move_off_grid(self.folder / "grid", self.folder / "moved")
        moved = load_file(self.folder / "moved/model.safetensors")
        for name, kind in kinds.items():
            self.assertAlmostEqual(error(moved[name].float().numpy(), kind) / error(random, kind), 1, delta=0.2)
        save_file({"proj.weight": torch.tensor(random)}, self.folder / "grid/model.safetensors")
        with self.assertRaisesRegex(SystemExit, "proj.weight lies on no grid"):
            bench_quantize.move_off_grid(self.folder / "grid", self.folder / "again")

    def test_goals_of_speed(self):
        row = lambda name, bits, beyond=0, **speeds: dict(name=name, bits=bits, beyond=beyond, prefill=100, **speeds)
        rows = [row("llmtk bfloat16", 16, one=11, eight=19, beyond=2e8), row("transformers bfloat16", 16, one=1),
                row("llama.cpp BF16", 16, one=10, eight=10), row("llmtk W8A8", 8, one=15), row("llama.cpp Q8_0", 8, one=10)]
        bench_generate.compare(rows)
        self.assertEqual(rows[2]["times"], dict(prefill=1, one=1.1, eight=1.9))
        self.assertNotIn("times", rows[0])
        found = bench_generate.missed(rows)
        self.assertEqual([miss.split(":")[0] for miss in found], ["16 bits, eight", "16 bits, prefill", "llmtk bfloat16"])

    def test_goals_of_quality(self):
        rows = [dict(name=name, increase=increase) for name, increase in (
            ("llmtk bfloat16", None), ("llmtk W8A8", 0.006), ("llmtk W8A16", 0.005), ("llmtk W4A16 gptq", 0.04), ("llama.cpp Q4_0", 0.05))]
        miss, = bench_quantize.missed(rows)
        self.assertIn("llmtk W8A8: 0.60 %", miss)
        rows[-1]["increase"] = 0.03
        self.assertIn("Q4_0 has 3.00 %", bench_quantize.missed(rows)[-1])


if __name__ == "__main__":
    unittest.main()
