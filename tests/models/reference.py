"""Makes the models that parity_test.cpp compares with: reference.py FOLDER.

Small random models of transformers, one folder per case as save_pretrained writes it, and beside each a
reference.safetensors: inputs, logits, loss, every gradient, and the weights after 20 steps of torch.optim.AdamW.
"""

import json
import sys
from pathlib import Path

import torch
import transformers
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM

torch.set_num_threads(2)
transformers.logging.set_verbosity_error()

GPT2 = dict(model_type="gpt2", vocab_size=97, n_positions=64, n_embd=48, n_layer=3, n_head=4,
            resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=1, eos_token_id=2)
GPT = dict(GPT2, model_type="openai-gpt")
LLAMA = dict(model_type="llama", vocab_size=101, hidden_size=48, intermediate_size=80, num_hidden_layers=3,
             num_attention_heads=4, num_key_value_heads=4, max_position_embeddings=64, rms_norm_eps=1e-5)


LONGROPE = dict(short_factor=[1.0, 1.1, 1.2, 1.4, 1.7, 2.0], long_factor=[1.5, 2.0, 3.0, 4.0, 6.0, 9.0])


def rope(rope_type, **more):
    return dict(rope_parameters=dict(rope_type=rope_type, rope_theta=10000.0, **more))


CASES = {
    "gpt2": GPT2,
    "gpt2_untied": dict(GPT2, tie_word_embeddings=False, activation_function="gelu", n_inner=100),
    "gpt2_scaled_by_layer": dict(GPT2, scale_attn_by_inverse_layer_idx=True, activation_function="relu"),
    "openai_gpt": GPT,
    "llama": LLAMA,
    "llama_gqa_tied": dict(LLAMA, num_key_value_heads=2, tie_word_embeddings=True, **rope("default") | {
        "rope_parameters": {"rope_type": "default", "rope_theta": 500000.0}}),
    "llama_mqa_biases": dict(LLAMA, num_key_value_heads=1, attention_bias=True, mlp_bias=True),
    "llama_head_dim": dict(LLAMA, head_dim=20, num_key_value_heads=2, hidden_act="gelu_pytorch_tanh"),
    "llama_rope_linear": dict(LLAMA, **rope("linear", factor=4.0)),
    "llama_rope_dynamic": dict(LLAMA, max_position_embeddings=16, **rope("dynamic", factor=4.0)),
    "llama_rope_llama3": dict(LLAMA, **rope("llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                                            original_max_position_embeddings=32)),
    "llama_rope_yarn": dict(LLAMA, **rope("yarn", factor=4.0, original_max_position_embeddings=16)),
    "llama_rope_longrope": dict(LLAMA, **rope("longrope", original_max_position_embeddings=16,
                                              attention_factor=1.0, **LONGROPE)),
    "llama_rope_longrope_short": dict(LLAMA, **rope("longrope", factor=4.0,
                                                    original_max_position_embeddings=512, **LONGROPE)),
    # Factor and attention factor from the two lengths; the original length beside the other sizes, as Phi-3 has it.
    "llama_rope_longrope_inferred": dict(LLAMA, **rope("longrope", original_max_position_embeddings=16, **LONGROPE)),
    "llama_rope_longrope_outside": dict(LLAMA, original_max_position_embeddings=16, **rope("longrope", **LONGROPE)),
    "llama_rope_longrope_inferred_short": dict(LLAMA, **rope("longrope", original_max_position_embeddings=512,
                                                             **LONGROPE)),
    "llama_rope_yarn_inferred": dict(LLAMA, **rope("yarn", factor=None, original_max_position_embeddings=128)),
    "llama_rope_proportional": dict(LLAMA, **rope("proportional", factor=2.0, partial_rotary_factor=0.5)),
}


def randomize(model, generator):
    """Weights large enough that attention is far from uniform; norms and biases away from 1 and 0."""
    with torch.no_grad():
        for name, p in model.named_parameters():
            noise = torch.randn(p.shape, generator=generator)
            if p.dim() == 1:
                p.copy_(noise * 0.1 + (0.0 if name.endswith("bias") else 1.0))
            else:
                p.copy_(noise * 0.15)


def main(folder):
    for number, (case, settings) in enumerate(CASES.items()):
        settings = dict(settings)
        generator = torch.Generator().manual_seed(1000 + number)
        config = AutoConfig.for_model(settings.pop("model_type"), **settings)
        # Eager attention: in the fused one padded queries differ, and here they should not matter.
        model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
        randomize(model, generator)
        target = folder / case
        model.save_pretrained(target)

        B, T, V = 3, 24, config.vocab_size
        ids = torch.randint(3, V, (B, T), generator=generator)
        out = {"input_ids": ids}
        result = model(ids, labels=ids, output_hidden_states=True, output_attentions=True, use_cache=False)
        out["logits"], out["loss"] = result.logits, result.loss
        out["hidden_first"], out["hidden_last"] = result.hidden_states[0], result.hidden_states[-1]
        out["attention_last"] = result.attentions[-1]
        result.loss.backward()
        for name, p in model.named_parameters():
            out["grad." + name] = p.grad.clone()

        with torch.no_grad():
            # Padding on the left, with the positions that generation gives; openai-gpt takes them as an argument too.
            lengths = [T, T - 5, T - 11]
            mask = torch.zeros(B, T, dtype=torch.long)
            for row, n in enumerate(lengths):
                mask[row, T - n:] = 1
            positions = (mask.cumsum(1) - 1).clamp(min=0)
            out["padded_mask"] = mask
            out["padded_logits"] = model(ids, attention_mask=mask, position_ids=positions, use_cache=False).logits
            # Two texts in a row, as each of them alone.
            cut = 10
            out["packed_positions"] = torch.cat([torch.arange(cut), torch.arange(T - cut)]).expand(B, T).contiguous()
            out["packed_logits"] = torch.cat([model(ids[:, :cut]).logits, model(ids[:, cut:]).logits], 1)

        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95), eps=1e-6, weight_decay=0.1)
        for _ in range(20):
            optimizer.zero_grad()
            model(ids, labels=ids, use_cache=False).loss.backward()
            optimizer.step()
        for name, p in model.named_parameters():
            out["after." + name] = p.detach()
        save_file({k: v.detach().clone().contiguous() for k, v in out.items()}, target / "reference.safetensors")

    # The same numbers as version 4 of transformers spells them in config.json.
    case = folder / "llama_rope_llama3"
    config = json.loads((case / "config.json").read_text())
    scaling = config.pop("rope_parameters")
    config["rope_theta"] = scaling.pop("rope_theta")
    config["rope_scaling"] = scaling
    config["torch_dtype"] = config.pop("dtype")
    (folder / "llama_config_v4.json").write_text(json.dumps(config))


main(Path(sys.argv[1]))
