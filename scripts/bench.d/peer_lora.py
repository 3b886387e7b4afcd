"""The peer of `scripts/bench lora`: peft on transformers as their documentation has it, one JSON line of what it took."""

import json
import math
import statistics
import sys
import time

import peft
import torch
import transformers


def main():
    job = json.loads(sys.argv[1])
    torch.manual_seed(0)
    torch.set_num_threads(job["threads"])
    base = transformers.AutoModelForCausalLM.from_pretrained(job["model"], dtype=getattr(torch, job["dtype"]))
    base.config.use_cache = False
    model = peft.get_peft_model(base, peft.LoraConfig(
        task_type="CAUSAL_LM", r=8, lora_alpha=32, lora_dropout=0.1, target_modules=job["target_modules"]))
    model.train()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4, weight_decay=0.0, fused=True)
    with open(job["rows"]) as file:
        rows = [json.loads(line) for line in file]
    seconds, losses = [], []
    for step in range(job["warmup"] + job["steps"]):
        batch = rows[step * job["batch"]:(step + 1) * job["batch"]]
        ids, labels = (torch.tensor([row[key] for row in batch]) for key in ("input_ids", "labels"))
        begin = time.perf_counter()
        loss = model(input_ids=ids, attention_mask=torch.ones_like(ids), labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.item())
        if step >= job["warmup"]:
            seconds.append(time.perf_counter() - begin)
    assert all(math.isfinite(value) for value in losses)
    print(json.dumps({"tokens_per_second": job["batch"] * len(rows[0]["input_ids"]) / statistics.median(seconds),
                      "first_loss": losses[0], "last_loss": losses[-1]}))


if __name__ == "__main__":
    main()
