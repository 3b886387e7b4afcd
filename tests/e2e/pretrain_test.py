"""`llmtk pretrain` on small real input: what it learns, writes and refuses."""

import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from runs import final_state, pretrain, require_equal, write_config


def rows_of(output):
    return [json.loads(line) for line in (Path(output) / "metrics.jsonl").read_text().splitlines()]


def test_learns(folder):
    output = folder / "learns"
    config = write_config(folder, output)
    done, answer = pretrain(config)
    assert answer["end"] == "finished" and answer["step"] == 60, answer
    assert answer["tokens"] == 60 * 4 * 32, answer
    assert answer["eval_loss"] < 3.0, answer  # it begins near log(344) = 5.84
    for name in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "generation_config.json",
                 "checkpoint-60/manifest.json", "checkpoint-7/trainer_state.json"):
        assert (output / name).exists(), name
    config_json = json.loads((output / "config.json").read_text())
    assert 256 < config_json["vocab_size"] <= 400 and config_json["eos_token_id"] == 0, config_json
    return output


def test_same_seed_same_bits(folder, first):
    output = folder / "again"
    pretrain(write_config(folder, output, "again.yaml"))
    require_equal(final_state(first, 60), final_state(output, 60), "the same seed")
    other = folder / "other"
    pretrain(write_config(folder, other, "other.yaml"), "trainer.seed=7", "trainer.max_steps=10")
    assert (other / "model.safetensors").read_bytes() != (first / "checkpoint-7" / "model.safetensors").read_bytes()


def test_resume(folder, first):
    """A run whose later checkpoints are lost goes on from the one that is left, and ends with the same bits."""
    output = folder / "resumed"
    config = write_config(folder, output, "resumed.yaml")
    done, _ = pretrain(config, check=2, *["trainer.resume_from_checkpoint=true"])
    assert "no checkpoint to go on from" in done.stderr, done.stderr
    pretrain(config)
    for step in (35, 42, 49, 56, 60):  # as if the run had been lost after step 28
        for file in sorted((output / f"checkpoint-{step}").iterdir()):
            file.unlink()
        (output / f"checkpoint-{step}").rmdir()
    done, _ = pretrain(config, check=2)
    assert "holds a run already" in done.stderr, done.stderr
    done, answer = pretrain(config, "trainer.resume_from_checkpoint=auto")
    assert "checkpoint-28" in done.stderr, done.stderr
    require_equal(final_state(first, 60), final_state(output, 60), "resumed")
    done, _ = pretrain(config, "trainer.resume_from_checkpoint=auto", "model.config.hidden_size=64", check=2)
    assert "hidden_size" in done.stderr, done.stderr


def test_accumulation(folder):
    """Two micro-batches of two rows are the batch of four: the same tokens, nearly the same numbers."""
    losses = []
    for name, overrides in (("whole", []), ("halves", ["trainer.per_device_train_batch_size=2",
                                                       "trainer.gradient_accumulation_steps=2"])):
        config = write_config(folder, folder / name, name + ".yaml")
        _, answer = pretrain(config, "model.config.attention_dropout=0.0", "trainer.max_steps=12", *overrides)
        losses.append(answer["eval_loss"])
    assert abs(losses[0] - losses[1]) < 1e-3, losses


def test_variants(folder):
    """Other families, dtypes and settings run and learn."""
    variants = {
        "gpt2": ["model.config={model_type: gpt2, n_embd: 32, n_layer: 2, n_head: 4, n_positions: 64}"],
        "openai-gpt": ["model.config={model_type: openai-gpt, n_embd: 32, n_layer: 2, n_head: 4, n_positions: 64}"],
        "bfloat16": ["trainer.dtype=bfloat16", "trainer.gradient_checkpointing=true"],
        "sgd": ["optimizer.type=sgd", "optimizer.momentum=0.9", "optimizer.learning_rate=0.5",
                "scheduler.lr_scheduler_type=wsd"],
        "epochs": ["trainer.max_steps=-1", "trainer.num_train_epochs=1", "scheduler.lr_scheduler_type=linear"],
    }
    for name, overrides in variants.items():
        config = write_config(folder, folder / name, name + ".yaml")
        _, answer = pretrain(config, *overrides, "trainer.save_steps=0", "trainer.eval_steps=0")
        assert answer["end"] == "finished" and answer["eval_loss"] < 4.5, (name, answer)


def test_goes_on_with_weights(folder, first):
    config = write_config(folder, folder / "further", "further.yaml")
    _, answer = pretrain(config, f"model.name_or_path={first}", "model.config={}", "tokenizer.train=null", "trainer.max_steps=10",
                         "trainer.logging_steps=1", "optimizer.learning_rate=1e-4")
    assert answer["eval_loss"] < 3.0, answer


