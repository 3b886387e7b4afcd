"""Opens with peft what methods_parity_test.cpp saved: methods_saved_check.py FOLDER. The logits must be the same."""

import json
import sys
import warnings
from pathlib import Path

import peft
import torch
import transformers
from safetensors.torch import load_file

from methods_reference import CLASSES, P, attention

warnings.filterwarnings("ignore")
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()


def check(folder):
    case = json.loads((folder / "case.json").read_text())
    reference = load_file(folder / "reference.safetensors")
    expected = load_file(folder / "saved_logits.safetensors")["logits"]
    base = CLASSES[case["task"]].from_pretrained(folder / "base", **attention(case["family"]))
    model = peft.PeftModel.from_pretrained(base, folder / "saved").eval()
    given = {k: reference[k] for k in ("input_ids", "attention_mask", "decoder_input_ids") if k in reference}
    if case["task"] == "CAUSAL_LM" and case["method"] in ("prefix", "projection"):
        given["position_ids"] = (given["attention_mask"].cumsum(1) - 1).clamp(min=0)
    with torch.no_grad():
        logits = model(**given).logits
    if logits.dim() == 3 and logits.shape[1] == given["input_ids"].shape[1] + P:
        logits = logits[:, P:]
    if logits.shape[:2] == given["attention_mask"].shape:
        real = given["attention_mask"].unsqueeze(2)
        logits, expected = logits * real, expected * real
    error = (logits - expected).abs().max() / expected.abs().max()
    assert error < 5e-5, f"{folder.name}: logits differ by {error:.1e}"


folders = sorted(p.parent for p in Path(sys.argv[1]).glob("*/saved"))
assert len(folders) >= 43, f"only {len(folders)} cases were saved"
for folder in folders:
    check(folder)
print(f"{len(folders)} adapters saved here open in peft with equal logits")
