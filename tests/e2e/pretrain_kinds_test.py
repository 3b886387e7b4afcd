"""`llmtk pretrain` of encoders (masked LM) and encoder-decoders (span corruption): the same losses as transformers, what
is learnt from raw text, resuming, what it refuses."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from runs import BIN, final_state, pretrain, require_equal, write_text

import torch
from transformers import (AutoModelForMaskedLM, AutoModelForSeq2SeqLM, AutoTokenizer, BertConfig, BertForMaskedLM,
                          RobertaConfig, RobertaForMaskedLM, T5Config, T5ForConditionalGeneration)

VOCAB = 97
STEPS = 6


def models():
    shape = dict(vocab_size=VOCAB, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48,
                 max_position_embeddings=40, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    yield "bert", BertForMaskedLM(BertConfig(**shape))
    yield "roberta", RobertaForMaskedLM(RobertaConfig(**shape, pad_token_id=1))
    t5 = dict(vocab_size=VOCAB, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4, dropout_rate=0.0,
              decoder_start_token_id=0, pad_token_id=0)
    yield "t5", T5ForConditionalGeneration(T5Config(**t5))
    yield "t5-v1_1", T5ForConditionalGeneration(T5Config(**t5, feed_forward_proj="gated-gelu",
                                                         tie_word_embeddings=False))


def rows_for(model, generator):
    """Unequal rows of {input_ids, labels}, -100 where nothing is asked."""
    rows = []
    for row in range(STEPS * 4):
        length = 5 + int(torch.randint(0, 25, (1,), generator=generator))
        ids = torch.randint(4, VOCAB, (length,), generator=generator)
        if model.config.is_encoder_decoder:
            labels = torch.randint(4, VOCAB, (3 + row % 5,), generator=generator)
            labels[1] = -100
        else:
            labels = ids.clone()
            labels[torch.rand(length, generator=generator) > 0.3] = -100
            labels[0] = ids[0]
            ids[labels >= 0] = 3
        rows.append({"input_ids": ids.tolist(), "labels": labels.tolist()})
    return rows


def padded(rows, key, value):
    longest = max(len(row[key]) for row in rows)
    return torch.tensor([row[key] + [value] * (longest - len(row[key])) for row in rows])


def reference_losses(model, rows):
    """transformers' own loss and PyTorch's AdamW, four rows a step."""
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.0)
    losses = []
    for step in range(STEPS):
        batch = rows[4 * step:4 * step + 4]
        ids = padded(batch, "input_ids", model.config.pad_token_id)
        mask = padded([{"mask": [1] * len(row["input_ids"])} for row in batch], "mask", 0)
        loss = model(input_ids=ids, attention_mask=mask, labels=padded(batch, "labels", -100)).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def test_losses_of_transformers(folder):
    for seed, (name, model) in enumerate(models()):
        generator = torch.Generator().manual_seed(seed)
        for parameter in model.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.2
        model.save_pretrained(folder / name)
        rows = rows_for(model, generator)
        (folder / f"{name}.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
        for accumulation in (1, 2):  # two micro-batches of two rows are the batch of four
            output = folder / f"{name}-{accumulation}"
            config = {"model": {"name_or_path": str(folder / name)},
                      "data": {"train": [{"path": str(folder / f"{name}.jsonl")}], "shuffle": False, "max_length": 32},
                      "optimizer": {"learning_rate": 1e-2}, "scheduler": {"lr_scheduler_type": "constant"},
                      "trainer": {"output_dir": str(output), "num_train_epochs": 1, "logging_steps": 1,
                                  "per_device_train_batch_size": 4 // accumulation,
                                  "gradient_accumulation_steps": accumulation, "num_threads": 1}}
            (folder / "parity.json").write_text(json.dumps(config))
            _, answer = pretrain(folder / "parity.json")
            losses = [row["loss"] for line in (output / "metrics.jsonl").read_text().splitlines()
                      if "loss" in (row := json.loads(line)) and row.get("event", "train") == "train"]
            if accumulation == 1:
                expected = reference_losses(model, rows)
            assert len(losses) == STEPS, losses
            worst = max(abs(a - b) / abs(b) for a, b in zip(losses, expected))
            print(f"{name}, {accumulation} micro-batches: losses differ by {worst:.1e}")
            assert worst < 5e-5, (name, losses, expected)
            assert answer["tokens"] == sum(len(row["input_ids"]) for row in rows), answer


RAW = """
model:
  config: {model}
tokenizer:
  train: {tokenizer}
data:
  train: [{{path: {text}}}]
  validation_fraction: 0.1
  max_length: 32
  cache_dir: {cache}
  {noise}
optimizer: {{learning_rate: 3.0e-3}}
scheduler: {{warmup_steps: 20}}
trainer: {{output_dir: {output}, max_steps: {steps}, per_device_train_batch_size: 16, logging_steps: 20, eval_steps: 100,
          save_steps: 100, num_threads: 1}}
