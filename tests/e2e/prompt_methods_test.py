"""--adapter with prefix tuning, prompt tuning and (IA)^3 that peft saved, on small random models: what comes out is what peft gives."""

import json
import pathlib
import tempfile
import warnings

import torch
import transformers
from peft import IA3Config, PeftModel, PrefixTuningConfig, PromptTuningConfig, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from support import json_lines, main, make_bert, make_model, run

warnings.filterwarnings("ignore")
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()
FOLDER = pathlib.Path(tempfile.mkdtemp(prefix="llmtk-e2e-prompts-"))
GPT2, LLAMA = FOLDER / "gpt2", FOLDER / "llama"
TOKENIZERS = {GPT2: make_model(GPT2, "gpt2")[1], LLAMA: make_model(LLAMA, "llama", seed=1)[1]}
PROMPTS = ["The quick brown", "床前明月光，"]


def make_adapter(name, base, config, model_class=AutoModelForCausalLM):
    """A random adapter on the base, as peft saves it."""
    model = get_peft_model(model_class.from_pretrained(base), config)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for p in model.parameters():
            if p.requires_grad:
                p.add_(torch.randn(p.shape, generator=generator) * 0.4)
    model.save_pretrained(FOLDER / name)
    return FOLDER / name


def test_generate_writes_what_peft_writes():
    prefix, prompt, ia3 = PrefixTuningConfig, PromptTuningConfig, IA3Config
    for base, name, config in ((LLAMA, "prefix", prefix(task_type="CAUSAL_LM", num_virtual_tokens=6)),
                               (GPT2, "prompt", prompt(task_type="CAUSAL_LM", num_virtual_tokens=4)),
                               (GPT2, "ia3", ia3(task_type="CAUSAL_LM"))):
        adapter = make_adapter(name, base, config)
        reference = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapter).eval()
        prompts = [word for prompt in PROMPTS for word in ("--prompt", prompt)]
        for beams in (1, 3):
            found = json_lines(run("generate", base, "--adapter", adapter, *prompts, "--max-new-tokens", 12,
                                   "--num-beams", beams, "--json"))
            for prompt, got in zip(PROMPTS, found):
                ids = TOKENIZERS[base](prompt, return_tensors="pt").input_ids
                expected = reference.generate(input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=12,
                                              do_sample=False, num_beams=beams, pad_token_id=0)
                assert got["ids"] == expected[0, ids.shape[1]:].tolist(), (name, beams, prompt)


def test_such_an_adapter_stands_alone():
    adapter = make_adapter("alone", GPT2, PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4))
    for flags in (["--adapter", f"{adapter}=0.5"], ["--adapter", adapter, "--adapter", adapter]):
        assert "alone" in run("generate", GPT2, *flags, "--prompt", "The", exit=2)[1]
    assert "as the model has it" in run("generate", LLAMA, "--adapter", adapter, "--prompt", "The", exit=5)[1]


def test_a_classifier_s_head_comes_with_its_prefix():
    base = FOLDER / "bert"
    _, tokenizer = make_bert(base, "MaskedLM", labels=("a", "b", "c"))
    opened = transformers.AutoModelForTokenClassification
    adapter = make_adapter("tagger", base, PrefixTuningConfig(task_type="TOKEN_CLS", num_virtual_tokens=5), opened)
    inputs = tokenizer("the quick fox", return_tensors="pt")
    with torch.no_grad():
        expected = PeftModel.from_pretrained(opened.from_pretrained(base), adapter).eval()(**inputs).logits
    target = FOLDER / "tagger.safetensors"
    run("inspect", "logits", base, "--adapter", adapter, "--prompt", "the quick fox", "--output", target)
    got = load_file(target)["logits"].view_as(expected)
    assert (got - expected).abs().max() < 5e-5 * expected.abs().max()


main(globals())
