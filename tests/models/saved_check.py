"""Opens in transformers what parity_test.cpp saved, and compares the logits: saved_check.py FOLDER."""

import sys
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

transformers.logging.set_verbosity_error()
folder = Path(sys.argv[1])
checked = 0
for reference in sorted(folder.glob("*/reference.safetensors")):
    case = reference.parent.name
    saved = folder / "saved" / case
    assert saved.is_dir(), f"{saved} was not written"
    expected = load_file(reference)
    # Eager attention: the default one leaves out Gemma 2's soft cap.
    model, info = AutoModelForCausalLM.from_pretrained(saved, attn_implementation="eager", output_loading_info=True)
    assert not any(info[k] for k in ("missing_keys", "unexpected_keys", "mismatched_keys")), (case, info)
    assert model.dtype == torch.float32, model.dtype
    with torch.no_grad():
        logits = model.eval()(expected["input_ids"]).logits
    error = (logits - expected["logits"]).abs().max() / expected["logits"].abs().max()
    assert error < 5e-5, f"{case}: logits differ by {error}"
    checked += 1
assert checked >= 10, checked
print(f"{checked} saved models opened with the same logits")
