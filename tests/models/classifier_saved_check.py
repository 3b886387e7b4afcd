"""Opens in transformers what classifier_parity_test.cpp saved, and compares the logits: classifier_saved_check.py FOLDER."""

import json
import sys
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file

transformers.logging.set_verbosity_error()
folder = Path(sys.argv[1])
checked = 0
for reference in sorted(folder.glob("*/reference.safetensors")):
    case = reference.parent.name
    saved = folder / "saved" / case
    config, original = (json.loads((path / "config.json").read_text()) for path in (saved, reference.parent))
    for key in ("architectures", "id2label", "label2id", "problem_type", "pad_token_id"):
        assert config.get(key) == original.get(key), (case, key, config.get(key), original.get(key))
    model, info = transformers.AutoModelForSequenceClassification.from_pretrained(
        saved, attn_implementation="eager", output_loading_info=True)
    assert not any(info[k] for k in ("missing_keys", "unexpected_keys", "mismatched_keys")), (case, info)
    expected = load_file(reference)
    with torch.no_grad():
        logits = model.eval()(expected["input_ids"], attention_mask=expected["attention_mask"]).logits
    error = (logits - expected["logits"]).abs().max() / expected["logits"].abs().max()
    assert error < 5e-5, f"{case}: logits differ by {error}"
    checked += 1
assert checked >= 12, checked
print(f"{checked} saved classifiers opened with the same logits")
