"""`llmtk rlhf-reward` against TRL's RewardTrainer on a small random model: every step's loss and figures, and the model at the end,
which transformers opens; adapters; resuming; rating texts; what is refused."""

import hashlib
import json
import pathlib
import shutil
import tempfile
import warnings

import datasets
import torch
import transformers
from peft import PeftModel
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PrinterCallback
from trl import RewardConfig, RewardTrainer

from support import json_lines, main, make_model, run

warnings.filterwarnings("ignore")
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()
datasets.disable_progress_bars()
FOLDER = pathlib.Path(tempfile.mkdtemp(prefix="llmtk-e2e-reward-"))
LLAMA = FOLDER / "llama"
make_model(LLAMA, "llama", scale=2.0, pad_token_id=5)
STEPS, BATCH = 5, 3
WORDS = "the quick brown fox jumps over lazy dog to be or not question 明月 故乡".split()


def pairs(count, margins):
    draw = torch.Generator().manual_seed(5)
    words = lambda n: " ".join(WORDS[int(torch.randint(len(WORDS), (1,), generator=draw))] for _ in range(n))
    return [{"prompt": words(3 + i % 4), "chosen": " " + words(2 + i % 3), "rejected": " " + words(1 + i * 2 % 5),
             **({"margin": 0.25 * (i % 3)} if margins else {})} for i in range(count)]


def write(name, rows):
    path = FOLDER / name
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return path


PAIRS = {margins: pairs(STEPS * BATCH, margins) for margins in (False, True)}
FILES = {margins: write(f"pairs-{margins}.jsonl", rows) for margins, rows in PAIRS.items()}


def config(name, file, model=LLAMA, **sections):
    written = {"model": {"name_or_path": str(model)}, "data": {"train": [{"path": str(file)}], "shuffle": False},
               "optimizer": {"type": "sgd", "learning_rate": 0.05, "max_grad_norm": 0},
               "trainer": {"output_dir": str(FOLDER / name), "num_train_epochs": 1, "logging_steps": 1, "num_threads": 1,
                           "per_device_train_batch_size": BATCH, "device": "cpu"}}
    for section, values in sections.items():
        written[section] = {**written.get(section, {}), **values}
    path = FOLDER / f"{name}.yaml"
    path.write_text(json.dumps(written))
    return path


def metrics(name):
    return json_lines((FOLDER / name / "metrics.jsonl").read_text())[1:]


def begin(name, file, **sections):
    """The folder that a run begins with: its random head, and an adapter that does nothing."""
    run("rlhf-reward", config(name, file, **{**sections, "trainer": {"max_steps": 1}, "optimizer": {"learning_rate": 1e-30}}))
    return FOLDER / name


def trl(model, rows, **settings):
    tokenizer = AutoTokenizer.from_pretrained(LLAMA)
    tokenizer.pad_token_id = 5
    arguments = RewardConfig(output_dir=str(FOLDER / "trl"), per_device_train_batch_size=BATCH, num_train_epochs=1,
                             logging_steps=1, optim="sgd", learning_rate=0.05, max_grad_norm=0.0, report_to=[],
                             save_strategy="no", use_cpu=True, bf16=False, gradient_checkpointing=False, disable_tqdm=True,
                             train_sampling_strategy="sequential", **settings)
    trainer = RewardTrainer(model=model, args=arguments, train_dataset=datasets.Dataset.from_list(rows),
                            processing_class=tokenizer)
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    return [entry for entry in trainer.state.log_history if "loss" in entry], trainer


def compare(name, reference):
    got = [row for row in metrics(name) if "loss" in row]
    assert len(got) == len(reference) > 1, (name, len(got), len(reference))
    for key in ("loss", "accuracy", "margin", "mean_reward"):
        scale = max(max(abs(entry[key]) for entry in reference), 1e-3)
        for ours, theirs in zip(got, reference):
            assert abs(ours[key] - theirs[key]) <= 5e-5 * scale, (name, ours["step"], key, ours[key], theirs[key])
    assert abs(got[0]["loss"] - got[-1]["loss"]) > 1e-3, "nothing was learnt"


def scores(model, texts):
    """As transformers gives them, text by text."""
    tokenizer = AutoTokenizer.from_pretrained(LLAMA)
    with torch.no_grad():
        return [model.eval()(input_ids=torch.tensor([tokenizer(text + "<|endoftext|>").input_ids])).logits.item() for text in texts]


def close(got, expected):
    scale = max(map(abs, expected))
    assert all(abs(a - b) <= 5e-5 * scale for a, b in zip(got, expected, strict=True)), (got, expected)


def test_pairs_as_trl_and_the_model_opens_in_transformers():
    for margins, coefficient in ((False, None), (True, 0.05)):
        name, more = f"reward-{margins}", {} if coefficient is None else {"center_rewards_coefficient": coefficient}
        start = begin(f"begin-{margins}", FILES[margins])
        run("rlhf-reward", config(name, FILES[margins], **({"reward": more} if more else {})))
        reference, trainer = trl(AutoModelForSequenceClassification.from_pretrained(start), PAIRS[margins], **more)
        compare(name, reference)
        opened = AutoModelForSequenceClassification.from_pretrained(FOLDER / name)
        assert opened.config.num_labels == 1 and opened.score.weight.shape == (1, 48)
        texts = [pair["prompt"] + pair["chosen"] for pair in PAIRS[False][:6]]
        close(scores(opened, texts), scores(trainer.model, texts))


