"""`llmtk grpo` on small random models: a reward that rises, what is written down, adapters and their reference, resuming in the middle
of a batch, what is refused."""

import json

from peft import PeftModel
from transformers import AutoModelForCausalLM

from policy_runs import FOLDER, POLICY, goes_on, mean, metrics, write_config
from support import main, run

NAMES = ("reward", "reward_std", "frac_reward_zero_std", "rewards/characters/mean", "rewards/characters/std", "completions/mean_length",
         "completions/min_length", "completions/max_length", "completions/clipped_ratio", "completions/mean_terminated_length",
         "clip_ratio/low_mean", "clip_ratio/high_mean", "clip_ratio/region_mean", "entropy")


def config(name, **sections):
    return write_config(name, {"grpo": {"num_generations": 4, "max_completion_length": 8, "num_samples": 4}}, sections)


def batches(name):
    return [row for row in metrics(name) if "reward" in row]


def test_a_rule_reward_rises():
    path = config("rises", trainer={"max_steps": 60, "per_device_train_batch_size": 32, "gradient_accumulation_steps": 1})
    answer = json.loads(run("grpo", path, "--json"))
    rows = batches("rises")
    assert len(rows) == 60 and answer["end"] == "finished" and answer["step"] == 60, (len(rows), answer)
    assert all(name in row for row in rows for name in NAMES), set(NAMES) - set(rows[0])
    assert "kl" not in rows[0] and rows[-1]["episode"] == 32 * 60
    first, last = mean(rows[:5], "reward"), mean(rows[-5:], "reward")
    assert last > first + 0.2, (first, last)
    samples = [row for row in metrics("rises") if "sample" in row]
    assert len({row["prompt"] for row in samples[:4]}) == 1 and len({row["sample"] for row in samples[:4]}) > 1  # a group
    for sample in samples:
        text = sample["sample"][len(sample["prompt"]):]
        assert abs(sample["sample_reward"] - (sum(c in "aeiou" for c in text) / len(text) if text else 0)) < 1e-5, sample
    AutoModelForCausalLM.from_pretrained(FOLDER / "rises")


def test_a_run_goes_on_bit_for_bit_in_the_middle_of_a_batch():
    several = {"num_iterations": 2, "steps_per_generation": 4, "beta": 0.05}  # four steps a batch
    for kind, sections in {"full": {}, "lora": {"lora": {"r": 4, "lora_alpha": 8}, "trainer": {"dtype": "bfloat16"}}}.items():
        trainer = {"save_steps": 3, "max_steps": 8, **sections.pop("trainer", {})}
        path = config(kind, grpo=several, trainer=trainer, **sections)
        files = ["checkpoint-8/optimizer.safetensors", "checkpoint-6/rollout.safetensors",
                 "adapter_model.safetensors" if kind == "lora" else "model.safetensors"]
        again = goes_on("grpo", path, kind, 3, files)
        assert (again / "checkpoint-3" / "rollout.safetensors").exists()
        rows = batches(kind)
        assert len(rows) == 2 and min(row["kl"] for row in rows) > 0, rows
    PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(POLICY), FOLDER / "lora")


def test_a_run_ends_where_max_steps_says():
    several = {"num_iterations": 2, "steps_per_generation": 4}  # four steps a batch
    path = config("short", grpo=several, trainer={"max_steps": 6, "save_steps": 5})
    answer = json.loads(run("grpo", path, "--json"))
    assert answer["step"] == 6 and [row["episode"] for row in batches("short")] == [32, 64], answer
    for change in ("num_iterations=3", "num_generations=2", "temperature=0.5"):
        _, error = run("grpo", path, f"grpo.{change}", "trainer.max_steps=8", "trainer.resume_from_checkpoint=auto", exit=2)
        assert change.split("=")[0] in error, error


def test_one_step_a_batch_needs_no_second_reading():
    """The policy is the one that wrote: the same weights as from kept log-probabilities, whose ratio is 1."""
    run("grpo", config("once", trainer={"max_steps": 1, "save_steps": 1}))
    run("grpo", config("kept", grpo={"num_iterations": 2}, trainer={"max_steps": 2, "save_steps": 1}))
    a, b = (AutoModelForCausalLM.from_pretrained(FOLDER / name / "checkpoint-1").state_dict() for name in ("once", "kept"))
    assert max((a[name] - b[name]).abs().max().item() for name in a) < 1e-6
    assert not (FOLDER / "once" / "checkpoint-1" / "rollout.safetensors").exists()
    assert (FOLDER / "kept" / "checkpoint-1" / "rollout.safetensors").exists()


def test_what_is_refused():
    path = config("refused")
    for overrides, said in ((["grpo.num_generations=1"], "num_generations"), (["grpo.num_generations=3"], "divide"),
                            (["grpo.steps_per_generation=3"], "multiple"), (["grpo.delta=1.1"], "delta"),
                            (["grpo.max_completion_length=96"], "max_completion_length"), (["trainer.logging_steps=1"], "logging_steps"),
                            (["grpo.stop_token=none", "grpo.mask_truncated_completions=true"], "mask_truncated_completions"),
                            (["trainer.max_steps=5", "trainer.num_train_epochs=2"], "max_steps"), (["ppo.vf_coef=1"], "ppo"),
                            (["grpo.stop_token_id=99999"], "no token"), (["lora.lora_dropout=0.1"], "lora_dropout")):
        _, error = run("grpo", path, *overrides, exit=2)
        assert said in error, (overrides, error)
    plan = json.loads(run("grpo", path, "trainer.num_train_epochs=2", "--dry-run", "--json"))
    assert (plan["batch_size"], plan["batches"], plan["steps"], plan["prompts"]) == (16, 3, 3, 6), plan


main(globals())
