"""`llmtk rlhf-ppo` on small random models: a reward that rises, what is written down, adapters and their reference, value models,
resuming in the middle of a batch, reward programs and models that fail, what is refused."""

import json
import shutil
import signal
import subprocess

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from policy_runs import FOLDER, POLICY, PROMPTS, goes_on, mean, metrics, write, write_config
from support import BIN, main, make_tokenizer, run

NAMES = ("objective/kl", "objective/entropy", "objective/non_score_reward", "objective/rlhf_reward", "objective/scores",
         "policy/approxkl_avg", "policy/clipfrac_avg", "loss/policy_avg", "loss/value_avg", "val/clipfrac_avg",
         "policy/entropy_avg", "val/ratio", "val/ratio_var", "val/num_eos_tokens", "lr", "episode")


def config(name, **sections):
    return write_config(name, {"ppo": {"total_episodes": 32, "response_length": 8, "temperature": 1.0, "num_ppo_epochs": 2,
                                       "num_mini_batches": 2, "num_samples": 2}}, sections)


def batches(name):
    return [row for row in metrics(name) if "objective/kl" in row]


def test_a_rule_reward_rises():
    path = config("rises", ppo={"total_episodes": 32 * 24, "kl_coef": 0.01, "num_ppo_epochs": 4, "entropy_coef": 0.001},
                  trainer={"per_device_train_batch_size": 32, "gradient_accumulation_steps": 1})
    answer = json.loads(run("rlhf-ppo", path, "--json"))
    rows = batches("rises")
    assert len(rows) == 24 and answer["end"] == "finished" and answer["step"] == 24 * 8, (len(rows), answer)
    assert all(name in row for row in rows for name in NAMES), set(NAMES) - set(rows[0])
    assert rows[0]["objective/kl"] == 0, rows[0]  # the policy is its reference still
    assert rows[-1]["episode"] == 32 * 24 and rows[0]["lr"] == 3e-3 > rows[-1]["lr"] > 0
    first, last = mean(rows[:4], "objective/scores"), mean(rows[-4:], "objective/scores")
    assert last > first + 0.2, (first, last)
    assert 0 < mean(rows[-4:], "objective/kl") < 40 and rows[-1]["val/ratio_var"] > 0
    events = next((FOLDER / "rises").glob("events.out.tfevents.*")).read_bytes()
    assert all(tag in events for tag in (b"objective/kl", b"objective/scores", b"sample/0")), "TensorBoard lacks figures"
    samples = [row for row in metrics("rises") if "sample" in row]
    assert len(samples) == 2 * 24
    for sample in samples:
        assert sample["sample"].startswith(sample["prompt"])
        text = sample["sample"][len(sample["prompt"]):]
        assert abs(sample["sample_reward"] - (sum(c in "aeiou" for c in text) / len(text) if text else 0)) < 1e-5, sample
    AutoModelForCausalLM.from_pretrained(FOLDER / "rises")


def test_a_run_goes_on_bit_for_bit_in_the_middle_of_a_batch():
    kinds = {"full": {}, "own": {"ppo": {"value_model": "own", "adaptive_kl_target": 0.1}},
             "lora": {"lora": {"r": 4, "lora_alpha": 8}, "trainer": {"dtype": "bfloat16"}}}
    for kind, sections in kinds.items():
        trainer = {"save_steps": 3, **sections.pop("trainer", {})}
        path = config(kind, trainer=trainer, **sections)
        files = ["checkpoint-8/optimizer.safetensors", "checkpoint-6/rollout.safetensors",
                 "adapter_model.safetensors" if kind == "lora" else "model.safetensors",
                 "checkpoint-8/trained.safetensors" if kind == "lora" else "checkpoint-8/value.safetensors"]
        again = goes_on("rlhf-ppo", path, kind, 3, files)
        assert (again / "checkpoint-3" / "rollout.safetensors").exists()  # a batch has four steps
        assert len(batches(kind)) == 2
        _, error = run("rlhf-ppo", path, f"trainer.output_dir={again}", f"trainer.resume_from_checkpoint={again}/checkpoint-3",
                       "trainer.gradient_accumulation_steps=1", exit=2)
        assert "responses in a batch" in error, error