def test_adapters_as_trl_with_their_head():
    lora = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"]}
    start = begin("begin-lora", FILES[False], lora=lora)
    run("rlhf-reward", config("lora", FILES[False], lora=lora))
    base = AutoModelForSequenceClassification.from_pretrained(LLAMA, num_labels=1)
    reference, trainer = trl(PeftModel.from_pretrained(base, start, is_trainable=True), PAIRS[False])
    compare("lora", reference)


def test_rates_texts_and_says_how_often_the_chosen_one_wins():
    run("rlhf-reward", config("rated", FILES[False], data={"validation": [{"path": str(FILES[True])}]}))
    model = AutoModelForSequenceClassification.from_pretrained(FOLDER / "rated")
    texts = write("texts.jsonl", [{"prompt": pair["prompt"], "completion": pair["chosen"]} for pair in PAIRS[False]])
    rows = json_lines(run("rlhf-reward", "score", FOLDER / "rated", "--input", texts, "--json", "--batch-size", 4))
    expected = {side: scores(model, [pair["prompt"] + pair[side] for pair in PAIRS[False]]) for side in ("chosen", "rejected")}
    close([row["score"] for row in rows[:-1]], expected["chosen"])
    assert rows[0]["where"].endswith("texts.jsonl:1") and rows[-1]["summary"]["rows"] == len(PAIRS[False])
    rows = json_lines(run("rlhf-reward", "score", FOLDER / "rated", "--input", FILES[False], "--pairs", "--json"))
    for side in ("chosen", "rejected"):
        close([row[side] for row in rows[:-1]], expected[side])
    wins = sum(a > b for a, b in zip(expected["chosen"], expected["rejected"])) / len(PAIRS[False])
    assert abs(rows[-1]["summary"]["accuracy"] - wins) < 1e-9
    # What the folder says of its held-out accuracy is that.
    kept = json.loads((FOLDER / "rated" / "reward_evaluation.json").read_text())
    assert kept["pairs"] == len(PAIRS[True]) and abs(kept["accuracy"] - wins) < 1e-6, (kept, wins)
    shown = run("rlhf-reward", "score", FOLDER / "rated", "--input", texts)
    assert len(shown.splitlines()) == len(PAIRS[False])


def test_a_run_goes_on_bit_for_bit_and_the_best_one_keeps_its_accuracy():
    path = config("long", FILES[True], data={"shuffle": True, "validation_fraction": 0.2},
                  trainer={"max_steps": 6, "save_steps": 3, "eval_steps": 3, "logging_steps": 2, "load_best_model_at_end": True})
    run("rlhf-reward", path)
    again = FOLDER / "again"
    shutil.copytree(FOLDER / "long", again)
    shutil.rmtree(again / "checkpoint-6")
    run("rlhf-reward", path, f"trainer.output_dir={again}", "trainer.resume_from_checkpoint=auto")
    for file in ("model.safetensors", "checkpoint-6/optimizer.safetensors", "reward_evaluation.json"):
        assert hashlib.sha256((FOLDER / "long" / file).read_bytes()).digest() == hashlib.sha256((again / file).read_bytes()).digest(), file
    best = next(row["step"] for row in reversed(metrics("long")) if row.get("best"))
    assert (FOLDER / "long" / "reward_evaluation.json").read_text() == \
        (FOLDER / "long" / f"checkpoint-{best}" / "reward_evaluation.json").read_text()


def test_a_folder_that_is_written_over_says_nothing_old():
    held_out = {"data": {"validation_fraction": 0.3, "shuffle": True}}
    run("rlhf-reward", config("over", FILES[False], lora={"r": 2}, **held_out))
    assert (FOLDER / "over" / "adapter_config.json").exists() and (FOLDER / "over" / "reward_evaluation.json").exists()
    run("rlhf-reward", config("over", FILES[False], trainer={"overwrite_output_dir": True}))
    left = {path.name for path in (FOLDER / "over").iterdir()}
    assert "model.safetensors" in left and not left & {"adapter_config.json", "adapter_model.safetensors", "reward_evaluation.json"}, left


def test_what_is_refused():
    path = config("refused", FILES[False])
    for overrides, said in ((["objective=causal_lm"], "objective"), (["lora.lora_dropout=0.1"], "lora_dropout"),
                            (["reward.center_rewards_coefficient=-1"], "center_rewards_coefficient")):
        _, error = run("rlhf-reward", path, *overrides, exit=2)
        assert said in error, (overrides, error)
    _, error = run("rlhf-reward", "score", LLAMA, "--input", FILES[False], exit=2)
    assert "not a reward model" in error, error


main(globals())
