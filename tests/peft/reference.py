"""Makes the adapters that lora_parity_test.cpp compares with: reference.py FOLDER.

Small random models of transformers with random adapters of peft on them. Of each case: base/ and adapter/ as
save_pretrained writes them, and reference.safetensors: inputs, logits, loss, the gradient of everything that is trained,
its value after 20 steps of torch.optim.AdamW, the logits of the merged model, and how far logits and gradients are from
these with the base in bfloat16.
"""

import copy
import sys
import warnings
from pathlib import Path

import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import (BertConfig, BertForSequenceClassification, GPT2Config, GPT2ForSequenceClassification,
                          GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification, RobertaConfig,
                          RobertaForTokenClassification, T5Config, T5ForConditionalGeneration,
                          T5ForSequenceClassification)

torch.set_num_threads(1)
transformers.logging.set_verbosity_error()
warnings.filterwarnings("ignore")

V, B, T = 83, 3, 20
GPT2 = (GPT2LMHeadModel, GPT2Config(vocab_size=V, n_positions=32, n_embd=48, n_layer=3, n_head=4, resid_pdrop=0.0,
                                    embd_pdrop=0.0, attn_pdrop=0.0))
LLAMA = (LlamaForCausalLM, LlamaConfig(vocab_size=V, hidden_size=48, intermediate_size=80, num_hidden_layers=3,
                                       num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64))
LLAMA_TIED = (LlamaForCausalLM, LlamaConfig(vocab_size=V, hidden_size=48, intermediate_size=80, num_hidden_layers=2,
                                            num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64,
                                            tie_word_embeddings=True))
LLAMA_BIAS = (LlamaForCausalLM, LlamaConfig(vocab_size=V, hidden_size=48, intermediate_size=80, num_hidden_layers=2,
                                            num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64,
                                            attention_bias=True, mlp_bias=True))
