"""Makes the classifiers that classifier_parity_test.cpp compares with: classifier_reference.py FOLDER.

Small random ...ForSequenceClassification of transformers over every family of decoders and T5, a folder each as
save_pretrained writes it; base/ in it, the language model with the same layers; and reference.safetensors: rows of unequal
lengths, logits, loss, every gradient, and of decoders the scores of all tokens.
"""

import sys
from pathlib import Path

import torch
import transformers
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoModelForSequenceClassification

torch.set_num_threads(1)
transformers.logging.set_verbosity_error()

LLAMA = dict(model_type="llama", vocab_size=71, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
             num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=48, pad_token_id=2)
GEMMA = dict(LLAMA, head_dim=8, query_pre_attn_scalar=8, sliding_window=6, pad_token_id=0)
GPT2 = dict(model_type="gpt2", vocab_size=71, n_positions=48, n_embd=32, n_layer=2, n_head=4, resid_pdrop=0.0,
            embd_pdrop=0.0, attn_pdrop=0.0, pad_token_id=0)
SEVERAL, QUANTITY = "multi_label_classification", "regression"
NAMES = dict(id2label={0: "坏", 1: "so so", 2: "好"}, label2id={"坏": 0, "so so": 1, "好": 2})
CASES = {
    "llama": dict(LLAMA, **NAMES),
    "llama_reward": dict(LLAMA, num_labels=1, tie_word_embeddings=True),
    "mistral": dict(LLAMA, model_type="mistral", sliding_window=6, num_labels=4, problem_type=SEVERAL),
    "qwen2": dict(LLAMA, model_type="qwen2", num_labels=2, problem_type=QUANTITY),
    "qwen3": dict(LLAMA, model_type="qwen3", head_dim=16, num_labels=3),
    "gemma2": dict(GEMMA, model_type="gemma2", attn_logit_softcapping=3.0, num_labels=3),
    "gemma3_text": dict(GEMMA, model_type="gemma3_text", num_labels=3,
                        layer_types=["sliding_attention", "full_attention"]),
    "gpt2": dict(GPT2, num_labels=5),
    "openai_gpt": dict(GPT2, model_type="openai-gpt", num_labels=2),
    "gpt_neox": dict(model_type="gpt_neox", vocab_size=71, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
                     num_attention_heads=4, max_position_embeddings=48, pad_token_id=3, num_labels=3),
    "opt": dict(model_type="opt", vocab_size=71, hidden_size=32, ffn_dim=48, num_hidden_layers=2, num_attention_heads=4,
                max_position_embeddings=48, word_embed_proj_dim=20, do_layer_norm_before=False, dropout=0.0,
                num_labels=3),
    "t5": dict(model_type="t5", vocab_size=71, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4, dropout_rate=0.0,
               decoder_start_token_id=0, num_labels=3),
}
T, LENGTHS = 12, [12, 9, 4]


def randomize(model, generator):
    """Weights large enough that attention is far from uniform; norms and biases away from 1 and 0."""
    norm = 0.0 if model.config.model_type.startswith("gemma") else 1.0  # Gemma keeps the distance from 1
    for name, p in model.named_parameters():
        noise = torch.randn(p.shape, generator=generator)
        p.data = noise * 0.15 if p.dim() > 1 else noise * 0.1 + (0.0 if name.endswith("bias") else norm)


def rows(config, generator):
    """Padded on the right; a token that pads may stand at a text's end as well."""
    ids, mask = torch.randint(4, 71, (3, T), generator=generator), torch.ones(3, T, dtype=torch.long)
    for row, length in enumerate(LENGTHS):
        if config.model_type == "t5":
            ids[row, length - 1] = config.eos_token_id
        ids[row, length:], mask[row, length:] = config.pad_token_id, 0
    if config.model_type == "llama":
        ids[0, -1] = config.pad_token_id
    return ids, mask


def targets(config, generator):
    if config.problem_type == SEVERAL:
        return torch.randint(0, 2, (3, config.num_labels), generator=generator).float()
    if config.problem_type == QUANTITY or config.num_labels == 1:
        return torch.randn(3, config.num_labels, generator=generator)
    return torch.randint(0, config.num_labels, (3,), generator=generator)


def save_base(model, folder):
    """The language model with the classifier's layers."""
    t5 = model.config.model_type == "t5"
    base = (AutoModelForSeq2SeqLM if t5 else AutoModelForCausalLM).from_config(model.config)
    layers = {name.removeprefix("transformer.") if t5 else name: p for name, p in model.state_dict().items()}
    missing, _ = base.load_state_dict(layers, strict=False)
    assert all(name.split(".")[0] in ("lm_head", "embed_out") for name in missing), missing
    base.save_pretrained(folder)


def main(folder):
    for number, (case, settings) in enumerate(CASES.items()):
        settings = dict(settings)
        generator = torch.Generator().manual_seed(3000 + number)
        config = AutoConfig.for_model(settings.pop("model_type"), **settings)
        model = AutoModelForSequenceClassification.from_config(config, attn_implementation="eager").eval()
        randomize(model, generator)
        model.save_pretrained(folder / case)
        save_base(model, folder / case / "base")
        ids, mask = rows(config, generator)
        out = {"input_ids": ids, "attention_mask": mask, "targets": targets(config, generator)}
        result = model(ids, attention_mask=mask, labels=out["targets"])
        out |= {"logits": result.logits, "loss": result.loss}
        if hasattr(model, "score"):
            out["scores"] = model.score(model.base_model(ids, attention_mask=mask).last_hidden_state)
        result.loss.backward()
        out |= {"grad." + name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        save_file({k: v.detach().clone().contiguous() for k, v in out.items()}, folder / case / "reference.safetensors")


main(Path(sys.argv[1]))
