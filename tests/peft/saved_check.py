"""Opens what lora_parity_test.cpp saved, with peft: saved_check.py FOLDER. The logits must be those of the reference."""

import sys
import warnings
from pathlib import Path

import torch
import transformers
from peft import PeftModel
from safetensors.torch import load_file

torch.set_num_threads(1)
transformers.logging.set_verbosity_error()


def main(folder):
    checked = 0
    for case in sorted(folder.iterdir()):
        if not (case / "saved").is_dir():
            continue
        auto = {"bert": transformers.AutoModelForSequenceClassification,
                "roberta": transformers.AutoModelForTokenClassification,
                "t5": transformers.AutoModelForSeq2SeqLM}.get(case.name.split("_")[0], transformers.AutoModelForCausalLM)
        if case.name.endswith("_classes"):
            auto = transformers.AutoModelForSequenceClassification
        base = auto.from_pretrained(case / "base", attn_implementation="eager")
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            model = PeftModel.from_pretrained(base, case / "saved").eval()
        missing = [str(w.message) for w in said if "missing" in str(w.message) or "unexpected" in str(w.message)]
        assert not missing, (case.name, missing)
        reference = load_file(case / "reference.safetensors")
        inputs = {"input_ids": reference["input_ids"]}
        if case.name in ("t5", "t5_dora"):
            inputs["decoder_input_ids"] = reference["decoder_input_ids"]
        with torch.no_grad():
            got = model(**inputs).logits
        error = (got - reference["logits"]).abs().max() / reference["logits"].abs().max()
        assert error < 5e-5, (case.name, error)
        keys = set(load_file(case / "saved" / "adapter_model.safetensors"))
        theirs = set(load_file(case / "adapter" / "adapter_model.safetensors"))
        extra = {k for k in theirs - keys if ".original_module." not in k and ".modules_to_save." not in k
                 and not k.endswith(("embed_tokens.base_layer.weight", "lm_head.base_layer.weight"))}
        assert keys <= theirs and not extra, (case.name, keys - theirs, extra)
        checked += 1
    assert checked >= 23, checked
    print(f"{checked} adapters open in peft")


main(Path(sys.argv[1]))
