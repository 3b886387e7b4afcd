"""Vectors for rl_parity_test.cpp: reference.py FILE. What TRL's own trainers compute of random figures, with the gradients of
the sum of what they give; where TRL keeps a formula inside a training loop, plain PyTorch."""

import collections
import os
import sys
import types

os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from trl.experimental.orpo import ORPOTrainer
from trl.experimental.ppo.ppo_trainer import masked_mean, masked_whiten
from trl.trainer.dpo_trainer import DPOTrainer
from trl.trainer.grpo_trainer import GRPOTrainer
from trl.trainer.kto_trainer import KTOTrainer
from trl.trainer.reward_trainer import RewardTrainer

torch.manual_seed(0)
torch.set_num_threads(1)
OUT = {}
B, T, V = 6, 9, 23  # responses, tokens, vocabulary


class Accelerator:
    """One process: what is gathered is what was given."""

    num_processes, device = 1, torch.device("cpu")

    def gather(self, x):
        return x

    gather_for_metrics = gather

    def reduce(self, x, reduction):
        return x

    def unwrap_model(self, model):
        return model


def leaf(*shape, scale=1.0):
    return (torch.randn(*shape) * scale).requires_grad_()


def keep(name, inputs, values, leaves=()):
    """values: scalars or tensors; a tensor's gradient is that of its sum."""
    for key, tensor in inputs.items():
        OUT[f"{name}.{key}"] = tensor.detach().clone().contiguous()
    for key, tensor in values.items():
        OUT[f"{name}.{key}"] = torch.as_tensor(tensor).detach().float().clone().contiguous()
    if leaves:
        first = next(iter(values.values()))
        for key, gradient in zip(leaves, torch.autograd.grad(first.sum(), [inputs[key] for key in leaves])):
            OUT[f"{name}.grad.{key}"] = gradient.contiguous()


def trainer(**attributes):
    """What a TRL method asks of its trainer."""
    return types.SimpleNamespace(
        accelerator=Accelerator(), _metrics={"train": collections.defaultdict(list)}, aux_loss_enabled=False,
        _total_train_tokens=0, precompute_ref_logps=True, **attributes)


def lengths_mask():
    lengths = torch.tensor([T, 4, 1, 7, 2, T])
    return lengths, torch.arange(T)[None] < lengths[:, None]


# --- whitening, advantages, PPO ---

lengths, mask = lengths_mask()
values = torch.randn(B, T)
keep("whiten", {"values": values, "mask": mask},
     {"mean": masked_mean(values, mask), "whitened": masked_whiten(values, mask),
      "unshifted": masked_whiten(values, mask, shift_mean=False)})

old, ref = -torch.rand(B, T) * 3, -torch.rand(B, T) * 3
padding, behind = ~mask, ~(torch.arange(T)[None] < (lengths + 1)[:, None])
old, ref = old.masked_fill(padding, 1.0), ref.masked_fill(padding, 1.0)
old_values, scores = torch.randn(B, T).masked_fill(behind, 0), torch.randn(B)
for estimator in ("k1", "k3"):
    log_ratio = ref - old
    kl = -log_ratio if estimator == "k1" else (log_ratio.exp() - 1) - log_ratio
    rewards = -0.3 * kl
    end = torch.where(lengths < T, lengths, lengths - 1)
    rewards[torch.arange(B), end] += scores
    running, reversed_advantages = 0, []
    for t in reversed(range(T)):
        delta = rewards[:, t] + 0.98 * (old_values[:, t + 1] if t < T - 1 else 0.0) - old_values[:, t]
        running = delta + 0.98 * 0.9 * running
        reversed_advantages.append(running)
    advantages = torch.stack(reversed_advantages[::-1], axis=1)
    keep(f"rollout.{estimator}", {"old": old, "ref": ref, "values": old_values, "scores": scores, "last": lengths - 1},
         {"kl": kl, "rewards": rewards, "advantages": advantages, "returns": advantages + old_values})

