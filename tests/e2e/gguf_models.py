"""Small random models of the architectures that GGUF files hold, for the tests of convert."""

import pathlib
import tempfile

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from support import make_tokenizer

FOLDER = pathlib.Path(tempfile.mkdtemp(prefix="llmtk-e2e-convert-"))

ROPE = dict(hidden_size=64, intermediate_size=96, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2,
            max_position_embeddings=96)
LLAMA3 = {"rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 8192}
FAMILIES = {
    "gpt2": ("gpt2", dict(n_layer=2, n_head=4, n_embd=64, n_positions=96)),
    "llama": ("llama", dict(ROPE, tie_word_embeddings=False)),
    "llama-3.2": ("llama", dict(ROPE, head_dim=32, rope_parameters=LLAMA3, tie_word_embeddings=True)),
    "llama-biases": ("llama", dict(ROPE, attention_bias=True)),
    "llama-linear": ("llama", dict(ROPE, rope_parameters={"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0})),
    "mistral": ("mistral", dict(ROPE, sliding_window=None)),
    "qwen2": ("qwen2", dict(ROPE, tie_word_embeddings=True)),
    "qwen3": ("qwen3", dict(ROPE, head_dim=32)),
    "gemma2": ("gemma2", dict(ROPE, head_dim=32, query_pre_attn_scalar=32, sliding_window=16)),
    "gemma3": ("gemma3_text", dict(ROPE, head_dim=32, query_pre_attn_scalar=32, sliding_window=16, num_hidden_layers=7)),
}


def make_model(name, seed=0, tokenizer=make_tokenizer):
    """A random model with its tokenizer, whose norms are not all ones and whose biases are not zeros."""
    folder = FOLDER / name
    if folder.exists():
        return folder
    folder.mkdir()
    family, shape = FAMILIES[name]
    torch.manual_seed(seed)
    vocabulary = tokenizer(folder)
    model = AutoModelForCausalLM.from_config(
        AutoConfig.for_model(family, vocab_size=len(vocabulary) + 3, bos_token_id=0, eos_token_id=0, **shape)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(folder)
    return folder