"""
BERT = ("{model_type: bert, hidden_size: 64, num_hidden_layers: 2, num_attention_heads: 4, intermediate_size: 64, "
        "max_position_embeddings: 32, type_vocab_size: 2, layer_norm_eps: 1.0e-12, initializer_range: 0.1}")
T5 = ("{model_type: t5, d_model: 32, d_kv: 8, d_ff: 64, num_layers: 2, num_heads: 4, decoder_start_token_id: 0, "
      "tie_word_embeddings: true}")
KINDS = {"bert": dict(model=BERT, tokenizer="{type: wordpiece, vocab_size: 200}", steps=800,
                      noise="masked_lm: {mlm_probability: 0.3}"),
         "t5": dict(model=T5, tokenizer="{type: sentencepiece-unigram, vocab_size: 340, extra_ids: 30}", steps=200,
                    noise="span_corruption: {noise_density: 0.2}")}
AUTO = {"bert": AutoModelForMaskedLM, "t5": AutoModelForSeq2SeqLM}
BOUNDS = {"bert": 1.5, "t5": 3.0}  # of the evaluation loss; what knows only how frequent words are has over 3


def config_of(folder, kind, output):
    path = folder / f"{kind}.yaml"
    path.write_text(RAW.format(**KINDS[kind], text=folder / "text.jsonl", cache=folder / "cache", output=output))
    return path


def test_raw_text(folder):
    write_text(folder / "text.jsonl")
    for kind, auto in AUTO.items():
        output, steps = folder / f"{kind}-raw", KINDS[kind]["steps"]
        config = config_of(folder, kind, output)
        _, answer = pretrain(config)
        print(f"{kind}: evaluation loss {answer['eval_loss']:.3f}")
        assert answer["eval_loss"] < BOUNDS[kind], answer
        model, tokenizer = auto.from_pretrained(output), AutoTokenizer.from_pretrained(output)
        assert model.config.vocab_size == len(tokenizer), (model.config.vocab_size, len(tokenizer))

        again = folder / f"{kind}-again"
        shutil.copytree(output, again)
        shutil.rmtree(again / f"checkpoint-{steps}")
        pretrain(config, f"trainer.output_dir={again}", "trainer.resume_from_checkpoint=auto")
        require_equal(final_state(output, steps), final_state(again, steps), f"{kind} resumed")

        # Goes on from what was saved, and in bfloat16.
        lines = config.read_text().splitlines()
        config.write_text("\n".join([f"model: {{name_or_path: {output}}}", *lines[lines.index("data:"):]]))
        _, answer = pretrain(config, f"trainer.output_dir={folder / 'further'}", "trainer.overwrite_output_dir=true",
                             "trainer.max_steps=5", "scheduler.warmup_steps=0", "trainer.dtype=bfloat16",
                             "optimizer.learning_rate=1e-5", "trainer.gradient_checkpointing=true")
        assert answer["eval_loss"] < BOUNDS[kind], answer


def test_what_was_learnt(folder):
    command = [str(BIN / "llmtk-generate"), "--model", str(folder / "bert-raw"), "--fill-mask", "--json", "--prompt",
               "the quick brown [MASK] jumps over a lazy dog while."]
    best = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)["masks"][0]
    assert best["candidates"][0]["token_str"] == "fox", best
    subprocess.run([str(BIN / "llmtk-generate"), "--model", str(folder / "t5-raw"), "--max-new-tokens", "5", "--prompt",
                    "the quick <extra_id_0> fox"], check=True, capture_output=True)


def test_refuses(folder):
    bert, t5 = config_of(folder, "bert", folder / "no"), config_of(folder, "t5", folder / "no")
    for config, overrides, words in (
            (bert, ["data.document_mask=true"], "document_mask has no effect on a model that is no decoder"),
            (bert, ["data.span_corruption.noise_density=0.2"], "span_corruption has no effect"),
            (bert, ["data.prepend_bos=false"], "prepend_bos has no effect"),
            (bert, ["samples.prompts=[the]"], "an encoder goes on with no text"),
            (bert, ["data.masked_lm.mask_replace_prob=0.95"], "more than is left"),
            (bert, ["data.max_length=2"], "no room beside the tokenizer's special tokens"),
            (bert, ["data.max_length=64"], "more than the model can see"),
            (bert, ["tokenizer.train.type=bpe", "tokenizer.train.vocab_size=300"], "no mask token"),
            (t5, ["data.masked_lm.mlm_probability=0.2"], "masked_lm has no effect"),
            (t5, ["tokenizer.train.extra_ids=0", "tokenizer.train.vocab_size=310"], "no sentinels"),
            (t5, ["data.span_corruption.noise_density=0.5", "data.span_corruption.mean_noise_span_length=1", "data.max_length=500"],
             "too few sentinels")):
        done, _ = pretrain(config, *overrides, check=None)
        assert done.returncode in (2, 3) and words in done.stderr, (overrides, done.returncode, done.stderr)
        assert not (folder / "no").exists()


def main():
    torch.set_num_threads(1)
    os.environ.pop("HF_HOME", None)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        test_losses_of_transformers(folder)
        test_raw_text(folder)
        test_what_was_learnt(folder)
        test_refuses(folder)


main()