new, value = (old + 0.3 * torch.randn(B, T)).requires_grad_(), (old_values + 0.3 * torch.randn(B, T)).requires_grad_()
advantages = masked_whiten(advantages, mask).masked_fill(padding, 0)
ratio = (new.masked_fill(padding, 1.0) - old).exp()
plain, clipped = -advantages * ratio, -advantages * ratio.clamp(0.8, 1.2)
keep("ppo.policy", {"new": new, "old": old, "advantages": advantages, "mask": mask},
     {"loss": masked_mean(torch.max(plain, clipped), mask), "clipfrac": masked_mean((clipped > plain).float(), mask),
      "approxkl": 0.5 * masked_mean((new - old) ** 2, mask), "ratio": masked_mean(ratio, mask)}, ["new"])
returns = torch.randn(B, T)
near = torch.clamp(value, old_values - 0.2, old_values + 0.2)
plain, clipped = (value - returns) ** 2, (near - returns) ** 2
keep("ppo.value", {"new": value, "old": old_values, "returns": returns, "mask": ~behind},
     {"loss": 0.5 * masked_mean(torch.max(plain, clipped), ~behind), "clipfrac": masked_mean((clipped > plain).float(), ~behind)},
     ["new"])

# --- GRPO: TRL's loss on given log-probabilities ---

rewards = torch.tensor([1.0, 0.0, 0.5, 2.0, 2.0, 2.0])
groups = rewards.view(-1, 3)
for scale in ("group", "batch", "none"):
    deviation = {"group": groups.std(1).repeat_interleave(3), "batch": rewards.std(), "none": None}[scale]
    centred = rewards - groups.mean(1).repeat_interleave(3)
    keep(f"group.{scale}", {"rewards": rewards}, {"advantages": centred if deviation is None else centred / (deviation + 1e-4)})

for loss_type in ("grpo", "bnpo", "dr_grpo", "dapo", "two_sided", "sequence"):
    new, advantage = (old + 0.4 * torch.randn(B, T)).requires_grad_(), torch.randn(B)
    beta = 0.0 if loss_type == "bnpo" else 0.04
    kind = {"two_sided": "dapo", "sequence": "grpo"}.get(loss_type, loss_type)
    policy = trainer(loss_type=kind, beta=beta, epsilon_low=0.2, epsilon_high=0.28, top_entropy_quantile=1.0,
                     off_policy_mask_threshold=None, use_vllm=False, max_completion_length=T, tools=None,
                     importance_sampling_level="sequence" if loss_type == "sequence" else "token",
                     current_gradient_accumulation_steps=1, _entropy_bonus_enabled=False,
                     model=types.SimpleNamespace(training=True), vllm_importance_sampling_correction=False,
                     args=types.SimpleNamespace(delta=1.5 if loss_type == "two_sided" else None, steps_per_generation=1,
                                                use_bias_correction_kl=False))
    policy._get_per_token_logps_and_entropies = lambda *a, **k: (new, torch.zeros(B, T), None)
    inputs = {"prompt_ids": torch.ones(B, 2, dtype=torch.long), "prompt_mask": torch.ones(B, 2), "advantages": advantage,
              "completion_ids": torch.ones(B, T, dtype=torch.long), "completion_mask": mask.long(),
              "old_per_token_logps": old, "ref_per_token_logps": ref, "num_items_in_batch": mask.sum()}
    loss = GRPOTrainer._compute_loss(policy, None, inputs)
    found = policy._metrics["train"]
    keep(f"grpo.{loss_type}", {"new": new, "old": old, "ref": ref, "advantages": advantage, "mask": mask},
         {"loss": loss, "low": found["clip_ratio/low_mean"][0], "high": found["clip_ratio/high_mean"][0],
          **({"kl": found["kl"][0]} if beta else {})}, ["new"])

# --- preferences: TRL's losses of a model that gives these logits, beside what they are in log-probabilities ---

prompt, total = 3, 3 + T
ids = torch.randint(V, (2 * B, total))
completion = torch.zeros(2 * B, total, dtype=torch.long)
completion[:, prompt:] = torch.cat([mask, mask.flip(0)]).long()
reference_logps = -torch.rand(2 * B) * 12


def logps(logits):
    found = logits[:, :-1].log_softmax(-1).gather(2, ids[:, 1:, None]).squeeze(2)
    return (found * completion[:, 1:]).sum(1)


