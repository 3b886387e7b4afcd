"""`llmtk dpo` against TRL's DPOTrainer, KTOTrainer and ORPOTrainer on small random models: every step's loss and figures, and the
model at the end; adapters; resuming; what `llmtk data` shows; what is refused."""

import hashlib
import json
import os
import pathlib
import shutil
import tempfile
import warnings

os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"

import datasets
import torch
import transformers
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, PrinterCallback
from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer
from trl.experimental.orpo import ORPOConfig, ORPOTrainer

from support import json_lines, main, make_model, run

warnings.filterwarnings("ignore")
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()
datasets.disable_progress_bars()
FOLDER = pathlib.Path(tempfile.mkdtemp(prefix="llmtk-e2e-dpo-"))
GPT2, LLAMA = FOLDER / "gpt2", FOLDER / "llama"  # GPT-2's dropout stays off
make_model(GPT2, "gpt2", scale=2.0)
make_model(LLAMA, "llama", seed=1, scale=2.0, tie_word_embeddings=True)
STEPS, BATCH = 4, 3
FIGURES = ("rewards/chosen", "rewards/rejected", "rewards/accuracies", "rewards/margins", "logps/chosen", "logps/rejected")

WORDS = "the quick brown fox jumps over lazy dog to be or not question 明月 故乡".split()


def pairs(count, start="", long=30):
    """Prompts and answers of different lengths; the last pair is cut by max_length."""
    draw = torch.Generator().manual_seed(5)
    words = lambda n: " ".join(WORDS[int(torch.randint(len(WORDS), (1,), generator=draw))] for _ in range(n))
    return [{"prompt": start + words(3 + i % 4), "chosen": " " + words(2 + i % 3),
             "rejected": " " + words(1 + (i * 2) % 5 + long * (i == count - 1))} for i in range(count)]


def unpaired(count):
    return [{"prompt": pair["prompt"], "completion": pair["chosen" if i % 2 else "rejected"], "label": bool(i % 2)}
            for i, pair in enumerate(pairs(count, long=0))]


def write(name, rows):
    path = FOLDER / name
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return path


PAIRS = pairs(STEPS * BATCH)
FILE = write("pairs.jsonl", PAIRS)
SETTINGS = dict(learning_rate=0.05, max_grad_norm=0.0, lr_scheduler_type="linear")


def config(name, model, file, loss_type, **sections):
    path = FOLDER / f"{name}.yaml"
    written = {"model": {"name_or_path": str(model)},
               "data": {"train": [{"path": str(file)}], "shuffle": False, "max_length": 48},
               "dpo": {"loss_type": loss_type},
               "optimizer": {"type": "sgd", "learning_rate": SETTINGS["learning_rate"], "max_grad_norm": 0},
               "trainer": {"output_dir": str(FOLDER / name), "num_train_epochs": 1, "logging_steps": 1, "num_threads": 1,
                           "per_device_train_batch_size": BATCH, "device": "cpu"}}
    for section, values in sections.items():
        written[section] = {**written.get(section, {}), **values}
    path.write_text(json.dumps(written))
    return path


def metrics(name):
    return json_lines((FOLDER / name / "metrics.jsonl").read_text())[1:]


def trl(trainer_class, config_class, model, rows, **settings):
    """What TRL logs of each step, and its trainer."""
    arguments = config_class(output_dir=str(FOLDER / "trl"), per_device_train_batch_size=BATCH, num_train_epochs=1,
                             logging_steps=1, optim="sgd", report_to=[], save_strategy="no", use_cpu=True, bf16=False,
                             gradient_checkpointing=False, max_length=48, disable_tqdm=True,
                             train_sampling_strategy="sequential", **SETTINGS, **settings)
    base = model if not isinstance(model, pathlib.Path) else AutoModelForCausalLM.from_pretrained(model)
    tokenizer = AutoTokenizer.from_pretrained(LLAMA, pad_token="<|endoftext|>")
    trainer = trainer_class(model=base, args=arguments, train_dataset=datasets.Dataset.from_list(rows),
                            processing_class=tokenizer)
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    return [entry for entry in trainer.state.log_history if "loss" in entry], trainer


