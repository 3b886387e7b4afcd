"""The chain of logits processors against transformers' own, on random logits: the same tokens stay, as probable."""

import json
import os
import subprocess
import sys

import torch
from transformers import GenerationConfig, GPT2Config, GPT2LMHeadModel

TOOL = os.path.join(os.environ["LLMTK_BIN"], "..", "tests", "logits_tool")

EOS = [3, 11]
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
    {"no_repeat_ngram_size": 1},
    {"no_repeat_ngram_size": 2},
    {"no_repeat_ngram_size": 3, "repetition_penalty": 1.1},
    {"bad_words_ids": [[5], [EOS[0]], [2, 7], [1, 2, 6]]},
    {"sequence_bias": [[[5], 3.0], [[2, 7], -4.0], [[1, 2, 6], 20.0]]},
    {"min_length": 29}, {"min_length": 31}, {"min_length": 40, "min_new_tokens": 2},
    {"forced_eos_token_id": 7, "max_length": 31},
    {"forced_eos_token_id": [7, 4], "max_length": 31, "do_sample": True},
    {"forced_bos_token_id": 7}, {"forced_bos_token_id": 7, "begin_suppress_tokens": [1, 5]},
    {"suppress_tokens": [2, 5, 7], "begin_suppress_tokens": [1, 4]},
    {"exponential_decay_length_penalty": [2, 1.3]},
    {"exponential_decay_length_penalty": [4, 1.3]},
    {"do_sample": True, "top_k": 0, "epsilon_cutoff": 0.02},
    {"do_sample": True, "top_k": 0, "epsilon_cutoff": 0.9},
    {"do_sample": True, "top_k": 0, "eta_cutoff": 0.02},
    {"do_sample": True, "top_k": 30, "eta_cutoff": 0.5},
    {"do_sample": True, "num_beams": 4, "top_k": 1},
    {"do_sample": True, "num_beams": 4, "top_k": 0, "top_p": 0.1},
    {"do_sample": True, "num_beams": 4, "top_k": 0, "min_p": 0.9},
    {"do_sample": True, "num_beams": 4, "top_k": 0, "typical_p": 0.05},
    {"do_sample": True, "num_beams": 4, "top_k": 0, "epsilon_cutoff": 0.9},
    {"do_sample": True, "num_beams": 4, "top_k": 0, "eta_cutoff": 0.9},
    {"bad_words_ids": [[2, 7]], "suppress_tokens": [5], "repetition_penalty": 1.2,
     "exponential_decay_length_penalty": [1, 1.2], "do_sample": True, "temperature": 0.7, "top_k": 25, "top_p": 0.9},
]
NEW_TOKENS = 4  # of the context


def rows(generator):
    """(what it is, logits): scales from nearly flat to peaked, small and large vocabularies, ties as bfloat16 makes them."""
    for vocabulary, scale in ((13, 3.0), (1000, 0.3), (1000, 3.0), (1000, 12.0), (32000, 3.0)):
        yield f"V {vocabulary}, scale {scale}", torch.randn(vocabulary, generator=generator) * scale
    yield "bfloat16", (torch.randn(5000, generator=generator) * 3).bfloat16().float()
    yield "all equal", torch.zeros(40)


def contexts(vocabulary, generator):
    """Random ids; a text that repeats itself and ends in the middle of a biased sequence; and the shortest ones."""
    yield torch.randint(0, vocabulary * 2 // 3, (30,), generator=generator).tolist()
    if vocabulary > 5000:
        return
    yield [1, 2, 8, 2, 5, 1, 2, 9, 7, 12, 0, 1, 2]
    yield [2]
    yield [1, 2]


def expected(config, logits, context, new_tokens):
    """transformers' own choice and order of processors."""
    model = expected.model
    settings = GenerationConfig(**{"eos_token_id": EOS, "pad_token_id": 0, "max_length": 10_000, **config})
    settings.update(**{k: v for k, v in GenerationConfig._get_default_generation_params().items()
                       if getattr(settings, k) is None})
    if settings.min_new_tokens is not None:  # as generate() does
        settings.min_length = settings.min_new_tokens + len(context) - new_tokens
    model._prepare_special_tokens(settings, device="cpu")
    processors = model._get_logits_processor(settings, input_ids_seq_length=len(context) - new_tokens, device="cpu")
    return processors(torch.tensor([context]), logits[None].clone())[0].softmax(-1)


expected.model = GPT2LMHeadModel(GPT2Config(n_layer=1, n_head=1, n_embd=2, vocab_size=13))


def main():
    generator = torch.Generator().manual_seed(0)
    cases, lines = [], []
    for name, logits in rows(generator):
        for config in CONFIGS:
            for context in contexts(len(logits), generator):
                new_tokens = min(NEW_TOKENS, len(context) - 1)
                limit = config.get("max_length", 10_000) - (len(context) - new_tokens)
                cases.append((name, config, logits, context, new_tokens))
                lines.append(json.dumps({"logits": logits.tolist(), "context": context, "new_tokens": new_tokens,
                                         "limit": limit, "config": {"eos_token_id": EOS, **config}}))
    run = subprocess.run([TOOL], input="\n".join(lines) + "\n", capture_output=True, text=True)
    if run.returncode:
        sys.exit(f"{TOOL}: {run.stderr}")
    failures = 0
    for (name, config, logits, context, new_tokens), line in zip(cases, run.stdout.splitlines(), strict=True):
        answer = json.loads(line)
        want = expected(config, logits, context, new_tokens)
        got = torch.zeros_like(want)
        got[answer["ids"]] = torch.tensor(answer["probabilities"])
        same = set(answer["ids"]) == set(want.nonzero().flatten().tolist())
        if len(logits) > 5000 and len(set(answer["ids"]) ^ set(want.nonzero().flatten().tolist())) == 1:
            continue  # of thousands of tokens, one at the border where a float sum is rounded the other way
        if not same:
            # torch.sort leaves open which of several equal scores comes first: then the scores kept must be the same.
            same = torch.equal(logits[got > 0].sort().values, logits[want > 0].sort().values)
            got, want = got.sort().values, want.sort().values
        error = (got - want).abs().max().item()
        if not same or error > 5e-6:
            failures += 1
            print(f"FAILED {name} {config}: {len(answer['ids'])} tokens, expected {(want > 0).sum().item()}; "
                  f"largest difference {error:.2e}")
    print(f"{len(cases)} chains, {failures} failed")
    sys.exit(1 if failures else 0)


main()
