"""Opens in transformers what t5_test.cpp saved, and compares the logits: t5_saved_check.py FOLDER."""

import sys
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file
from transformers import T5ForConditionalGeneration

transformers.logging.set_verbosity_error()
folder = Path(sys.argv[1])
checked = 0
for reference in sorted(folder.glob("*/reference.safetensors")):
    case = reference.parent.name
    expected = load_file(reference)
    model, info = T5ForConditionalGeneration.from_pretrained(folder / "saved" / case, output_loading_info=True)
    assert not any(info[k] for k in ("missing_keys", "unexpected_keys", "mismatched_keys")), (case, info)
    with torch.no_grad():
        logits = model.eval()(expected["input_ids"], decoder_input_ids=expected["decoder_input_ids"]).logits
    error = (logits - expected["logits"]).abs().max() / expected["logits"].abs().max()
    assert error < 5e-5, f"{case}: logits differ by {error}"
    checked += 1
assert checked >= 4, checked
print(f"{checked} saved models opened with the same logits")