def test_a_run_goes_on_bit_for_bit_at_the_end_of_a_batch():
    """Where a pass reads a batch in one piece, a run that goes on reads again what the other one has kept."""
    once = {"per_device_train_batch_size": 16, "gradient_accumulation_steps": 1, "save_steps": 2}
    for kind, more in {"one": {}, "one-lora": {"lora": {"r": 4, "lora_alpha": 8, "init_lora_weights": "gaussian"}}}.items():
        path = config(kind, ppo={"num_mini_batches": 1, "total_episodes": 48}, trainer={**once, "dtype": "bfloat16"}, **more)
        weights = "trained.safetensors" if more else "value.safetensors"
        goes_on("rlhf-ppo", path, kind, 2, [f"checkpoint-6/{weights}", "checkpoint-6/optimizer.safetensors"])


def test_what_a_resumed_run_may_change():
    run("rlhf-ppo", config("changed", trainer={"save_steps": 4}))
    shutil.rmtree(FOLDER / "changed" / "checkpoint-8")
    path = config("changed", ppo={"kl_coef": 0.3}, trainer={"save_steps": 4, "resume_from_checkpoint": "auto"})
    run("rlhf-ppo", path)
    assert batches("changed")[-1]["objective/kl_coef"] == 0.3
    assert "num_ppo_epochs" in run("rlhf-ppo", path, "ppo.num_ppo_epochs=3", exit=2)[1]


def test_a_signal_stops_a_rollout():
    path = config("stopped", ppo={"total_episodes": 16 * 400}, trainer={"save_steps": 0})
    process = subprocess.Popen([BIN / "llmtk", "rlhf-ppo", path], stderr=subprocess.PIPE, text=True)
    for line in process.stderr:
        if "episode 48" in line:
            process.send_signal(signal.SIGTERM)
            break
    process.communicate(timeout=60)
    assert process.returncode == 75, process.returncode
    answer = json.loads(run("rlhf-ppo", path, "ppo.total_episodes=96", "trainer.resume_from_checkpoint=auto", "--json"))
    assert answer["end"] == "finished" and answer["step"] == 24 and answer["figures"]["episode"] == 96, answer


def test_adapters_have_their_base_as_reference():
    run("rlhf-ppo", config("adapter", lora={"r": 4, "lora_alpha": 8}, ppo={"total_episodes": 16 * 8, "kl_estimator": "k3"},
                           optimizer={"learning_rate": 2e-2}))
    rows = batches("adapter")
    assert rows[0]["objective/kl"] == 0 and rows[-1]["objective/kl"] > 1e-3, rows
    PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(POLICY), FOLDER / "adapter")


def test_the_first_ratio_is_said():
    for dtype, bound in (("float32", 1e-4), ("bfloat16", 2e-2)):
        done = subprocess.run([BIN / "llmtk", "rlhf-ppo", config(f"ratio-{dtype}", trainer={"dtype": dtype})], capture_output=True,
                              text=True)
        line = next(line for line in done.stderr.splitlines() if "the ratio of new to old probabilities is within" in line)
        assert " info " in line and float(line.split("within ")[1].split()[0]) < bound, line


def test_the_passes_end_where_the_policy_moves_too_far():
    run("rlhf-ppo", config("early", ppo={"target_kl": 1e-6, "num_ppo_epochs": 4}))
    answer = metrics("early")
    assert [row["step"] for row in answer if "objective/kl" in row] == [8, 16]
    # The first step is taken, the second one is not: no later one counts.
    run("rlhf-ppo", config("late", ppo={"num_ppo_epochs": 4}))
    assert batches("early")[0]["policy/approxkl_avg"] < batches("late")[0]["policy/approxkl_avg"]


def test_programs_as_rewards():
    program = FOLDER / "reward.py"
    program.write_text("import json, sys\nfor line in sys.stdin:\n    row = json.loads(line)\n"
                       "    print(len(row['response']) + float(row['answer']))\n")
    run("rlhf-ppo", config("program", rewards=[{"type": "command", "command": f"python3 {program}"}]))
    sample = next(row for row in metrics("program") if "sample" in row)
    answers = {json.loads(line)["prompt"]: json.loads(line)["answer"] for line in PROMPTS.read_text().splitlines()}
    length = len(sample["sample"]) - len(sample["prompt"])
    assert sample["sample_reward"] == length + float(answers[sample["prompt"]]), sample
    for command, exit, said in (("echo no >&2; exit 3", 1, "exit code 3"), ("sleep 60", 1, "does not come to an end"),
                                ("sed s/.*/good/", 1, "'good'"), ("sed s/.*/nan/", 4, "not a finite number")):
        path = config("fails", rewards=[{"type": "command", "command": command, "timeout": 2}], trainer={"overwrite_output_dir": True})
        _, error = run("rlhf-ppo", path, exit=exit)
        assert said in error, (command, error)


