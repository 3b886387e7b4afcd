"""`llmtk finetune` and `llmtk lora`: every method on every kind of model learns, resumes bit for bit, and what it saves gives
in transformers and peft the evaluation loss that the run reported; what is refused."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import peft
import torch
from transformers import (AutoModelForCausalLM, AutoModelForMaskedLM, AutoModelForSeq2SeqLM,
                          AutoModelForSequenceClassification, AutoModelForTokenClassification, AutoTokenizer, BertConfig,
                          BertModel, GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, RobertaConfig,
                          RobertaModel, T5Config, T5ForConditionalGeneration)

BIN = Path(os.environ["LLMTK_BIN"])
WORDS = "good fine great happy warm bad awful sad cold poor film book story plot actor the a is was very".split()
STEPS = 12


def llmtk(*command, check=0):
    done = subprocess.run([str(BIN / f"llmtk-{command[0]}"), *map(str, command[1:])], capture_output=True, text=True)
    if done.returncode != check:
        sys.exit(f"llmtk {' '.join(map(str, command))}\nexited with {done.returncode}, expected {check}\n{done.stderr[-3000:]}")
    return done


def rows_of(seed, count, make):
    generator = torch.Generator().manual_seed(seed)
    draw = lambda n: int(torch.randint(0, n, (1,), generator=generator))
    return [make(draw) for _ in range(count)]


def sentence(draw):
    return [WORDS[draw(len(WORDS))] for _ in range(4 + draw(6))]


def mood(words):
    return sum((word in WORDS[:5]) - (word in WORDS[5:10]) for word in words)


def chat(draw):
    words = sentence(draw)
    return {"prompt": " ".join(words), "completion": " " + ("good" if mood(words) > 0 else "bad")}


DATA = {"causal_lm": chat,
        "seq2seq": lambda draw: {"input": " ".join(words := sentence(draw)), "output": " ".join(words[:2])},
        "masked_lm": lambda draw: {"text": " ".join(sentence(draw))},
        "sequence_classification": lambda draw: {"text": " ".join(words := sentence(draw)),
                                                 "label": "up" if mood(words) > 0 else "down"},
        "multi_label": lambda draw: {"text": " ".join(words := sentence(draw)),
                                     "label": [kind for kind in ("film", "book") if kind in words]},
        "regression": lambda draw: {"text": " ".join(words := sentence(draw)), "label": mood(words) + 0.5},
        "token_classification": lambda draw: {"tokens": (words := sentence(draw)),
                                              "tags": ["B-MOOD" if word in WORDS[:10] else "O" for word in words]}}


def make_models(folder):
    """Tiny random models beside a tokenizer of each kind."""
    (folder / "text.txt").write_text("\n".join(" ".join(sentence) for sentence in rows_of(0, 200, sentence)))
    llmtk("tokenize", "train", folder / "text.txt", "--type", "wordpiece", "--vocab-size", 90, "-o", folder / "wordpiece")
    llmtk("tokenize", "train", folder / "text.txt", "--vocab-size", 300, "-o", folder / "bpe")
    torch.manual_seed(0)
    small = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48)
    models = {
        "llama": (LlamaForCausalLM(LlamaConfig(vocab_size=300, num_key_value_heads=2, max_position_embeddings=96,
                                               bos_token_id=0, eos_token_id=0, **small)), "bpe"),
        "gpt2": (GPT2LMHeadModel(GPT2Config(vocab_size=300, n_embd=32, n_layer=2, n_head=4, n_positions=96,
                                            bos_token_id=0, eos_token_id=0)), "bpe"),
        "t5": (T5ForConditionalGeneration(T5Config(vocab_size=300, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4,
                                                   decoder_start_token_id=0, pad_token_id=0, eos_token_id=0)), "bpe"),
        "bert": (BertModel(BertConfig(vocab_size=90, max_position_embeddings=64, **small)), "wordpiece"),
        "roberta": (RobertaModel(RobertaConfig(vocab_size=90, max_position_embeddings=64, pad_token_id=0,
                                               type_vocab_size=1, **small)), "wordpiece"),
    }
    for name, (model, tokenizer) in models.items():
        model.save_pretrained(folder / name)
        for file in (folder / tokenizer).iterdir():
            shutil.copy(file, folder / name)


def config_of(folder, model, data, section, name):
    objective = "sequence_classification" if data in ("multi_label", "regression") else data
    for split, seed, count in (("train", 1, 96), ("dev", 2, 24)):
        path = folder / f"{data}-{split}.jsonl"
        if not path.exists():
            path.write_text("".join(json.dumps(row) + "\n" for row in rows_of(seed, count, DATA[data])))
    config = {"model": {"name_or_path": str(folder / model)}, "objective": objective,
              "data": {"train": [{"path": str(folder / f"{data}-train.jsonl")}],
                       "validation": [{"path": str(folder / f"{data}-dev.jsonl")}], "max_length": 48},
              "optimizer": {"learning_rate": 1e-2}, "scheduler": {"lr_scheduler_type": "constant"},
              "trainer": {"output_dir": str(folder / name), "max_steps": STEPS, "per_device_train_batch_size": 8,
                          "save_steps": STEPS // 2, "eval_steps": STEPS, "logging_steps": 1, "num_threads": 1}, **section}
    path = folder / f"{name}.yaml"
    path.write_text(json.dumps(config))
    return path


def train(command, config, *overrides, check=0):
    done = llmtk(command, config, "--json", *overrides, check=check)
    return json.loads(done.stdout.strip().splitlines()[-1]), done


def digests(output):
    """What a run leaves, its clock aside."""
    files = [path for path in sorted(output.rglob("*")) if path.is_file()
             and path.suffix in (".safetensors", ".json") and path.name not in ("trainer_state.json", "manifest.json")]
    assert any("model" in path.name or "adapter" in path.name for path in files), files
    return {str(path.relative_to(output)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def check_resume(folder, command, config, name):
    """Stopped after half of the steps and gone on with: the same bits."""
    again = folder / f"{name}-again"
    shutil.copytree(folder / name, again)
    shutil.rmtree(again / f"checkpoint-{STEPS}")
    done, _ = train(command, config, f"trainer.output_dir={again}", "trainer.resume_from_checkpoint=auto")
    assert done["step"] == STEPS
    first, second = digests(folder / name), digests(again)
    assert first == second, {key for key in first if first[key] != second.get(key)}
    shutil.rmtree(again)


def losses(output):
    return [row["loss"] for line in (output / "metrics.jsonl").read_text().splitlines() if "loss" in (row := json.loads(line))]


AUTO = {"causal_lm": AutoModelForCausalLM, "seq2seq": AutoModelForSeq2SeqLM, "masked_lm": AutoModelForMaskedLM,
        "sequence_classification": AutoModelForSequenceClassification, "multi_label": AutoModelForSequenceClassification,
        "regression": AutoModelForSequenceClassification, "token_classification": AutoModelForTokenClassification}


def reference_model(folder, base, data, output):
    if (output / "config.json").exists() and not (output / "adapter_config.json").exists():
        return AUTO[data].from_pretrained(output).eval()
    labels = {}
    if (output / "config.json").exists():
        labels = {"num_labels": len(json.loads((output / "config.json").read_text())["id2label"])}
    return peft.PeftModel.from_pretrained(AUTO[data].from_pretrained(folder / base, **labels), output).eval()


@torch.no_grad()
def reference_loss(model, tokenizer, data, rows, labels):
    """Row by row, the mean over all targets."""
    total, count = 0.0, 0
    for row in rows:
        if data == "causal_lm":
            prompt = tokenizer(row["prompt"]).input_ids
            answer = tokenizer(row["completion"]).input_ids + [tokenizer.eos_token_id]
            ids, wanted = torch.tensor([prompt + answer]), torch.tensor([[-100] * len(prompt) + answer])
            targets = len(answer)
        elif data == "seq2seq":
            ids = torch.tensor([tokenizer(row["input"]).input_ids])
            wanted = torch.tensor([tokenizer(row["output"]).input_ids + [tokenizer.eos_token_id]])
            targets = wanted.numel()
        elif data == "token_classification":
            encoded = tokenizer(row["tokens"], is_split_into_words=True)
            words, ids = encoded.word_ids(), torch.tensor([encoded.input_ids])
            wanted = torch.tensor([[-100 if word is None or word == before else labels.index(row["tags"][word])
                                    for before, word in zip([None, *words], words)]])
            targets = int((wanted >= 0).sum())
        else:
            ids, targets = torch.tensor([tokenizer(row["text"]).input_ids]), 1
            wanted = torch.tensor([labels.index(row["label"])])
        loss = model(input_ids=ids, attention_mask=torch.ones_like(ids), labels=wanted).loss.item()
        total, count = total + loss * targets, count + targets
    return total / count


LORA = {"r": 4, "lora_alpha": 8, "lora_dropout": 0.1}
PREFIX = {"num_virtual_tokens": 5}
METHODS = {
    "full": ("finetune", {}),
    "lora": ("lora", {"lora": {**LORA, "target_modules": "all-linear"}}),
    "dora": ("lora", {"lora": {**LORA, "use_dora": True, "use_rslora": True, "loraplus_lr_ratio": 4}}),
    "pissa": ("lora", {"lora": {**LORA, "init_lora_weights": "pissa", "lora_dropout": 0}}),
    "prefix": ("finetune", {"prefix_tuning": {**PREFIX, "prefix_projection": True}}),
    "ptv2": ("finetune", {"p_tuning_v2": PREFIX}),
    "prompt": ("finetune", {"prompt_tuning": PREFIX, "optimizer": {"learning_rate": 1.0}}),
    "ia3": ("finetune", {"ia3": {}, "optimizer": {"learning_rate": 0.1}}),
    "adapter": ("finetune", {"adapter": {"type": "pfeiffer", "reduction_factor": 4}}),
    "houlsby": ("finetune", {"adapter": {"reduction_factor": 4}}),
}
NOT_OF_PEFT = ("adapter", "houlsby")


def check_runs(folder, runs):
    for base, data, methods in runs:
        rows = [json.loads(line) for line in (folder / f"{data}-dev.jsonl").read_text().splitlines()] \
            if (folder / f"{data}-dev.jsonl").exists() else rows_of(2, 24, DATA[data])
        for method in methods:
            command, section = METHODS[method]
            name = f"{base}-{data}-{method}"
            config = config_of(folder, base, data, section, name)
            answer, _ = train(command, config)
            curve = losses(folder / name)
            assert len(curve) == STEPS and sum(curve[-4:]) < sum(curve[:4]), (name, curve)
            check_resume(folder, command, config, name)
            text = f"{name}: loss {curve[0]:.3f} to {curve[-1]:.3f}"
            if method not in NOT_OF_PEFT and data not in ("masked_lm", "multi_label", "regression"):
                model = reference_model(folder, base, data, folder / name)
                tokenizer = AutoTokenizer.from_pretrained(folder / base)
                labels = json.loads((folder / name / "config.json").read_text()).get("id2label", {}) \
                    if (folder / name / "config.json").exists() else {}
                expected = reference_loss(model, tokenizer, data, rows, [labels[str(i)] for i in range(len(labels))])
                assert abs(answer["eval_loss"] - expected) < 1e-4 * abs(expected), (name, answer["eval_loss"], expected)
                text += f"; evaluation loss {answer['eval_loss']:.4f}, there {expected:.4f}"
            print(text, flush=True)


def test_variants(folder):
    """bfloat16, checkpointing, packing, quantized bases, micro-batches."""
    for name, data, overrides in (
            ("lora", "causal_lm", ["trainer.dtype=bfloat16", "trainer.gradient_checkpointing=true"]),
            ("lora", "causal_lm", ["quantization.load_in_4bit=true", "quantization.bnb_4bit_use_double_quant=true"]),
            ("lora", "causal_lm", ["quantization.load_in_8bit=true", "data.packing=true"]),
            ("full", "causal_lm", ["data.group_by_length=true", "trainer.gradient_accumulation_steps=2"]),
            ("ptv2", "causal_lm", ["trainer.dtype=bfloat16", "trainer.gradient_checkpointing=true"])):
        command, section = METHODS[name]
        config = config_of(folder, "llama", data, section, "variant")
        train(command, config, "trainer.overwrite_output_dir=true", *overrides)
        curve = losses(folder / "variant")
        assert curve[-1] < curve[0], (name, overrides, curve)
        print(f"{name} {' '.join(overrides)}: loss {curve[0]:.3f} to {curve[-1]:.3f}")
    config = config_of(folder, "t5", "seq2seq", {"evaluation": {"predict_with_generate": True,
                                                               "generation_max_length": 8}}, "variant")
    train("finetune", config, "trainer.overwrite_output_dir=true", "trainer.max_steps=240", "trainer.eval_steps=80",
          "optimizer.learning_rate=5e-3")
    last = [json.loads(line) for line in (folder / "variant" / "metrics.jsonl").read_text().splitlines()]
    rouge = [row["eval_rouge_l"] for row in last if "eval_rouge_l" in row]
    assert rouge[-1] > max(0.2, rouge[0]), rouge
    print(f"t5 writes: ROUGE-L {rouge[0]:.3f} to {rouge[-1]:.3f}")


def test_parameters(folder):
    """Frozen ones stay, and a rate of their own moves others as far."""
    config = config_of(folder, "bert", "sequence_classification",
                       {"parameters": {"frozen": ["bert\\.embeddings\\..*"], "learning_rates": {"classifier\\..*": 0.1}}},
                       "frozen")
    train("finetune", config, "trainer.max_steps=1", "optimizer.weight_decay=0", "trainer.eval_steps=0")
    from safetensors.torch import load_file
    before, after = load_file(folder / "bert" / "model.safetensors"), load_file(folder / "frozen" / "model.safetensors")
    for name, tensor in before.items():
        if name.startswith("embeddings."):
            assert torch.equal(tensor, after[f"bert.{name}"]), name
    config = config_of(folder, "bert", "sequence_classification", {"parameters": {"frozen": ["embedings.*"]}}, "frozen")
    _, done = train("finetune", config, "trainer.overwrite_output_dir=true", check=2)
    assert "matches no parameter" in done.stderr, done.stderr


def evaluations(output):
    return [row for line in (output / "metrics.jsonl").read_text().splitlines() if "eval_loss" in (row := json.loads(line))]


def test_decoder_classifier(folder):
    """What classifies is judged elsewhere as in the run, by itself and as an adapter; it writes no text."""
    rows = folder / "sequence_classification-dev.jsonl"
    for arguments, run in (([folder / "llama-sequence_classification-full"], "llama-sequence_classification-full"),
                           ([folder / "llama", "--adapter", folder / "llama-sequence_classification-lora"],
                            "llama-sequence_classification-lora")):
        judged = json.loads(llmtk("eval", "classify", *arguments, rows, "--json").stdout)
        assert judged["accuracy"] == evaluations(folder / run)[-1]["eval_accuracy"], (run, judged)
    model = folder / "llama-sequence_classification-full"
    one, two = (json.loads(line)["label_scores"] for line in llmtk(
        "inspect", "logits", model, "--json", "-p", "a good film", "-p", "bad", "--batch-size", "2").stdout.splitlines())
    assert sorted(score["label"] for score in one) == ["down", "up"], one
    alone = json.loads(llmtk("inspect", "logits", model, "--json", "-p", "bad").stdout)["label_scores"]
    assert all(abs(a["logit"] - b["logit"]) < 1e-5 for a, b in zip(two, alone)), (two, alone)
    for command in (["generate", model, "-p", "a"], ["convert", model, folder / "x.gguf"]):
        done = llmtk(*command, check=2)
        assert "classifier" in done.stderr, done.stderr


def test_evaluations(folder):
    """Judged before the first step; the best by another metric than the loss."""
    config = config_of(folder, "bert", "sequence_classification", {}, "judged")
    answer, done = train("finetune", config, "trainer.eval_on_start=true", "trainer.eval_steps=4", "trainer.save_steps=4",
                         "trainer.metric_for_best_model=eval_macro_f1", "trainer.load_best_model_at_end=true")
    found = evaluations(folder / "judged")
    assert [row["step"] for row in found] == [0, 4, 8, 12] and not found[0]["best"], found
    best = max(found[1:], key=lambda row: row["eval_macro_f1"])
    assert (answer["best_step"], answer["best_metric"]) == (best["step"], best["eval_macro_f1"]), (answer, found)
    again = json.loads(llmtk("eval", "classify", folder / "judged", folder / "sequence_classification-dev.jsonl",
                             "--json").stdout)
    assert again["macro_f1"] == best["eval_macro_f1"], (again, best)
    for data, base, metric, words in (("sequence_classification", "bert", "f1", "accuracy, macro_f1"),
                                      ("regression", "bert", "accuracy", "mse, mae, pearson, spearman"),
                                      ("causal_lm", "llama", "rouge_l", "expected loss, perplexity")):
        config = config_of(folder, base, data, {"trainer": {"metric_for_best_model": metric, "output_dir": "x"}}, "refused")
        assert words in (done := llmtk("finetune", config, "--dry-run", check=2)).stderr, done.stderr


def test_refuses(folder):
    for command, section, overrides, code, words in (
            ("finetune", {"ia3": {}, "p_tuning_v2": PREFIX}, [], 2, "one method of fine-tuning"),
            ("finetune", {}, ["objective=seq2seq"], 2, "needs another kind of model"),
            ("finetune", {}, ["data.masked_lm.mlm_probability=0.2"], 2, "masked_lm has no effect"),
            ("finetune", {}, ["evaluation.generation_num_beams=2"], 2, "no effect"),
            ("lora", {"lora": {"target_modules": ["no_such"]}}, [], 2, "no_such"),
            ("lora", {}, ["model.name_or_path=" + str(folder / "llama" / "config.json")], 2, "a base with weights"),
            ("lora", {"lora": {"rr": 4}}, [], 2, "did you mean 'r'")):
        config = config_of(folder, "llama", "causal_lm", section, "refused")
        done = llmtk(command, config, *overrides, check=code)
        assert words in done.stderr, (section, overrides, done.stderr)
    config = config_of(folder, "llama", "causal_lm", METHODS["lora"][1], "llama-causal_lm-lora")
    done = llmtk("lora", config, "trainer.resume_from_checkpoint=auto", "lora.r=2", check=2)
    assert "lora.r" in done.stderr, done.stderr
    plan = json.loads(llmtk("lora", config, "trainer.output_dir=" + str(folder / "plan"), "--dry-run", "--json").stdout)
    assert plan["trained_parameters"] < plan["parameters"] / 2 and plan["train"]["rows"] == 96, plan
    assert not (folder / "plan").exists()


def main():
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_models(folder)
        every = list(METHODS)
        check_runs(folder, [("llama", "causal_lm", every), ("gpt2", "causal_lm", ["full", "lora", "prefix", "ia3"]),
                            ("bert", "sequence_classification", ["full", "lora", "ptv2", "adapter"]),
                            ("llama", "sequence_classification", ["full", "lora", "ptv2"]),
                            ("gpt2", "sequence_classification", ["prompt", "adapter"]),
                            ("bert", "token_classification", ["full", "lora"]),
                            ("roberta", "sequence_classification", ["full", "ia3"]),
                            ("bert", "multi_label", ["full"]), ("bert", "regression", ["full"]),
                            ("bert", "masked_lm", ["full"]), ("t5", "seq2seq", ["full", "lora", "prefix"])])
        test_variants(folder)
        test_parameters(folder)
        test_decoder_classifier(folder)
        test_evaluations(folder)
        test_refuses(folder)


main()