def compare(name, reference, figures=FIGURES, bound=5e-5):
    got = [row for row in metrics(name) if "loss" in row]
    assert len(got) == len(reference) > 1, (name, len(got), len(reference))
    largest = max(abs(entry["logps/chosen"]) for entry in reference if "logps/chosen" in entry)
    for key in ("loss", *figures):
        # Differences of log-probabilities carry the rounding of these: some units in their last place.
        scale = max(1e-2 * largest, *(abs(entry[key]) for entry in reference if key in entry))
        for step, (ours, theirs) in enumerate(zip(got, reference)):
            assert (key in ours) == (key in theirs), (name, step, key)
            if key in ours:
                assert abs(ours[key] - theirs[key]) <= bound * scale, (name, step, key, ours[key], theirs[key])
    assert abs(got[0]["loss"] - got[-1]["loss"]) > 1e-3, "nothing was learnt"


def logits(model):
    with torch.no_grad():
        return model.eval()(input_ids=torch.arange(1, 41).reshape(2, 20)).logits.float()


def close(a, b):
    return (a - b).abs().max() <= 5e-5 * b.abs().max()


def test_pairs_as_trl_and_the_model_opens_in_transformers():
    for loss_type, model, beta, more in (("sigmoid", GPT2, 0.1, {}), ("ipo", LLAMA, 0.3, {}),
                                         ("robust", LLAMA, 0.5, {"label_smoothing": 0.1})):
        name = f"dpo-{loss_type}"
        run("dpo", config(name, model, FILE, loss_type, dpo={"beta": beta, "loss_type": loss_type, **more}))
        reference, trainer = trl(DPOTrainer, DPOConfig, model, PAIRS, loss_type=[loss_type], beta=beta, **more)
        compare(name, reference)
        assert close(logits(AutoModelForCausalLM.from_pretrained(FOLDER / name)), logits(trainer.model)), name


def test_accumulated_batches_are_one():
    run("dpo", config("whole", GPT2, FILE, "sigmoid", trainer={"per_device_train_batch_size": 2 * BATCH, "max_steps": 2}))
    run("dpo", config("parts", GPT2, FILE, "sigmoid", trainer={"gradient_accumulation_steps": 2, "max_steps": 2}))
    compare("parts", [row for row in metrics("whole")])


def test_rated_answers_as_trl():
    rows = unpaired(STEPS * BATCH)
    settings = {"beta": 0.3, "desirable_weight": 1.5, "undesirable_weight": 0.8}
    run("dpo", config("kto", GPT2, write("rated.jsonl", rows), "kto", dpo={"loss_type": "kto", **settings}))
    reference, trainer = trl(KTOTrainer, KTOConfig, GPT2, rows, **settings)
    compare("kto", reference, ("kl", "rewards/chosen", "rewards/rejected", "logps/chosen", "logps/rejected"))
    assert any(row["kl"] > 0 for row in metrics("kto"))
    assert close(logits(AutoModelForCausalLM.from_pretrained(FOLDER / "kto")), logits(trainer.model))


def test_odds_ratios_as_trl():
    rows = pairs(STEPS * BATCH, start="<|endoftext|>")[:-1]  # which TRL would put there itself
    run("dpo", config("orpo", GPT2, write("begun.jsonl", rows), "orpo", dpo={"loss_type": "orpo", "beta": 0.4}))
    reference, _ = trl(ORPOTrainer, ORPOConfig, GPT2, rows, beta=0.4, remove_unused_columns=False)
    compare("orpo", reference, (*FIGURES, "nll_loss", "log_odds_ratio", "log_odds_chosen"))


def test_adapters_as_trl_and_their_reference_is_the_base():
    lora = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj", "lm_head"]}
    # The adapter as it begins: a learning rate that changes nothing.
    beta = {"beta": 1.0, "loss_type": "sigmoid"}
    run("dpo", config("begin", LLAMA, FILE, "sigmoid", lora=lora, dpo=beta, optimizer={"learning_rate": 1e-30}, trainer={"max_steps": 1}))
    run("dpo", config("adapter", LLAMA, FILE, "sigmoid", lora=lora, dpo=beta))
    begun = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(LLAMA), FOLDER / "begin", is_trainable=True)
    reference, trainer = trl(DPOTrainer, DPOConfig, begun, PAIRS, beta=1.0)
    compare("adapter", reference)
    assert metrics("adapter")[0]["rewards/margins"] == 0  # the base under an adapter that does nothing yet
    trained = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(LLAMA), FOLDER / "adapter")
    assert close(logits(trained), logits(trainer.model))


