"""The chain of logits processors against transformers' own, on random logits: the same tokens stay, as probable."""

import json
import os
import subprocess
import sys

import torch
from transformers import GenerationConfig, GPT2Config, GPT2LMHeadModel

TOOL = os.path.join(os.environ["LLMTK_BIN"], "..", "tests", "logits_tool")

CONFIGS = [
    {},
    {"repetition_penalty": 1.3},
    {"repetition_penalty": 0.7},
    {"do_sample": True, "top_k": 0},
    {"do_sample": True},
    {"do_sample": True, "temperature": 0.5},
    {"do_sample": True, "temperature": 1.7, "top_k": 0},
    {"do_sample": True, "top_k": 1},
    {"do_sample": True, "top_k": 7},
    {"do_sample": True, "top_k": 100000},
    {"do_sample": True, "top_k": 0, "top_p": 0.0},
    {"do_sample": True, "top_k": 0, "top_p": 0.3},
    {"do_sample": True, "top_k": 0, "top_p": 0.9},
    {"do_sample": True, "top_k": 0, "top_p": 0.999},
    {"do_sample": True, "top_k": 0, "min_p": 0.05},
    {"do_sample": True, "top_k": 0, "min_p": 1.0},
    {"do_sample": True, "top_k": 0, "typical_p": 0.2},
    {"do_sample": True, "top_k": 0, "typical_p": 0.95},
    {"do_sample": True, "min_new_tokens": 9, "top_k": 20},
    {"do_sample": True, "min_new_tokens": 2, "top_k": 20},
    {"do_sample": True, "repetition_penalty": 1.2, "temperature": 0.8, "top_k": 40, "top_p": 0.92, "min_p": 0.02,
     "typical_p": 0.9, "min_new_tokens": 5},
]
NEW_TOKENS = 4  # of the context
EOS = [3, 11]


def rows(generator):
    """(what it is, logits): scales from nearly flat to peaked, small and large vocabularies, ties as bfloat16 makes them."""
    for vocabulary, scale in ((13, 3.0), (1000, 0.3), (1000, 3.0), (1000, 12.0), (32000, 3.0)):
        yield f"V {vocabulary}, scale {scale}", torch.randn(vocabulary, generator=generator) * scale
    yield "bfloat16", (torch.randn(5000, generator=generator) * 3).bfloat16().float()
    yield "all equal", torch.zeros(40)


def expected(config, logits, context):
    """transformers' own choice and order of processors."""
    model = expected.model
    settings = GenerationConfig(**{"eos_token_id": EOS, "pad_token_id": 0, "max_length": 10_000, **config})
    settings.update(**{k: v for k, v in GenerationConfig._get_default_generation_params().items()
                       if getattr(settings, k) is None})
    model._prepare_special_tokens(settings, device="cpu")
    processors = model._get_logits_processor(settings, input_ids_seq_length=len(context) - NEW_TOKENS, device="cpu")
    return processors(torch.tensor([context]), logits[None].clone())[0].softmax(-1)


expected.model = GPT2LMHeadModel(GPT2Config(n_layer=1, n_head=1, n_embd=2, vocab_size=13))


def main():
    generator = torch.Generator().manual_seed(0)
    cases, lines = [], []
    for name, logits in rows(generator):
        context = torch.randint(0, len(logits), (30,), generator=generator).tolist()
        for config in CONFIGS:
            cases.append((name, config, logits, context))
            lines.append(json.dumps({"logits": logits.tolist(), "context": context, "new_tokens": NEW_TOKENS,
                                     "config": {"eos_token_id": EOS, **config}}))
    run = subprocess.run([TOOL], input="\n".join(lines) + "\n", capture_output=True, text=True)
    if run.returncode:
        sys.exit(f"{TOOL}: {run.stderr}")
    failures = 0
    for (name, config, logits, context), line in zip(cases, run.stdout.splitlines(), strict=True):
        answer = json.loads(line)
        want = expected(config, logits, context)
        got = torch.zeros_like(want)
        got[answer["ids"]] = torch.tensor(answer["probabilities"])
        same = set(answer["ids"]) == set(want.nonzero().flatten().tolist())
        if not same:
            # torch.sort leaves open which of several equal scores comes first: then the scores kept must be the same.
            same = torch.equal(logits[got > 0].sort().values, logits[want > 0].sort().values)
            got, want = got.sort().values, want.sort().values
        error = (got - want).abs().max().item()
        if not same or error > 2e-6:
            failures += 1
            print(f"FAILED {name} {config}: {len(answer['ids'])} tokens, expected {(want > 0).sum().item()}; "
                  f"largest difference {error:.2e}")
    print(f"{len(cases)} chains, {failures} failed")
    sys.exit(1 if failures else 0)


main()