def test_goes_on_with_a_named_model(folder, first):
    """By a name in the Hugging Face cache: its tokenizer, its generation_config.json, and what model.config changes."""
    snapshot = folder / "hub" / "models--me--small" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    for name in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(first / name, snapshot)
    (snapshot / "generation_config.json").write_text('{"eos_token_id": 0, "bos_token_id": 0, "temperature": 0.25}')
    config = write_config(folder, folder / "named", "named.yaml")
    env = {**os.environ, "HF_HUB_CACHE": str(folder / "hub")}
    from_it = ["model.name_or_path=me/small", "tokenizer.train=null", "trainer.max_steps=2", "trainer.eval_steps=0"]
    changed = "model.config={attention_dropout: 0.5}"
    pretrain(config, *from_it, changed, "samples.prompts=['the quick', '']", "samples.max_new_tokens=5", env=env)
    named = folder / "named"
    assert json.loads((named / "config.json").read_text())["attention_dropout"] == 0.5
    assert json.loads((named / "generation_config.json").read_text())["temperature"] == 0.25
    assert [row["prompt"] for row in rows_of(named) if "sample" in row] == ["the quick", ""]
    # What it does not fit is said before the run.
    done, _ = pretrain(config, *from_it, "model.config={hidden_size: 64}", "trainer.output_dir=" + str(folder / "misfit"),
                       env=env, check=5)
    assert "has another shape than config.json says" in done.stderr, done.stderr
    # Before the corpus is looked at, which may be large.
    done, _ = pretrain(config, *from_it, changed, "samples.prompts=['" + "the quick brown fox " * 20 + "']", "--dry-run",
                       "trainer.output_dir=" + str(folder / "long"), "data.train.0.path=nowhere.txt", env=env, check=3)
    assert "prompt" in done.stderr, done.stderr
    done, _ = pretrain(config, f"model.name_or_path={first}", "model.config={}", "tokenizer.train=null",
                       f"trainer.output_dir={first}", "trainer.overwrite_output_dir=true", check=2)
    assert "is the folder of the model to go on with" in done.stderr, done.stderr
    # Shards need no tokenizer, prompts do.
    (snapshot / "tokenizer.json").unlink()
    done, _ = pretrain(config, *from_it, changed, "samples.prompts=[the]", "trainer.output_dir=" + str(folder / "none"),
                       env=env, check=2)
    assert "need a tokenizer" in done.stderr or "raw text needs a tokenizer" in done.stderr, done.stderr


def test_samples_end(folder, first):
    """A sample ends where its text ends: nothing follows the token that ends documents."""
    text = folder / "foxes.jsonl"
    text.write_text('{"text": "fox"}\n' * 3000)
    config = write_config(folder, folder / "foxes", "foxes.yaml")
    pretrain(config, f"model.name_or_path={first}", "model.config={}", "tokenizer.train=null", "trainer.max_steps=40",
             f"data.train.0.path={text}", "samples.prompts=[fox]")
    samples = [row["sample"] for row in rows_of(folder / "foxes") if "sample" in row]
    assert samples == ["fox"], samples


def test_stops_early(folder):
    config = write_config(folder, folder / "early", "early.yaml")
    _, answer = pretrain(config, "trainer.max_steps=400", "trainer.eval_steps=5", "trainer.save_steps=5",
                         "trainer.early_stopping_patience=2", "trainer.early_stopping_threshold=0.5",
                         "trainer.load_best_model_at_end=true")
    assert answer["end"] == "stopped_early" and answer["step"] < 400, answer


def test_diverges(folder):
    output = folder / "diverges"
    config = write_config(folder, output, "diverges.yaml")
    done, _ = pretrain(config, "optimizer.learning_rate=1e12", "optimizer.max_grad_norm=0", "optimizer.type=sgd",
                       "scheduler.warmup_steps=0", "trainer.save_steps=1", check=4)
    assert "diverged" in done.stderr and "last good checkpoint" in done.stderr, done.stderr


def test_dry_run(folder):
    output = folder / "dry"
    config = write_config(folder, output, "dry.yaml")
    _, plan = pretrain(config, "--dry-run")
    assert plan["steps"] == 60 and plan["parameters"] > 10_000 and not output.exists(), plan
    # Nine checkpoints of weights and two moments each, and the model.
    assert plan["bytes_to_write"] == 9 * plan["bytes_of_a_checkpoint"] + 4 * plan["parameters"], plan
    _, plan = pretrain(config, "--dry-run", "trainer.save_total_limit=2")
    assert plan["bytes_to_write"] == 3 * plan["bytes_of_a_checkpoint"] + 4 * plan["parameters"], plan
    # Epochs count rows: these are shorter than max_length.
    rows = folder / "rows.jsonl"
    rows.write_text("".join(json.dumps({"input_ids": [i % 7 + t for t in range(10)]}) + "\n" for i in range(40)))
    _, plan = pretrain(config, "--dry-run", f"data.train=[{{path: {rows}}}]", "tokenizer.train=null", "trainer.eval_steps=0",
                       "data.validation_fraction=0", "model.config.vocab_size=32", "trainer.max_steps=20")
    assert plan["train_tokens"] == 400 and plan["epochs"] == 2.0, plan
    # More than any machine has, of memory; a real run says so too, and leaves no trace.
    for how in (["--dry-run"], []):
        done, _ = pretrain(config, *how, "model.config={model_type: llama, hidden_size: 65536, intermediate_size: 65536, "
                           "num_hidden_layers: 100, num_attention_heads: 64, max_position_embeddings: 64, "
                           "rms_norm_eps: 1e-5}", check=1)
        assert "do not fit into memory" in done.stderr and not output.exists(), done.stderr


