"""A batch of PPO for ppo_parity_test.cpp: ppo_reference.py FOLDER [whitened]. TRL's PPOTrainer learns from fixed responses with a policy, a
reference, a value model and a reward model of its own; what it computes on the way is written down."""

import json
import os
import pathlib
import subprocess
import sys

os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"

import datasets
import numpy
import torch
import transformers
from safetensors.torch import save_file
from tokenizers import Tokenizer, models
from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification, PreTrainedTokenizerFast
from trl.experimental.ppo import PPOConfig, PPOTrainer, ppo_trainer

FOLDER = pathlib.Path(sys.argv[1])
WHITENED = sys.argv[2:] == ["whitened"]  # rewards are, and the KL is k3; below FOLDER a run of its own
if not WHITENED:
    subprocess.run([sys.executable, __file__, FOLDER / "whitened", "whitened"], check=True)
FOLDER.mkdir(parents=True, exist_ok=True)
torch.set_num_threads(1)
datasets.disable_progress_bars()
transformers.logging.set_verbosity_error()
B, R, V, PAD, EOS = 6, 7, 37, 36, 35
SETTINGS = dict(num_ppo_epochs=3, num_mini_batches=2, kl_coef=0.2, temperature=0.8, gamma=0.98, lam=0.9, cliprange=0.02,
                vf_coef=0.5, cliprange_value=0.02, missing_eos_penalty=0.7, response_length=R,
                kl_estimator="k3" if WHITENED else "k1")

shape = dict(vocab_size=V, hidden_size=24, intermediate_size=40, num_hidden_layers=2, num_attention_heads=4,
             num_key_value_heads=2, max_position_embeddings=32, pad_token_id=PAD, eos_token_id=EOS, bos_token_id=EOS)


def made(kind, seed, **more):
    torch.manual_seed(seed)
    model = kind(LlamaConfig(**shape, **more))
    with torch.no_grad():
        for p in model.parameters():
            if p.dim() > 1:
                p.mul_(8)
    return model


policy, value, reward = (made(LlamaForCausalLM, 0), made(LlamaForSequenceClassification, 1, num_labels=1),
                         made(LlamaForSequenceClassification, 2, num_labels=1))
reference = made(LlamaForCausalLM, 0)
with torch.no_grad():
    for p in reference.parameters():
        p.add_(0.02 * torch.randn_like(p))
for name, model in {"policy": policy, "reference": reference, "value": value, "reward": reward}.items():
    model.save_pretrained(FOLDER / name)

words = {f"w{i}": i for i in range(V)}
tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel(words, unk_token="w0")), pad_token=f"w{PAD}",
                                    eos_token=f"w{EOS}", padding_side="left")
prompts = [torch.randint(0, EOS, (length,)).tolist() for length in (3, 5, 2, 5, 4, 1)]
lengths = torch.tensor([R, 3, 1, 5, R, 2])
responses = torch.randint(0, EOS, (B, R))
for i, length in enumerate(lengths):
    if length < R or i == 0:  # the fifth does not end
        responses[i, length - 1] = EOS
    responses[i, length:] = PAD
OUT, seen = {}, {"log_probs": [], "orders": [], "queries": []}


def batch_generation(model, queries, local_batch_size, pad, config):
    """As if these had been drawn: the logits come from a pass of their own."""
    both = torch.cat([queries, responses], 1)
    seen["queries"].append(queries)
    logits = ppo_trainer.forward(model, both, pad).logits[:, queries.shape[1] - 1 : -1] / (SETTINGS["temperature"] + 1e-7)
    return both, logits


def watched(function, keep):
    def call(*arguments, **named):
        result = function(*arguments, **named)
        keep(result, *arguments, **named)
        return result
    return call


ppo_trainer.batch_generation = batch_generation
ppo_trainer.selective_log_softmax = watched(ppo_trainer.selective_log_softmax, lambda r, *a, **k: seen["log_probs"].append(r.detach()))
ppo_trainer.masked_whiten = watched(ppo_trainer.masked_whiten, lambda r, *a, **k: OUT.update({"advantages": r, "plain_advantages": a[0]} if k.get("shift_mean", True) else {}))
ppo_trainer.get_reward = watched(ppo_trainer.get_reward, lambda r, model, *a, **k: OUT.update(
    {"scores": r[1]} if model is reward else {"values": r[0][:, seen["queries"][-1].shape[1] - 1 : -1, 0]}))
numpy.random.permutation = watched(numpy.random.permutation, lambda r, *a, **k: seen["orders"].append(r))

arguments = PPOConfig(output_dir=str(FOLDER / "trl"), per_device_train_batch_size=B, gradient_accumulation_steps=1,
                      total_episodes=B, learning_rate=0.02, optim="sgd", lr_scheduler_type="constant", report_to=[],
                      use_cpu=True, bf16=False, num_sample_generations=0, stop_token="eos", save_strategy="no",
                      disable_tqdm=True, gradient_checkpointing=False, **SETTINGS)
trainer = PPOTrainer(args=arguments, processing_class=tokenizer, model=policy, ref_model=reference, reward_model=reward,
                     value_model=value, train_dataset=datasets.Dataset.from_list([{"input_ids": ids} for ids in prompts]))
trainer.args.whiten_rewards = WHITENED  # that early it would ask for larger mini-batches
trainer.train()

queries = seen["queries"][0]
OUT["prompt_lengths"] = (queries != PAD).sum(1)
OUT["prompts"] = torch.stack([torch.cat([row[row != PAD], row[row == PAD]]) for row in queries])
OUT["responses"], OUT["lengths"] = responses, lengths
OUT["log_probs"], OUT["reference"] = seen["log_probs"][:2]
OUT["first_log_probs"] = seen["log_probs"][2]
OUT["orders"] = torch.tensor(numpy.stack(seen["orders"]))
for prefix, model in (("policy", policy), ("value", value)):
    for name, p in model.named_parameters():
        OUT[f"after.{prefix}.{name}"] = p.detach()
save_file({name: tensor.detach().clone().contiguous() for name, tensor in OUT.items()}, FOLDER / "trl.safetensors")
figures = next(entry for entry in trainer.state.log_history if "objective/kl" in entry)
(FOLDER / "figures.json").write_text(json.dumps(figures))
