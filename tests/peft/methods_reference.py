"""Makes the models and adapters that methods_test.cpp compares with: methods_reference.py FOLDER.

A folder per case: base/ (a small random model of transformers), adapter/ (as peft saves one), and reference.safetensors with inputs,
logits, loss, the gradient of every trained tensor, the same after 20 steps of torch.optim.AdamW, and texts generated.
"""

import json
import sys
import warnings
from pathlib import Path

import peft
import torch
import transformers
from safetensors.torch import save_file

warnings.filterwarnings("ignore")
torch.set_num_threads(1)
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()

P, B, T = 5, 3, 8
LLAMA = dict(model_type="llama", vocab_size=61, hidden_size=32, intermediate_size=48, num_hidden_layers=3,
             num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=48)
GEMMA = dict(LLAMA, head_dim=8, query_pre_attn_scalar=8, sliding_window=6)
BERT = dict(model_type="bert", vocab_size=61, hidden_size=32, intermediate_size=48, num_hidden_layers=3,
            num_attention_heads=4, max_position_embeddings=48, num_labels=3, hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0)
CAUSAL = {
    "gpt2": dict(model_type="gpt2", vocab_size=61, n_positions=48, n_embd=32, n_layer=3, n_head=4, resid_pdrop=0.0,
                 embd_pdrop=0.0, attn_pdrop=0.0),
    "llama": LLAMA,
    "mistral": dict(LLAMA, model_type="mistral", sliding_window=6),
    "qwen3": dict(LLAMA, model_type="qwen3", head_dim=16),
    "gemma2": dict(GEMMA, model_type="gemma2", attn_logit_softcapping=3.0, final_logit_softcapping=4.0),
    "gemma3": dict(GEMMA, model_type="gemma3_text", layer_types=["sliding_attention", "full_attention"] * 2,
                   num_hidden_layers=4),
    "gpt_neox": dict(model_type="gpt_neox", vocab_size=61, hidden_size=32, intermediate_size=48, num_hidden_layers=3,
                     num_attention_heads=4, max_position_embeddings=48),
    "opt": dict(model_type="opt", vocab_size=61, hidden_size=32, ffn_dim=48, num_hidden_layers=3,
                num_attention_heads=4, max_position_embeddings=48, word_embed_proj_dim=32, dropout=0.0),
}
ROBERTA = dict(BERT, model_type="roberta", pad_token_id=1)
FAMILIES = {name: ("CAUSAL_LM", config) for name, config in CAUSAL.items()} | {
    "bert": ("SEQ_CLS", BERT),
    "bert_tokens": ("TOKEN_CLS", BERT),
    "roberta": ("SEQ_CLS", ROBERTA),
    "gpt2_classes": ("SEQ_CLS", dict(CAUSAL["gpt2"], num_labels=3, pad_token_id=0)),
    "llama_classes": ("SEQ_CLS", dict(LLAMA, num_labels=3, pad_token_id=0)),
    "t5": ("SEQ_2_SEQ_LM", dict(model_type="t5", vocab_size=61, d_model=32, d_kv=8, d_ff=48, num_layers=3,
                                num_heads=4, dropout_rate=0.0, decoder_start_token_id=0)),
}
METHODS = {
    "prefix": lambda **task: peft.PrefixTuningConfig(num_virtual_tokens=P, **task),
    "projection": lambda **task: peft.PrefixTuningConfig(num_virtual_tokens=P, prefix_projection=True,
                                                         encoder_hidden_size=24, **task),
    "prompt": lambda **task: peft.PromptTuningConfig(num_virtual_tokens=P, **task),
    "ia3": lambda **task: peft.IA3Config(**task),
}
CLASSES = {"CAUSAL_LM": transformers.AutoModelForCausalLM, "SEQ_2_SEQ_LM": transformers.AutoModelForSeq2SeqLM,
           "SEQ_CLS": transformers.AutoModelForSequenceClassification,
           "TOKEN_CLS": transformers.AutoModelForTokenClassification}


def attention(family):
    """Of transformers' attentions the eager one alone knows Gemma 2's soft cap."""
    return dict(attn_implementation="eager" if family == "gemma2" else "sdpa")


def randomize(base, generator):
    """Matrices large enough that attention is far from uniform."""
    for p in base.parameters():
        if p.dim() > 1:
            p.data = 0.15 * torch.randn(p.shape, generator=generator)


def randomize_trained(model, generator):
    for name, p in model.named_parameters():
        if p.requires_grad:
            noise = torch.randn(p.shape, generator=generator)
            p.data = 1 + 0.4 * noise if "ia3_l" in name else 0.5 * noise