CASES = {"sigmoid": ("sigmoid", 0.1, 0.0), "hinge": ("hinge", 0.1, 0.0), "ipo": ("ipo", 0.3, 0.0),
         "robust": ("robust", 0.2, 0.1)}
for name, (loss_type, beta, smoothing) in CASES.items():
    logits = leaf(2 * B, total, V)
    policy = trainer(loss_types=[loss_type], loss_weights=[1.0], beta=beta, label_smoothing=smoothing, ld_alpha=None,
                     f_divergence_type="reverse_kl", use_weighting=False, model=types.SimpleNamespace(training=True))
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "completion_mask": completion,
              "ref_chosen_logps": reference_logps[:B], "ref_rejected_logps": reference_logps[B:]}
    loss = DPOTrainer._compute_loss(policy, lambda **k: types.SimpleNamespace(logits=logits), inputs, False)
    ratios = (logps(logits) - reference_logps).detach()
    # The gradient in the answers' log-probabilities: that in the logits, as the chain rule takes it there.
    gradient, = torch.autograd.grad(loss, logits)
    chain = torch.stack([torch.autograd.grad(logps(logits)[i], logits)[0][i].flatten() for i in range(2 * B)])
    slopes = (gradient.flatten(1) * chain).sum(1) / (chain * chain).sum(1)
    found = policy._metrics["train"]
    keep(f"dpo.{name}", {"chosen": ratios[:B], "rejected": ratios[B:], "lengths": completion.sum(1)},
         {"loss": loss, "grad.chosen": slopes[:B], "grad.rejected": slopes[B:],
          "margin": found["rewards/margins"][0], "accuracy": found["rewards/accuracies"][0]})

chosen, rejected = leaf(B), leaf(B)
keep("dpo.conservative", {"chosen": chosen, "rejected": rejected},
     {"loss": (-0.8 * F.logsigmoid(0.1 * (chosen - rejected)) - 0.2 * F.logsigmoid(0.1 * (rejected - chosen))).mean()},
     ["chosen", "rejected"])

labels = torch.tensor([True, False, False, True, True, False] * 2)
logits, kl_logits = leaf(2 * B, total, V), torch.randn(2 * B, total, V)
reference_kl = -torch.rand(2 * B) * 12 - 25
policy = trainer(loss_type="kto", beta=0.2, desirable_weight=1.3, undesirable_weight=0.7, calculate_KL=True,
                 model=types.SimpleNamespace(training=True))
policy._compute_kl_logps = lambda model, batch: logps(kl_logits)
inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "completion_mask": completion, "label": labels,
          "ref_logps": reference_logps, "ref_KL_logps": reference_kl}
loss = KTOTrainer._compute_loss(policy, lambda **k: types.SimpleNamespace(logits=logits), inputs, False)
keep("kto", {"ratios": (logps(logits) - reference_logps), "labels": labels, "mismatched": logps(kl_logits) - reference_kl},
     {"loss": loss, "kl": policy._metrics["train"]["kl"][0]})

chosen, rejected = (-torch.rand(B) * 3).requires_grad_(), (-torch.rand(B) * 3).requires_grad_()
with torch.no_grad():
    chosen[0], rejected[1] = -1e-4, -40.0
losses, *_, mean = ORPOTrainer.odds_ratio_loss(trainer(beta=0.1), chosen, rejected)
keep("orpo", {"chosen": chosen, "rejected": rejected}, {"loss": -losses.mean(), "log_odds": mean}, ["chosen", "rejected"])

for name, coefficient, margin in (("plain", None, None), ("margin", 0.01, torch.rand(B))):
    rewards = leaf(2 * B)
    policy = trainer(args=types.SimpleNamespace(center_rewards_coefficient=coefficient),
                     model=types.SimpleNamespace(training=True))
    inputs = {"attention_mask": torch.ones(2 * B, 3)} | ({} if margin is None else {"margin": margin})
    loss = RewardTrainer.compute_loss(policy, lambda **k: types.SimpleNamespace(logits=rewards[:, None]), inputs)
    keep(f"reward.{name}", {"rewards": rewards} | ({} if margin is None else {"margin": margin}), {"loss": loss}, ["rewards"])

save_file(OUT, sys.argv[1])
