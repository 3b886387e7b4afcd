"""Greedy and beam search against transformers' generate(): the same ids and scores over many random settings, on small
random models; what runs here in padded batches is there one prompt at a time."""

import json
import os
import pathlib
import random
import subprocess
import sys
import tempfile
import warnings

import torch
import transformers

TOOL = os.path.join(os.environ["LLMTK_BIN"], "..", "tests", "generate_tool")
VOCABULARY, EOS, SETTINGS = 61, 3, int(sys.argv[1]) if len(sys.argv) > 1 else 6
COMMON = dict(vocab_size=VOCABULARY, bos_token_id=1, eos_token_id=EOS, pad_token_id=0)
LLAMA = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
             max_position_embeddings=64)
SHAPES = {
    "gpt2": dict(n_layer=2, n_head=4, n_embd=32, n_positions=64),
    "llama": LLAMA,
    "t5": dict(d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4, decoder_start_token_id=0,
               feed_forward_proj="gated-gelu", tie_word_embeddings=False),
    "mistral": dict(LLAMA, sliding_window=6),
    "qwen2": LLAMA,
    "qwen3": dict(LLAMA, head_dim=8),
    "gemma2": dict(LLAMA, head_dim=8, query_pre_attn_scalar=8, sliding_window=6),
    "gemma3_text": dict(LLAMA, num_hidden_layers=3, head_dim=8, query_pre_attn_scalar=8, sliding_window=6,
                        layer_types=["sliding_attention", "sliding_attention", "full_attention"]),
    "gpt_neox": dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
                     max_position_embeddings=64),
    "opt": dict(hidden_size=32, ffn_dim=48, num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=64,
                word_embed_proj_dim=32),
    "openai-gpt": dict(n_layer=2, n_head=4, n_embd=32, n_positions=64),
}


def make_model(family, folder):
    """Weights large enough that the next token depends on all that came before; and an eos that comes now and then."""
    torch.manual_seed(7)
    config = transformers.AutoConfig.for_model(family, **COMMON, **SHAPES[family])
    auto = transformers.AutoModelForSeq2SeqLM if family == "t5" else transformers.AutoModelForCausalLM
    model = auto.from_config(config, attn_implementation="eager").eval()  # sdpa leaves Gemma's softcapping out
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.dim() > 1:
                p.mul_(2.0 if family == "t5" else 8.0)
    model.save_pretrained(folder)
    return model


def random_settings(rng):
    """A generation_config.json: beams mostly, and some of what changes the scores."""
    settings = {"num_beams": rng.choice([1, 2, 3, 4, 6]), "eos_token_id": rng.choice([[EOS], [EOS, 17], [EOS, 17, 40]])}
    settings["max_new_tokens"] = rng.choice([1, 5, 12, 20])
    if settings["num_beams"] > 1:
        settings["num_return_sequences"] = rng.randint(1, settings["num_beams"])
        settings["length_penalty"] = rng.choice([1.0, 0.0, -1.0, 2.0, 0.6])
        settings["early_stopping"] = rng.choice([False, True, "never"])
        settings["renormalize_logits"] = rng.random() < 0.2
    some = {
        "repetition_penalty": lambda: rng.choice([0.8, 1.2, 1.5]),
        "no_repeat_ngram_size": lambda: rng.choice([1, 2, 3]),
        "min_new_tokens": lambda: rng.randint(1, settings["max_new_tokens"]),
        "min_length": lambda: rng.randint(1, 12),
        "bad_words_ids": lambda: [[rng.randrange(4, VOCABULARY) for _ in range(rng.choice([1, 1, 2]))] for _ in range(9)],
        "sequence_bias": lambda: [[[rng.randrange(4, VOCABULARY)], rng.uniform(-5, 5)] for _ in range(5)],
        "suppress_tokens": lambda: rng.sample(range(4, VOCABULARY), 5),
        "begin_suppress_tokens": lambda: rng.sample(range(4, VOCABULARY), 20),
        "forced_bos_token_id": lambda: rng.randrange(4, VOCABULARY),
        "forced_eos_token_id": lambda: EOS,
        "exponential_decay_length_penalty": lambda: [rng.randint(0, 5), rng.uniform(1.0, 1.3)],
    }
    for key in rng.sample(sorted(some), rng.choice([0, 0, 1, 2, 3])):
        settings[key] = some[key]()
    if "forced_bos_token_id" in settings:
        settings.pop("suppress_tokens", None)
    if "exponential_decay_length_penalty" in settings:  # of a forbidden eos transformers makes NaN
        for key in ("min_new_tokens", "min_length", "forced_bos_token_id", "no_repeat_ngram_size"):
            settings.pop(key, None)
    return settings