def test_reward_models():
    folder = FOLDER / "reward"
    torch.manual_seed(3)
    model = AutoModelForSequenceClassification.from_pretrained(POLICY, num_labels=1, pad_token_id=1)
    with torch.no_grad():
        model.score.weight.mul_(20)
    model.save_pretrained(folder)
    make_tokenizer(folder)
    source = {"type": "model", "model": str(folder)}
    adapter = FOLDER / "reward-adapter"
    get_peft_model(AutoModelForSequenceClassification.from_pretrained(POLICY, num_labels=1, pad_token_id=1),
                   LoraConfig(task_type="SEQ_CLS", r=4, init_lora_weights=False)).save_pretrained(adapter)
    make_tokenizer(adapter)
    done = subprocess.run([BIN / "llmtk", "rlhf-ppo", config("adapter-rated", ppo={"value_model": str(adapter)},
                                                             rewards=[{"type": "model", "model": str(adapter), "min_accuracy": 0.9}])],
                          capture_output=True, text=True)
    assert done.returncode == 0 and "nothing says how good this reward model is" in done.stderr, done.stderr
    run("rlhf-ppo", config("from-policy", ppo={"value_model": str(POLICY)}))
    assert "not a reward model" in run("rlhf-ppo", config("no", rewards=[{"type": "model", "model": str(POLICY)}]), "--dry-run", exit=2)[1]
    short = FOLDER / "short"
    shutil.copytree(folder, short)
    (short / "config.json").write_text(json.dumps({**json.loads((short / "config.json").read_text()), "max_position_embeddings": 9}))
    _, error = run("rlhf-ppo", config("no", rewards=[{"type": "model", "model": str(short)}]), "--dry-run", exit=2)
    assert "cannot read the longest prompt" in error, error
    run("rlhf-ppo", config("rated", rewards=[source, {"type": "length", "target_length": 10, "weight": 0.5}],
                           ppo={"value_model": str(folder), "missing_eos_penalty": 1.0, "whiten_rewards": True}))
    assert len({row["sample_reward"] for row in metrics("rated") if "sample" in row}) > 2
    (folder / "reward_evaluation.json").write_text(json.dumps({"format": "llmtk-reward-evaluation", "version": 1, "accuracy": 0.6,
                                                               "pairs": 50}))
    _, error = run("rlhf-ppo", config("bound", rewards=[{**source, "min_accuracy": 0.7}]), exit=7)
    assert "0.6" in error and "0.7" in error, error
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    a, b = (next(token for token, number in vocabulary.items() if number == i) for i in (40, 41))
    vocabulary[a], vocabulary[b] = vocabulary[b], vocabulary[a]
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    _, error = run("rlhf-ppo", config("other", rewards=[source]), exit=2)
    assert "another tokenizer" in error, error


def test_what_is_refused():
    path = config("refused")
    for overrides, said in ((["trainer.max_steps=5"], "total_episodes"), (["lora.lora_dropout=0.1"], "lora_dropout"),
                            (["lora.init_lora_weights=pissa"], "PiSSA"), (["ppo.num_mini_batches=3"], "divide"),
                            (["rewards.0.pattern=x"], "pattern"), (["rewards=[{type: regex}]"], "pattern"),
                            (["ppo.kl_horizon=5"], "kl_horizon"), (["ppo.response_length=96"], "response_length"),
                            (["ppo.stop_token_id=99999"], "no token"), (["rewards=[{type: regex, pattern: '('}]"], "pattern"),
                            (["rewards=[]"], "rewards"),
                            (["trainer.per_device_train_batch_size=1", "trainer.gradient_accumulation_steps=1", "ppo.num_mini_batches=1"],
                             "variance"), (["trainer.logging_steps=1"], "logging_steps")):
        _, error = run("rlhf-ppo", path, *overrides, exit=2)
        assert said in error, (overrides, error)
    for row, said in (({"prompt": ""}, "an empty prompt"), ({"question": "x"}, "without a prompt"), ({"prompt": "word " * 95}, "too long"),
                      ({"prompt": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]}, "ends with an answer")):
        bad = write("bad.jsonl", [{"prompt": "good"}, row])
        _, error = run("rlhf-ppo", config("bad", data={"train": [{"path": str(bad)}]}), exit=3)
        assert "bad.jsonl:2" in error and said in error, error
    plan = json.loads(run("rlhf-ppo", path, "--dry-run", "--json"))
    assert (plan["batches"], plan["steps"], plan["prompts"]) == (2, 8, 6), plan


main(globals())