def test_the_reference_is_rounded_as_the_run_is():
    run("dpo", config("narrow", LLAMA, FILE, "sigmoid", trainer={"dtype": "bfloat16", "max_steps": 1}))
    first = metrics("narrow")[0]
    assert abs(first["rewards/margins"]) < 1e-6 * abs(first["logps/chosen"]), first


def test_a_run_goes_on_bit_for_bit_with_its_reference():
    for loss_type in ("sigmoid", "kto"):
        name, again = f"long-{loss_type}", FOLDER / f"again-{loss_type}"
        path = config(name, GPT2, FILE, loss_type, data={"shuffle": True, "validation_fraction": 0.2},
                      dpo={"loss_type": loss_type, "disable_dropout": False},
                      trainer={"max_steps": 6, "save_steps": 3, "eval_steps": 3, "logging_steps": 2})
        run("dpo", path)
        shutil.copytree(FOLDER / name, again)
        shutil.rmtree(again / "checkpoint-6")
        resume = ("dpo", path, f"trainer.output_dir={again}", "trainer.resume_from_checkpoint=auto")
        run(*resume)
        files = ("model.safetensors", "checkpoint-6/optimizer.safetensors", "checkpoint-6/reference_logps.safetensors")
        for file in files:
            a, b = ((folder / file).read_bytes() for folder in (FOLDER / name, again))
            assert hashlib.sha256(a).digest() == hashlib.sha256(b).digest(), (loss_type, file)
        keep = lambda row: {key: value for key, value in row.items() if key not in ("seconds", "time", "tokens_per_second", "share_of_peak")}
        assert [keep(row) for row in metrics(name)] == [keep(row) for row in metrics(again.name)]
        evaluations = [row for row in metrics(name) if "eval_loss" in row]
        assert len(evaluations) == 2 and "eval_rewards/chosen" in evaluations[0] and "eval_perplexity" not in evaluations[0]
        # What the reference said is not asked again; a run that lost it reads the data anew.
        kept = FOLDER / name / "checkpoint-3" / "reference_logps.safetensors"
        assert kept.exists() and not (FOLDER / name / "reference_logps.safetensors").exists()


def test_what_data_shows_and_what_is_refused():
    path = config("shown", LLAMA, FILE, "sigmoid")
    shown = run("data", path, "--rows", 1)
    assert "-- chosen --" in shown and "-- rejected --" in shown and "⟦" in shown, shown
    rated = run("data", path, "dpo.loss_type=kto", "--rows", 1)
    assert "-- wanted --" in rated and "for the KL" in rated
    for overrides, said in ((["dpo.label_smoothing=0.1", "dpo.loss_type=ipo"], "label_smoothing"),
                            (["dpo.desirable_weight=2"], "desirable_weight"),
                            (["dpo.loss_type=kto", "trainer.per_device_train_batch_size=1"], "per_device_train_batch_size"),
                            (["objective=causal_lm"], "objective"), (["lora.lora_dropout=0.1"], "lora_dropout"),
                            (["quantization.load_in_4bit=true"], "quantization"), (["dpo.beta=0"], "beta")):
        _, error = run("dpo", path, *overrides, exit=2)
        assert said in error, (overrides, error)
    bad = write("bad.jsonl", [*PAIRS[:2], {"prompt": "a", "chosen": "b", "rejected": "b"}])
    _, error = run("dpo", config("bad", LLAMA, bad, "sigmoid"), exit=3)
    assert "bad.jsonl:3" in error and "the same" in error, error
    plan = json.loads(run("dpo", path, "--dry-run", "--json"))
    assert plan["objective"] == "preference" and plan["steps"] == STEPS and plan["train"]["rows"] == len(PAIRS)


main(globals())
