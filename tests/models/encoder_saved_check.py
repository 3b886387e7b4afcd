"""Opens in transformers what encoder_parity_test.cpp saved, and compares what it says: encoder_saved_check.py FOLDER."""

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
    for key in ("architectures", "id2label", "label2id", "problem_type"):
        assert config.get(key) == original.get(key), (case, key, config.get(key), original.get(key))
    model_class = getattr(transformers, config["architectures"][0])
    model, info = model_class.from_pretrained(saved, output_loading_info=True)
    assert not any(info[k] for k in ("missing_keys", "unexpected_keys", "mismatched_keys")), (case, info)
    assert model.dtype == torch.float32, model.dtype
    assert not (saved / "generation_config.json").exists()
    expected = load_file(reference)
    with torch.no_grad():
        result = model.eval()(expected["input_ids"], token_type_ids=expected["token_type_ids"])
    answers = result.logits if "logits" in result else result.pooler_output
    error = (answers - expected["answers"]).abs().max() / expected["answers"].abs().max()
    assert error < 5e-5, f"{case}: answers differ by {error}"
    checked += 1
assert checked >= 10, checked
print(f"{checked} saved encoders opened with the same answers")
