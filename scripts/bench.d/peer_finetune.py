"""transformers and peft at a config's classification of texts, for bench_finetune.py: peer_finetune.py CONFIG."""

import json
import pathlib
import random
import sys

import torch
import yaml
from transformers import AutoModelForSequenceClassification, AutoTokenizer, get_scheduler


def rows_of(source):
    lines = pathlib.Path(source["path"]).read_text().splitlines()
    return [json.loads(line) for line in lines[:source.get("max_samples") or None]]


def batches(rows, size, tokenizer, length, labels):
    for at in range(0, len(rows), size):
        part = rows[at:at + size]
        batch = tokenizer([row["text"] for row in part], truncation=True, max_length=length, padding=True, return_tensors="pt")
        yield batch, torch.tensor([labels.index(row["label"]) for row in part])


def by_length(rows, size, generator):
    """Rows of about the same length together, as transformers' LengthGroupedSampler: sorted within stretches of 50 batches."""
    generator.shuffle(rows)
    for at in range(0, len(rows), 50 * size):
        rows[at:at + 50 * size] = sorted(rows[at:at + 50 * size], key=lambda row: -len(row["text"]))
    parts = [rows[at:at + size] for at in range(0, len(rows), size)]
    generator.shuffle(parts)
    return [row for part in parts for row in part]


@torch.no_grad()
def accuracy(model, rows, *how):
    model.eval()
    right = sum((model(**batch).logits.argmax(-1) == wanted).sum().item() for batch, wanted in batches(rows, *how))
    model.train()
    return right / len(rows)


def main():
    config = yaml.safe_load(pathlib.Path(sys.argv[1]).read_text())
    trainer, data = config["trainer"], config["data"]
    torch.manual_seed(42)
    if trainer.get("num_threads"):
        torch.set_num_threads(trainer["num_threads"])
    train = [row for source in data["train"] for row in rows_of(source)]
    held_out = [row for source in data["validation"] for row in rows_of(source)]
    labels = sorted({row["label"] for row in train})
    tokenizer = AutoTokenizer.from_pretrained(config["model"]["name_or_path"])
    model = AutoModelForSequenceClassification.from_pretrained(config["model"]["name_or_path"], num_labels=len(labels))
    if "lora" in config:
        import peft

        model = peft.get_peft_model(model, peft.LoraConfig(task_type="SEQ_CLS", **config["lora"]))
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=config["optimizer"]["learning_rate"], weight_decay=0.0)
    size, epochs = trainer["per_device_train_batch_size"], trainer["num_train_epochs"]
    steps = epochs * -(-len(train) // size)
    schedule = get_scheduler("linear", optimizer, int(steps * config["scheduler"].get("warmup_ratio", 0)), steps)
    judged = (held_out, trainer["per_device_eval_batch_size"], tokenizer, data["max_length"], labels)
    before = accuracy(model, *judged)
    generator = random.Random(42)
    for _ in range(epochs):
        for batch, wanted in batches(by_length(train, size, generator), size, tokenizer, data["max_length"], labels):
            model(**batch, labels=wanted).loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
    print(json.dumps(dict(trained=sum(parameter.numel() for parameter in trained), measure="accuracy", before=before,
                          after=accuracy(model, *judged))))


main()
