"""Bottleneck adapters against AdapterHub's package: models and adapters are made there, opened and saved here, and opened there again.

The package wants a transformers of its own, so that the peers do not have it and the test is skipped with them. By hand, in an
environment with adapters==1.3.0, torch and safetensors: LLMTK_BIN=build/release/bin python tests/peft/adapterhub_check.py
"""

import os
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

try:
    import adapters
except ImportError:
    print("SKIPPED: AdapterHub's package `adapters` is not here")
    sys.exit(77)
import torch
import transformers
from safetensors.torch import load_file, save_file

warnings.filterwarnings("ignore")
transformers.logging.set_verbosity_error()
torch.set_num_threads(1)

SHAPE = dict(vocab_size=61, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
             max_position_embeddings=48)
HOULSBY = dict(mh_adapter=True, output_adapter=True, reduction_factor=5, non_linearity="swish")
PFEIFFER = dict(mh_adapter=False, output_adapter=True, reduction_factor=16, non_linearity="relu", scaling=2.0,
                leave_out=[0])
MODELS = {
    "bert": lambda: transformers.BertForSequenceClassification(transformers.BertConfig(**SHAPE, num_labels=3)),
    "roberta": lambda: transformers.RobertaForTokenClassification(transformers.RobertaConfig(**SHAPE, num_labels=3)),
    "llama": lambda: transformers.LlamaForCausalLM(transformers.LlamaConfig(**SHAPE, num_key_value_heads=2)),
    "mistral": lambda: transformers.MistralForCausalLM(transformers.MistralConfig(**SHAPE, num_key_value_heads=2)),
    "gpt2": lambda: transformers.GPT2LMHeadModel(transformers.GPT2Config(
        vocab_size=61, n_embd=32, n_layer=2, n_head=4, n_positions=48)),
    "t5": lambda: transformers.T5ForConditionalGeneration(transformers.T5Config(
        vocab_size=61, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4, decoder_start_token_id=0)),
}


def answer(model, inputs):
    with torch.no_grad():
        return model(**inputs).logits


def make(folder):
    for name, model_of in MODELS.items():
        for kind, settings in (("houlsby", HOULSBY), ("pfeiffer", PFEIFFER)):
            torch.manual_seed(3)
            to = folder / f"{name}.{kind}"
            model = model_of().eval()
            for p in model.parameters():
                if p.dim() > 1:
                    p.data = 0.15 * torch.randn(p.shape)
            model.save_pretrained(to / "base")
            adapters.init(model)
            model.add_adapter("mine", config=adapters.BnConfig(**settings))
            model.set_active_adapters("mine")
            for n, p in model.named_parameters():
                if ".adapters." in n:
                    p.data = 0.3 * torch.randn(p.shape)
            model.save_adapter(str(to / "adapter"), "mine", use_safetensors=True)
            inputs = dict(input_ids=torch.randint(3, 61, (2, 7)))
            if name == "t5":
                inputs["decoder_input_ids"] = torch.randint(3, 61, (2, 4))
            save_file(inputs | dict(logits=answer(model.eval(), inputs).contiguous()), to / "reference.safetensors")


def check(folder):
    folders = sorted(p.parent for p in folder.glob("*/saved"))
    assert len(folders) == 2 * len(MODELS), folders
    for case in folders:
        reference = load_file(case / "reference.safetensors")
        model = MODELS[case.name.split(".")[0]]()
        model = type(model).from_pretrained(case / "base")
        adapters.init(model)
        name = model.load_adapter(str(case / "saved"), use_safetensors=True)
        model.set_active_adapters(name)
        expected = reference.pop("logits")
        error = (answer(model.eval(), reference) - expected).abs().max() / expected.abs().max()
        assert error < 5e-5, f"{case.name}: logits differ by {error:.1e}"
    print(f"{len(folders)} adapters saved here open in AdapterHub's package with equal logits")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        make(Path(made))
        program = Path(os.environ["LLMTK_BIN"]).parent / "tests" / "test_peft_methods"
        subprocess.run([program, "AdapterHub*"], check=True, env={**os.environ, "LLMTK_ADAPTERHUB": made})
        check(Path(made))