NO_DROPOUT = dict(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
BERT = (BertForSequenceClassification,
        BertConfig(vocab_size=V, hidden_size=48, num_hidden_layers=2, num_attention_heads=4, intermediate_size=80,
                   max_position_embeddings=64, num_labels=3, **NO_DROPOUT))
ROBERTA = (RobertaForTokenClassification,
           RobertaConfig(vocab_size=V, hidden_size=48, num_hidden_layers=2, num_attention_heads=4,
                         intermediate_size=80, max_position_embeddings=64, num_labels=5, type_vocab_size=1,
                         pad_token_id=1, **NO_DROPOUT))
T5 = (T5ForConditionalGeneration, T5Config(vocab_size=V, d_model=48, d_kv=12, d_ff=80, num_layers=2, num_heads=4,
                                           dropout_rate=0.0, decoder_start_token_id=0))
CLASSES = dict(num_labels=3, pad_token_id=0)


def classifier(cls, language_model):
    return cls, type(language_model[1]).from_dict(language_model[1].to_dict() | CLASSES)


CAUSAL, S2S, SEQ, TOKEN = "CAUSAL_LM", "SEQ_2_SEQ_LM", "SEQ_CLS", "TOKEN_CLS"
CASES = {
    "gpt2": (GPT2, dict(task_type=CAUSAL, r=4, lora_alpha=6)),
    "gpt2_dora": (GPT2, dict(task_type=CAUSAL, r=4, target_modules=["c_attn", "mlp.c_proj"], use_dora=True)),
    "gpt2_table": (GPT2, dict(task_type=CAUSAL, r=4, target_modules=["wte", "c_fc"])),
    "llama": (LLAMA, dict(task_type=CAUSAL)),
    "llama_patterns": (LLAMA, dict(task_type=CAUSAL, r=4, lora_alpha=12, use_rslora=True, target_modules="all-linear",
                                   exclude_modules=["o_proj"], rank_pattern={"q_proj": 6, "layers.1.mlp.up_proj": 2},
                                   alpha_pattern={".*v_proj": 5})),
    "llama_layers": (LLAMA, dict(task_type=CAUSAL, target_modules=["down_proj", "k_proj"], layers_to_transform=[0, 2],
                                 layers_pattern="layers")),
    "llama_regex": (LLAMA, dict(task_type=CAUSAL, target_modules=r".*\.[12]\.(?:mlp|self_attn)\.(?!gate|k_)\w+_proj")),
    "llama_dora": (LLAMA, dict(task_type=CAUSAL, r=4, target_modules="all-linear", use_dora=True)),
    "llama_bias": (LLAMA_BIAS, dict(task_type=CAUSAL, bias="all")),
    "llama_bias_only": (LLAMA_BIAS, dict(task_type=CAUSAL, bias="lora_only", target_modules=["o_proj", "gate_proj"])),
    "llama_head": (LLAMA, dict(task_type=CAUSAL, target_modules=["lm_head", "q_proj"], modules_to_save=["norm"])),
    "llama_tied_head": (LLAMA_TIED, dict(task_type=CAUSAL, modules_to_save=["lm_head"])),
    "llama_tied_branch": (LLAMA_TIED, dict(task_type=CAUSAL, r=4, target_modules=["lm_head", "v_proj"])),
    "llama_table_dora": (LLAMA, dict(task_type=CAUSAL, r=4, target_modules=["embed_tokens", "q_proj"], use_dora=True)),
    "llama_pissa": (LLAMA, dict(task_type=CAUSAL, r=4, lora_alpha=6, init_lora_weights="pissa")),
    "bert": (BERT, dict(task_type=SEQ)),
    "bert_bias": (BERT, dict(task_type=SEQ, bias="lora_only", target_modules=["query", "output.dense"])),
    "roberta": (ROBERTA, dict(task_type=TOKEN, target_modules="all-linear", use_rslora=True,
                               modules_to_save=["classifier"])),
    "t5": (T5, dict(task_type=S2S, r=4, lora_alpha=2)),
    "t5_dora": (T5, dict(task_type=S2S, r=4, target_modules=["q", "v", "wi", "wo"], use_dora=True)),
    "gpt2_classes": (classifier(GPT2ForSequenceClassification, GPT2), dict(task_type=SEQ, r=4)),
    "llama_classes": (classifier(LlamaForSequenceClassification, LLAMA),
                      dict(task_type=SEQ, r=4, target_modules="all-linear", use_dora=True)),
    # By itself peft would leave this head as it is.
    "t5_classes": (classifier(T5ForSequenceClassification, T5),
                   dict(task_type=SEQ, r=4, modules_to_save=["classification_head"])),
}


def randomize(model, generator):
    with torch.no_grad():
        for name, p in model.named_parameters():
            noise = torch.randn(p.shape, generator=generator)
            # T5's scores are not scaled: its queries are, so that rounding does not grow over the optimizer's steps.
            scale = 0.15 * (model.config.d_kv**-0.5 if name.endswith(".q.weight") else 1)
            p.copy_(noise * scale if p.dim() > 1 else noise * 0.1 + (0.0 if name.endswith("bias") else 1.0))


def perturb(adapted, generator):
    """What is trained, away from its start: B is no longer zero, magnitudes are no lengths."""
    with torch.no_grad():
        for name, p in adapted.named_parameters():
            if p.requires_grad:
                noise = torch.randn(p.shape, generator=generator)
                p.add_(noise * 0.1 if "magnitude" not in name else noise * 0.1 * p)


def stored_name(name):
    """As in adapter_model.safetensors."""
    for part in (".modules_to_save.default", ".default"):
        name = name.replace(part, "")
    return name.replace("lora_magnitude_vector.weight", "lora_magnitude_vector")


def answers(model, case, ids, decoder_ids):
    if case in ("t5", "t5_dora"):
        return model(input_ids=ids, decoder_input_ids=decoder_ids, use_cache=False).logits
    return model(input_ids=ids).logits


def length(tensors):
    return torch.stack([t.double().square().sum() for t in tensors]).sum().sqrt()


def add_bfloat16(out, cls, case, target, loss_of):
    """Relative errors of logits (of the largest) and gradients (of the length of all) with the base in bfloat16."""
    base = cls.from_pretrained(target / "base", attn_implementation="eager", dtype=torch.bfloat16).eval()
    adapted = PeftModel.from_pretrained(base, target / "adapter", is_trainable=True).eval()
    logits = answers(adapted, case, out["input_ids"], out["decoder_input_ids"]).float()
    loss_of(logits).backward()
    grads = {stored_name(n): p.grad.float() for n, p in adapted.named_parameters() if p.requires_grad}
    expected = {n: out["grad." + n] for n in grads}
    out["bfloat16.logits"] = (logits - out["logits"]).abs().max() / out["logits"].abs().max()
    out["bfloat16.grads"] = length([grads[n] - expected[n] for n in grads]) / length(expected.values())


def main(folder):
    for number, (case, ((cls, config), settings)) in enumerate(CASES.items()):
        generator = torch.Generator().manual_seed(500 + number)
        torch.manual_seed(number)  # of what peft draws
        base = cls._from_config(copy.deepcopy(config), attn_implementation="eager").eval()
        randomize(base, generator)
        target = folder / case
        base.save_pretrained(target / "base")
        adapted = get_peft_model(base, LoraConfig(**copy.deepcopy(settings))).eval()
        if "pissa" in case:
            adapted.peft_config["default"].init_lora_weights = True  # the start, for the conversion
            adapted.save_pretrained(target / "start")
            adapted.peft_config["default"].init_lora_weights = "pissa"
        perturb(adapted, generator)
        adapted.save_pretrained(target / "adapter")
        if "pissa" in case:
            adapted.save_pretrained(target / "converted", path_initial_model_for_weight_conversion=str(target / "start"))

        out = {"input_ids": torch.randint(3, V, (B, T), generator=generator)}
        if case == "t5_classes":
            out["input_ids"][:, -1] = config.eos_token_id
        decoder_ids = out["decoder_input_ids"] = torch.randint(3, V, (B, T - 7), generator=generator)
        logits = answers(adapted, case, out["input_ids"], decoder_ids)
        labels = out["labels"] = torch.randint(0, logits.size(-1), logits.shape[:-1], generator=generator)
        loss_of = lambda logits: torch.nn.functional.cross_entropy(logits.flatten(0, -2), labels.flatten())
        loss = loss_of(logits)
        out |= {"logits": logits, "loss": loss}
        loss.backward()
        trained = {stored_name(n): p for n, p in adapted.named_parameters() if p.requires_grad}
        for name, p in trained.items():
            out["grad." + name] = p.grad.clone()
        add_bfloat16(out, cls, case, target, loss_of)
        merged = copy.deepcopy(adapted).merge_and_unload()
        out["merged_logits"] = answers(merged, case, out["input_ids"], decoder_ids)

        # With a small eps the steps magnify the rounding of small gradients, which PyTorch has another one of each time.
        optimizer = torch.optim.AdamW(trained.values(), lr=1e-3, betas=(0.9, 0.95), eps=1e-3, weight_decay=0.1)
        for _ in range(20):
            optimizer.zero_grad()
            loss_of(answers(adapted, case, out["input_ids"], decoder_ids)).backward()
            optimizer.step()
        for name, p in trained.items():
            out["after." + name] = p.detach()
        save_file({k: v.detach().clone().contiguous() for k, v in out.items()}, target / "reference.safetensors")
    add_combination(folder)


def add_combination(folder):
    """The sum of two adapters' deltas, weighted: peft's add_weighted_adapter with combination_type cat."""
    cls, config = LLAMA
    target = folder / "llama"
    generator = torch.Generator().manual_seed(7)
    torch.manual_seed(7)
    base = cls.from_pretrained(target / "base", attn_implementation="eager").eval()
    second = get_peft_model(base, LoraConfig(task_type=CAUSAL, r=3, target_modules=["q_proj", "v_proj"])).eval()
    perturb(second, generator)
    second.save_pretrained(target / "second")
    base = cls.from_pretrained(target / "base", attn_implementation="eager").eval()
    both = PeftModel.from_pretrained(base, target / "adapter", "first")
    both.load_adapter(target / "second", "second")
    both.add_weighted_adapter(["first", "second"], [0.7, 0.4], "sum", combination_type="cat")
    both.set_adapter("sum")
    ids = load_file(target / "reference.safetensors")["input_ids"]
    with torch.no_grad():
        save_file({"logits": both.eval()(input_ids=ids).logits}, target / "combined.safetensors")


main(Path(sys.argv[1]))
