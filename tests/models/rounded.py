"""Weights in half precision, as most published models have them, for the reference scripts."""

import copy

import torch


def rounded(model, folder, answers):
    """Saves the model in bfloat16 and in float16 below `folder`. Gives what `answers(model)` is of each, computed in float32
    of the rounded weights, as {"bfloat16": tensor, "float16": tensor}."""
    found = {}
    for dtype in ("bfloat16", "float16"):
        copy.deepcopy(model).to(getattr(torch, dtype)).save_pretrained(folder / dtype)
        # Opened again: what a model computes of its config, such as rotary frequencies, is not rounded.
        wide = type(model).from_pretrained(folder / dtype, dtype=torch.float32, attn_implementation="eager").eval()
        with torch.no_grad():
            found[dtype] = answers(wide)
    return found
