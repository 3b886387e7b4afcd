"""Makes what parity_test.cpp compares with: reference.py FOLDER.

weights.safetensors: random weights, what bitsandbytes packs them to and unpacks them to. A folder per model and kind of base: a
small random model of transformers as save_pretrained writes it, and in reference.safetensors what the model gives with its base
quantized on a CPU and peft's LoRA on it: logits, loss, the gradients of every A and B, and A and B after 20 steps of AdamW.
"""

import json
import os
import sys
from pathlib import Path

os.environ["TORCHDYNAMO_DISABLE"] = "1"  # bitsandbytes would compile what is computed once

import bitsandbytes.functional as bnb
import torch
import transformers
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM, BitsAndBytesConfig

torch.set_num_threads(1)
transformers.logging.set_verbosity_error()

GPT2 = dict(model_type="gpt2", vocab_size=97, n_positions=64, n_embd=64, n_layer=2, n_head=4, resid_pdrop=0.0, embd_pdrop=0.0,
            attn_pdrop=0.0, bos_token_id=1, eos_token_id=2)
LLAMA = dict(model_type="llama", vocab_size=101, hidden_size=48, intermediate_size=80, num_hidden_layers=2,
             num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64, tie_word_embeddings=False)
# Each with the layers that get a branch, and some that stay as they are.
MODELS = {"gpt2": (GPT2, ["c_attn", "c_proj", "c_fc"], ["lm_head", ".*mlp", "attn.c_proj"]),
          "llama": (LLAMA, ["q_proj", "v_proj", "down_proj"], ["lm_head", ".*mlp", "v_proj"])}
BASES = {
    "nf4": dict(load_in_4bit=True, bnb_4bit_quant_type="nf4"),
    "nf4_double": dict(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True),
    "nf4_bfloat16": dict(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype="bfloat16"),
    "fp4_skip": dict(load_in_4bit=True, bnb_4bit_quant_type="fp4"),
    "int8": dict(load_in_8bit=True),
}
# The last two cross block boundaries in the middle of a row; the last one has an odd number of elements.
SHAPES = [(64, 64), (300, 192), (1100, 576), (70, 130), (31, 33)]


def pack(tensors, name, weight):
    for kind in ("nf4", "fp4"):
        for double in (False, True):
            codes, state = bnb.quantize_4bit(weight, quant_type=kind, compress_statistics=double)
            key = f"{name}.{kind}{'_double' if double else ''}"
            tensors[key + ".codes"] = codes.view(-1)
            tensors[key + ".scales"] = state.absmax
            if double:
                tensors[key + ".scale_scales"], tensors[key + ".scale_map"] = state.state2.absmax, state.state2.code
                tensors[key + ".offset"] = state.offset
            for dtype in (torch.float32, torch.bfloat16):
                state.dtype = dtype
                tensors[f"{key}.{str(dtype).removeprefix('torch.')}"] = bnb.dequantize_4bit(codes, state)
    tensors[name + ".int8.codes"], scales, _ = bnb.int8_vectorwise_quant(weight.to(torch.float16))
    tensors[name + ".int8.scales"] = scales * (1 / 127)
    tensors[name + ".int8.float32"] = tensors[name + ".int8.codes"].float().mul_(scales.unsqueeze(1).mul(1 / 127))


def pack_weights(folder):
    torch.manual_seed(11)
    tensors = {}
    for number, shape in enumerate(SHAPES):
        for dtype in (torch.float32, torch.bfloat16, torch.float16):
            weight = (torch.randn(shape) * 0.05).to(dtype)
            name = f"{number}.{str(dtype).removeprefix('torch.')}"
            tensors[name] = weight
            pack(tensors, name, weight)
    zeros = torch.zeros(4, 64)  # a block of zeros among others
    zeros[0] = torch.randn(64)
    tensors["zeros.float32"] = zeros
    pack(tensors, "zeros.float32", zeros)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "weights.safetensors")


def lora_model(folder, base, targets):
    model = AutoModelForCausalLM.from_pretrained(folder, quantization_config=BitsAndBytesConfig(**base), device_map="cpu",
                                                 dtype=torch.float32)
    model = get_peft_model(model, LoraConfig(r=4, lora_alpha=12, target_modules=targets, task_type="CAUSAL_LM"))
    for name, parameter in sorted(model.named_parameters()):
        if "lora_" in name:
            parameter.data = torch.randn(parameter.shape) * 0.1
    return model.train()


def lora_tensors(model, gradients=False):
    found = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            short = name.removeprefix("base_model.model.").replace(".default.weight", "")
            found[short] = (parameter.grad if gradients else parameter).detach().clone()
    return found


def run(folder, base, targets):
    model = lora_model(folder, base, targets)
    model.save_pretrained(folder / "adapter")
    ids = torch.randint(0, model.config.vocab_size, (2, 24))
    output = model(input_ids=ids, labels=ids)
    output.loss.backward()
    reference = {"input_ids": ids, "logits": output.logits.detach(), "loss": output.loss.detach()}
    reference |= {"grad." + name: t for name, t in lora_tensors(model, gradients=True).items()}
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-3, betas=(0.9, 0.95), eps=1e-6, weight_decay=0.1)
    losses = []
    for _ in range(20):
        optimizer.zero_grad()
        loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    reference |= {"trained." + name: t for name, t in lora_tensors(model).items()}
    reference["losses"] = torch.tensor(losses)
    save_file({name: tensor.contiguous() for name, tensor in reference.items()}, folder / "reference.safetensors")


def main():
    root = Path(sys.argv[1])
    root.mkdir(parents=True, exist_ok=True)
    pack_weights(root)
    for model_name, (config, targets, skips) in MODELS.items():
        for base_name, base in BASES.items():
            if base_name.endswith("skip"):
                base = base | dict(llm_int8_skip_modules=skips)
            torch.manual_seed(7)
            folder = root / f"{model_name}.{base_name}"
            model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**config))
            for parameter in model.parameters():  # no weight of a fresh model is large enough to be seen
                parameter.data += torch.randn(parameter.shape) * 0.05
            model.save_pretrained(folder)
            run(folder, base, targets)
            (folder / "quantization.json").write_text(json.dumps(base))


main()