def test_dry_run_resumes(folder, first):
    """A dry run of a resumed run says what the run would say."""
    config = write_config(folder, first, "first.yaml")
    _, plan = pretrain(config, "--dry-run", "trainer.resume_from_checkpoint=auto")
    assert plan["resume_from"].endswith("checkpoint-60"), plan
    done, _ = pretrain(config, "--dry-run", "trainer.resume_from_checkpoint=auto", "model.config.hidden_size=64", check=2)
    assert "cannot go on from this checkpoint with another config" in done.stderr, done.stderr
    done, _ = pretrain(config, "--dry-run", "trainer.resume_from_checkpoint=auto", "trainer.seed=7", check=2)
    assert "trainer.seed was 42, is 7" in done.stderr, done.stderr
    # The same text at another place is the same text.
    moved = folder / "moved"
    moved.mkdir()
    shutil.copy(folder / "text.jsonl", moved / "text.jsonl")
    _, answer = pretrain(config, "trainer.resume_from_checkpoint=auto", f"data.train.0.path={moved / 'text.jsonl'}")
    assert answer["end"] == "finished" and answer["loss"] is not None, answer


def test_refuses(folder):
    config = write_config(folder, folder / "refused", "refused.yaml")
    cases = [
        (["optimizer.learning_rte=1"], 2, "did you mean 'learning_rate'"),
        (["optimizer.momentum=0.9"], 2, "has no effect with optimizer.type adamw"),
        (["scheduler.num_decay_steps=5"], 2, "has no effect with lr_scheduler_type cosine"),
        (["scheduler.warmup_ratio=0.1"], 2, "given together with warmup_steps"),
        (["model.config.hidden_sise=3"], 2, "did you mean 'hidden_size'"),
        (["model.config.num_hidden_layers=100000000"], 2, "argument 'model.config.num_hidden_layers=100000000': key"),
        (["model.config.vocab_size=9000000000000000000"], 2, "at most 2147483648"),
        (["model.config.torch_dtype=bfloat16"], 2, "set trainer.dtype"),
        # Before a tokenizer is learnt from text, or the text is looked for.
        (["model.config.hidden_size=33", "data.train.0.path=nowhere.txt"], 2, "refused.yaml:8:5: key 'num_attention_heads'"),
        (["trainer.early_stopping_threshold=0.1"], 2, "has no effect without early stopping"),
        (["samples.top_k=5"], 2, "has no effect with samples.do_sample false"),
        (["optimizer.learning_rate=fast"], 2, "a number above 0"),
        (["data.train.0.path=nowhere.txt"], 5, "no such file"),
        (["data.max_length=1000"], 2, "argument 'data.max_length=1000': data.max_length is more than the model can see"),
        (["model.config.vocab_size=100"], 2, "more tokens than the model's vocab_size"),
        (["model.config.hidden_sise=3", "model.config.model_type=lama"], 2, "llama"),
        (["trainer.device=cuda:99"], 2, "argument 'trainer.device=cuda:99': trainer.device: "),
        (["model.config={}", "model.preset=gpt2-meduim"], 2, "did you mean 'gpt2-medium'"),
        (["model.config={}", "model.name_or_path=small.gguf"], 2, "llmtk convert small.gguf FOLDER"),
        (["model.config={}", "model.preset=gpt3"], 2, "argument 'model.preset=gpt3': model.preset: unknown model shape"),
    ]
    for overrides, code, words in cases:
        done, answer = pretrain(config, *overrides, check=code)
        assert words in done.stderr, (overrides, done.stderr)
        assert answer["exit_code"] == code, answer
    _, answer = pretrain(config, "optimizer.learning_rte=1", "trainer.max_steps=ten", check=2)
    assert answer["error"]["what"] == "2 problems", answer
    problems = answer["error"]["problems"]
    assert [problem["hint"] for problem in problems] == ["did you mean 'learning_rate'?", ""], answer
    assert problems[1]["where"] == "argument 'trainer.max_steps=ten'" and problems[1]["got"] == "'ten'", answer
    broken = folder / "broken.jsonl"
    broken.write_bytes(b'{"text": "fine"}\n{"text": "bad \xff"}\n' * 200)
    done, _ = pretrain(config, f"data.train.0.path={broken}", check=3)
    assert "broken.jsonl:2" in done.stderr, done.stderr


def main():
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        first = test_learns(folder)
        test_same_seed_same_bits(folder, first)
        test_resume(folder, first)
        test_accumulation(folder)
        test_variants(folder)
        test_goes_on_with_weights(folder, first)
        test_goes_on_with_a_named_model(folder, first)
        test_samples_end(folder, first)
        test_stops_early(folder)
        test_diverges(folder)
        test_dry_run(folder)
        test_dry_run_resumes(folder, first)
        test_refuses(folder)


main()
