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

from rounded import rounded

torch.set_num_threads(1)  # models this small gain nothing from more
transformers.logging.set_verbosity_error()

GPT2 = dict(model_type="gpt2", vocab_size=97, n_positions=64, n_embd=48, n_layer=3, n_head=4,
            resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=1, eos_token_id=2)
GPT = dict(GPT2, model_type="openai-gpt")
LLAMA = dict(model_type="llama", vocab_size=101, hidden_size=48, intermediate_size=80, num_hidden_layers=3,
             num_attention_heads=4, num_key_value_heads=4, max_position_embeddings=64, rms_norm_eps=1e-5)


MISTRAL = dict(LLAMA, model_type="mistral", num_key_value_heads=2)
QWEN2 = dict(LLAMA, model_type="qwen2", num_key_value_heads=2)
QWEN3 = dict(LLAMA, model_type="qwen3", num_key_value_heads=2, head_dim=16)
GEMMA2 = dict(model_type="gemma2", vocab_size=101, hidden_size=48, intermediate_size=80, num_hidden_layers=3,
              num_attention_heads=4, num_key_value_heads=2, head_dim=16, max_position_embeddings=64,
              query_pre_attn_scalar=24, sliding_window=7, attn_logit_softcapping=3.0, final_logit_softcapping=4.0)
GEMMA3 = dict(GEMMA2, model_type="gemma3_text", num_hidden_layers=4, attn_logit_softcapping=None,
              final_logit_softcapping=None)
# With a part that reads pictures: only its language part is compared.
PICTURES = dict(model_type="gemma3", text_config=dict(GEMMA3, layer_types=[
    "sliding_attention", "full_attention", "sliding_attention", "full_attention"]), mm_tokens_per_image=4,
    vision_config=dict(hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=2, image_size=28,
                       patch_size=14))
NEOX = dict(model_type="gpt_neox", vocab_size=97, hidden_size=48, intermediate_size=100, num_hidden_layers=3,
            num_attention_heads=3, max_position_embeddings=64)
OPT = dict(model_type="opt", vocab_size=97, hidden_size=48, ffn_dim=100, num_hidden_layers=3, num_attention_heads=4,
           max_position_embeddings=64, dropout=0.0)

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
    "mistral": dict(MISTRAL, sliding_window=None),
    "mistral_window": dict(MISTRAL, sliding_window=7),
    "qwen2": dict(QWEN2, tie_word_embeddings=True),
    "qwen2_window": dict(QWEN2, use_sliding_window=True, sliding_window=6, max_window_layers=1),
    "qwen2_layer_types": dict(QWEN2, use_sliding_window=True, sliding_window=9, layer_types=[
        "sliding_attention", "full_attention", "sliding_attention"]),
    "qwen3": QWEN3,
    "qwen3_window_biases": dict(QWEN3, attention_bias=True, use_sliding_window=True, sliding_window=5,
                                max_window_layers=1),
    "gemma2": GEMMA2,
    "gemma2_uncapped": dict(GEMMA2, attn_logit_softcapping=None, final_logit_softcapping=None, attention_bias=True,
                            tie_word_embeddings=False, sliding_window=64),
    "gemma3_text": dict(GEMMA3, sliding_window_pattern=2),
    "gemma3_text_ropes": dict(GEMMA3, final_logit_softcapping=4.0, layer_types=[
        "full_attention", "sliding_attention", "sliding_attention", "full_attention"], rope_parameters={
            "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 500000.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 500.0}}),
    "gemma3_pictures": PICTURES,
    "gpt_neox": NEOX,
    "gpt_neox_sequential": dict(NEOX, use_parallel_residual=False, rotary_pct=0.5, hidden_act="gelu_fast"),
    "gpt_neox_tied": dict(NEOX, tie_word_embeddings=True, attention_bias=False, **rope(
        "linear", factor=2.0, partial_rotary_factor=1.0)),
    "opt": OPT,
    "opt_norm_after": dict(OPT, do_layer_norm_before=False, word_embed_proj_dim=20, tie_word_embeddings=False),
    "opt_bare": dict(OPT, enable_bias=False, layer_norm_elementwise_affine=False, activation_function="gelu",
                     _remove_final_layer_norm=True),
}


def randomize(model, generator):
    """Weights large enough that attention is far from uniform; norms and biases away from 1 and 0."""
    norm = 0.0 if model.config.model_type.startswith("gemma") else 1.0  # Gemma keeps the distance from 1
    with torch.no_grad():
        for name, p in model.named_parameters():
            noise = torch.randn(p.shape, generator=generator)
            if p.dim() == 1:
                p.copy_(noise * 0.1 + (0.0 if name.endswith("bias") else norm))
            else:
                p.copy_(noise * 0.15)


def stored_name(model, name):
    """In memory version 5 calls GPT-NeoX's head as all heads; in files it is what it was. Of Gemma 3 with pictures: as
    the language part alone has it."""
    name = name.replace("model.language_model.", "model.")
    return name.replace("lm_head", "embed_out") if model.config.model_type == "gpt_neox" else name


def version_4(config):
    """config.json in the words of version 4 of transformers."""
    if "text_config" in config:
        return dict(config, text_config=version_4(dict(config["text_config"], dtype=config["dtype"])))
    config = dict(config, torch_dtype=config["dtype"])
    del config["dtype"]
    ropes = config.pop("rope_parameters", None)
    if ropes is None:
        return config
    if "sliding_attention" in ropes:
        config["rope_local_base_freq"] = ropes["sliding_attention"]["rope_theta"]
        ropes = ropes["full_attention"]
    ropes = dict(ropes)
    theta, share = ropes.pop("rope_theta"), ropes.pop("partial_rotary_factor", None)
    if config["model_type"] == "gpt_neox":
        config |= dict(rotary_emb_base=theta, rotary_pct=share)
    else:
        config["rope_theta"] = theta
        if share is not None:
            config["partial_rotary_factor"] = share
    config["rope_scaling"] = None if ropes["rope_type"] == "default" else ropes
    return config


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
        config_v4 = version_4(json.loads((target / "config.json").read_text()))
        (target / "config_v4.json").write_text(json.dumps(config_v4))

        B, T, V = 3, 24, config.get_text_config().vocab_size
        ids = torch.randint(3, V, (B, T), generator=generator)
        out = {"input_ids": ids}
        result = model(ids, labels=ids, output_hidden_states=True, output_attentions=True, use_cache=False)
        out["logits"], out["loss"] = result.logits, result.loss
        out["hidden_first"], out["hidden_last"] = result.hidden_states[0], result.hidden_states[-1]
        out["attention_last"] = result.attentions[-1]
        result.loss.backward()
        compared = {stored_name(model, name): p for name, p in model.named_parameters() if p.grad is not None}
        for name, p in compared.items():
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
        for dtype, logits in rounded(model, target, lambda wide: wide(ids, use_cache=False).logits).items():
            out["logits." + dtype] = logits

        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95), eps=1e-6, weight_decay=0.1)
        for _ in range(20):
            optimizer.zero_grad()
            model(ids, labels=ids, use_cache=False).loss.backward()
            optimizer.step()
        for name, p in compared.items():
            out["after." + name] = p.detach()
        save_file({k: v.detach().clone().contiguous() for k, v in out.items()}, target / "reference.safetensors")


main(Path(sys.argv[1]))