def expected(model, prompt, settings):
    """Of every returned sequence its new ids, and its score where there are beams."""
    out = model.generate(torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
                         do_sample=False, return_dict_in_generate=True, output_scores=True, **settings)
    begin = 1 if model.config.is_encoder_decoder else len(prompt)
    sequences = []
    for sequence in out.sequences[:, begin:].tolist():
        ends = [i for i, token in enumerate(sequence) if token in settings["eos_token_id"]]
        sequences.append(sequence[:ends[0] + 1] if ends else sequence)
    return sequences, out.sequences_scores.tolist() if settings["num_beams"] > 1 else [None] * len(sequences)


def compare(model, prompts, settings, answers):
    """What is different, as lines."""
    wrong, per_prompt = [], settings.get("num_return_sequences", 1)
    for p, prompt in enumerate(prompts):
        for s, (ids, score) in enumerate(zip(*expected(model, prompt, settings))):
            got = answers[p * per_prompt + s]
            if score is not None and score < -1e8:
                continue  # a beam that was never in the race: transformers gives its padding
            # A score is a sum of log-probabilities, whose size says how exact it can be, divided by a power of the length.
            size = max(1, sum(map(abs, got["logprobs"]))) / len(ids) ** settings.get("length_penalty", 1.0)
            far = score is not None and abs(got["score"] - score) > 5e-5 * size
            if got["ids"] != ids or far:
                wrong.append(f"prompt {p}, sequence {s}: {got['ids']} {got.get('score')}, expected {ids} {score}")
    return wrong


def main():
    transformers.logging.set_verbosity_error()
    warnings.simplefilter("ignore")  # lengths that cannot be reached
    torch.set_num_threads(1)
    rng = random.Random(1)
    failed = count = 0
    with tempfile.TemporaryDirectory(prefix="llmtk-generate-parity-") as folder:
        requests, models = [], {}
        for family in SHAPES:
            models[family] = make_model(family, pathlib.Path(folder) / family)
            for _ in range(SETTINGS * (3 if family in ("gpt2", "llama", "t5") else 1)):
                prompts = [[rng.randrange(4, VOCABULARY) for _ in range(rng.randint(1, 9))] for _ in range(3)]
                requests.append({"model": f"{folder}/{family}", "prompts": prompts, "config": random_settings(rng),
                                 "batch_size": rng.choice([1, 8, 16])})
        run = subprocess.run([TOOL], input="".join(json.dumps(r) + "\n" for r in requests), capture_output=True, text=True)
        if run.returncode:
            sys.exit(f"{TOOL}: {run.stderr}")
        for request, line in zip(requests, run.stdout.splitlines(), strict=True):
            family = pathlib.Path(request["model"]).name
            wrong = compare(models[family], request["prompts"], request["config"], json.loads(line))
            count += 1
            if wrong:
                failed += 1
                print(f"FAILED {family} {request['config']}, batch_size {request['batch_size']}", *wrong, sep="\n  ")
    print(f"{count} calls, {failed} failed")
    sys.exit(1 if failed else 0)


main()