def inputs(family, task, method, generator):
    """Rows padded on the right; where peft counts positions as it is told, one on the left too (but in a window: there the
    padding moves virtual tokens out of sight in transformers)."""
    ids = torch.randint(2, 61, (B, T), generator=generator)
    mask = torch.ones(B, T, dtype=torch.long)
    mask[1, 6:] = 0
    if family.endswith("_classes"):
        if method == "prompt":  # there transformers does not look for padding
            mask[:] = 1
        ids *= mask
    given = dict(input_ids=ids, attention_mask=mask)
    if task == "CAUSAL_LM" and method in ("prefix", "projection"):
        if "sliding_window" not in CAUSAL[family]:
            mask[2, :3] = 0
        given["position_ids"] = (mask.cumsum(1) - 1).clamp(min=0)
    if task == "SEQ_2_SEQ_LM":
        given["decoder_input_ids"] = torch.randint(2, 61, (B, T - 2), generator=generator)
    return given


def answer(model, given, method):
    """Logits; where prompt tuning gives some of its own tokens too, without those."""
    logits = model(**given).logits
    own = P if method == "prompt" and logits.dim() == 3 and "decoder_input_ids" not in given else 0
    return logits[:, own:]


def loss_of(logits, given, targets):
    losses = -logits.log_softmax(-1).gather(-1, targets.unsqueeze(-1)).squeeze(-1)
    real = given["attention_mask"] if losses.shape == given["attention_mask"].shape else torch.ones_like(losses)
    return (losses * real).sum() / real.sum()


def stored_name(name):
    return name.replace(".default", "").replace(".modules_to_save", "").removeprefix("base_model.model.").removeprefix(
        "base_model.")


def trained(model):
    return {stored_name(name): p for name, p in model.named_parameters() if p.requires_grad}


def generated(model, generator):
    """Texts of one prompt each, greedy and by 3 beams."""
    made = {}
    for i in range(2):
        prompt = torch.randint(2, 61, (1, 4 + i), generator=generator)
        made[f"prompt.{i}"] = prompt
        for beams in (1, 3):
            options = dict(max_new_tokens=7, min_new_tokens=7, do_sample=False, num_beams=beams, pad_token_id=0,
                           attention_mask=torch.ones_like(prompt))
            with torch.no_grad():
                made[f"text.{i}.{beams}"] = model.generate(input_ids=prompt, **options)
    return made


def make_case(folder, family, method, seed):
    task, values = FAMILIES[family]
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    values = dict(values)
    special = dict(bos_token_id=None, eos_token_id=None) if task == "CAUSAL_LM" else {}
    config = transformers.AutoConfig.for_model(values.pop("model_type"), **values, **special)
    base = CLASSES[task].from_config(config, **attention(family))
    randomize(base, generator)
    base.save_pretrained(folder / "base")
    model = peft.get_peft_model(base, METHODS[method](task_type=task))
    randomize_trained(model, generator)
    model.eval()
    model.save_pretrained(folder / "adapter")
    given = inputs(family, task, method, generator)
    logits = answer(model, given, method)
    targets = torch.randint(0, logits.shape[-1], logits.shape[:-1], generator=generator)
    reference = {k: v for k, v in given.items() if k != "position_ids"} | dict(logits=logits, targets=targets)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2, betas=(0.9, 0.95),
                                  eps=1e-6, weight_decay=0.1)
    if task in ("CAUSAL_LM", "SEQ_2_SEQ_LM") and method != "projection":
        reference |= generated(model, generator)
    for name, p in trained(model).items():
        reference["before." + name] = p.detach().clone()
    for step in range(20):
        optimizer.zero_grad()
        loss = loss_of(answer(model, given, method), given, targets)
        loss.backward()
        if step == 0:
            reference["loss"] = loss
            reference |= {"grad." + name: p.grad.clone() for name, p in trained(model).items()}
        optimizer.step()
    reference |= {"after." + name: p for name, p in trained(model).items()}
    save_file({k: v.detach().clone().contiguous() for k, v in reference.items()}, folder / "reference.safetensors")
    (folder / "case.json").write_text(json.dumps(dict(family=family, method=method, task=task)))


def cases():
    for family in FAMILIES:
        for method in ("prefix", "prompt", "ia3"):
            yield family, method
    yield "llama", "projection"


if __name__ == "__main__":
    for i, (family, method) in enumerate(cases()):
        make_case(Path(sys.argv[1]) / f"{family}.{method}", family, method, 100 + i)
