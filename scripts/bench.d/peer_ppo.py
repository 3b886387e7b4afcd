"""The peer of `scripts/bench ppo`: TRL's PPOTrainer as its documentation has it, one JSON line of what it took."""

import json
import math
import os
import statistics
import sys
import time

os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"

import datasets
import torch
import transformers
from trl.experimental.ppo import PPOConfig, PPOTrainer, ppo_trainer


class Clock(transformers.TrainerCallback):
    """When each batch ended, and seconds that the trainer generated for."""

    def __init__(self):
        self.ends, self.generated = [], []

    def on_train_begin(self, *_, **__):
        self.ends.append(time.perf_counter())

    def on_step_end(self, *_, **__):
        self.ends.append(time.perf_counter())

    def timed(self, generate):
        def call(*arguments):
            begin = time.perf_counter()
            result = generate(*arguments)
            self.generated.append(time.perf_counter() - begin)
            return result
        return call


def load(kind, job, **more):
    return kind.from_pretrained(job["model"], dtype=torch.float32, **more)


def reward_model(job, vocabulary):
    """One layer: what it takes is little beside the others."""
    config = transformers.LlamaConfig(vocab_size=vocabulary, hidden_size=16, intermediate_size=16, num_hidden_layers=1,
                                      num_attention_heads=1, num_labels=1)
    return transformers.AutoModelForSequenceClassification.from_config(config)


def main():
    job = json.loads(sys.argv[1])
    torch.manual_seed(0)
    torch.set_num_threads(job["threads"])
    transformers.logging.set_verbosity_error()
    datasets.disable_progress_bars()
    tokenizer = transformers.GPT2Tokenizer.from_pretrained(job["model"], padding_side="left", pad_token="<|endoftext|>")
    policy, reference = (load(transformers.AutoModelForCausalLM, job) for _ in range(2))
    value = load(transformers.AutoModelForSequenceClassification, job, num_labels=1)
    with open(job["prompts"]) as file:
        prompts = [{"input_ids": json.loads(line)["input_ids"]} for line in file]
    clock = Clock()
    ppo_trainer.batch_generation = clock.timed(ppo_trainer.batch_generation)
    arguments = PPOConfig(output_dir=job["output"], per_device_train_batch_size=job["batch"], gradient_accumulation_steps=1,
                          total_episodes=job["batch"] * (job["warmup"] + job["steps"]), num_ppo_epochs=job["epochs"],
                          num_mini_batches=1, response_length=job["response"], learning_rate=3e-6, report_to=[], use_cpu=True,
                          bf16=job["dtype"] == "bfloat16", num_sample_generations=0, save_strategy="no", disable_tqdm=True,
                          gradient_checkpointing=False)
    trainer = PPOTrainer(args=arguments, processing_class=tokenizer, model=policy, ref_model=reference,
                         reward_model=reward_model(job, policy.config.vocab_size), value_model=value,
                         train_dataset=datasets.Dataset.from_list(prompts), callbacks=[clock])
    trainer.train()
    seconds = [end - begin for begin, end in zip(clock.ends, clock.ends[1:])][job["warmup"]:]
    losses = [row["loss/policy_avg"] + arguments.vf_coef * row["loss/value_avg"] for row in trainer.state.log_history]
    assert len(seconds) == job["steps"] and all(math.isfinite(loss) for loss in losses)
    print(json.dumps({"tokens_per_second": job["batch"] * job["response"] / statistics.median(seconds),
                      "generation": statistics.median(clock.generated[job["warmup"]:]) / statistics.median(seconds),
                      "first_loss": losses[0], "last_loss": losses[-1]}))


if __name__ == "__main__":
    main()
