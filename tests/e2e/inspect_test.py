"""llmtk inspect: every subcommand and flag, on small random models; the numbers are transformers'."""

import json
import pathlib
import shutil
import tempfile
import xml.dom.minidom

import torch

from support import TEXT, main, make_model, run

FOLDER = pathlib.Path(tempfile.mkdtemp(prefix="llmtk-e2e-inspect-"))
GPT2, LLAMA = FOLDER / "gpt2", FOLDER / "llama"
MODELS = {GPT2: make_model(GPT2, "gpt2", attn_implementation="eager"),
          LLAMA: make_model(LLAMA, "llama", seed=1, attn_implementation="eager")}
PROMPT = "The 🙂 fox 床前"


def inspect(*arguments, **more):
    return json.loads(run("inspect", *arguments, "--json", **more))


def reference(folder, prompt=PROMPT):
    model, tokenizer = MODELS[folder]
    model.set_attn_implementation("eager")
    ids = tokenizer(prompt, return_tensors="pt").input_ids
    with torch.no_grad():
        return ids[0].tolist(), model(ids, output_attentions=True)


def test_params():
    for folder, (model, _) in MODELS.items():
        from_weights, from_config = inspect("params", folder), inspect("params", folder / "config.json")
        for found in (from_weights, from_config):
            assert found["parameters"] == model.num_parameters(), found["parameters"]
            assert found["bytes"] == 4 * model.num_parameters()
            assert found["model_type"] == model.config.model_type
            shapes = {t["name"]: t["shape"] for t in found["tensors"]}
            tied = {"lm_head.weight"} if model.config.tie_word_embeddings else set()
            assert shapes == {n: list(p.shape) for n, p in model.state_dict().items() if n not in tied}
            assert {t["dtype"] for t in found["tensors"]} == {"float32"}
        assert inspect("params", folder / "model.safetensors")["parameters"] == model.num_parameters()
    table = run("inspect", "params", GPT2)
    assert "transformer.h.*.attn.c_attn.weight" in table and f"{MODELS[GPT2][0].num_parameters():,} parameters" in table
    assert "transformer.h.1.attn.c_attn.weight" in run("inspect", "params", GPT2, "--all")
    # A shape by its name takes no memory, however large.
    assert inspect("params", "llama-3-8b", env={"HF_HUB_CACHE": str(FOLDER)})["parameters"] == 8030261248


def test_params_of_files_as_they_are():
    """Buffers apart; and the tensors of a family that is not known, or without a config."""
    from safetensors.torch import load_file, save_file
    folder = FOLDER / "buffers"
    shutil.copytree(GPT2, folder)
    weights = load_file(folder / "model.safetensors")
    masks = {f"transformer.h.{i}.attn.bias": torch.ones(1, 1, 96, 96, dtype=torch.bool) for i in range(2)}
    save_file({**weights, **masks}, folder / "model.safetensors")
    found = inspect("params", folder)
    assert found["buffers"] == list(masks) and len(found["tensors"]) == len(weights)
    assert found["parameters"] == MODELS[GPT2][0].num_parameters()
    assert "not counted: 2 (transformer.h.0.attn.bias, ...)" in run("inspect", "params", folder)
    config = folder / "config.json"
    for model_type in ("bert", "", None):
        if model_type is None:
            config.unlink()
        else:
            config.write_text(json.dumps({"model_type": model_type} if model_type else {}))
        found = inspect("params", folder)
        assert found["model_type"] == (model_type or "") and found["buffers"] == []
        assert len(found["tensors"]) == len(weights) + 2


def test_logits():
    for folder in MODELS:
        ids, out = reference(folder)
        logits = out.logits[0]
        found = inspect("logits", folder, "--prompt", PROMPT, "-k", 7, "--all-positions")
        assert found["ids"] == ids and len(found["positions"]) == len(ids)
        logprobs = logits.log_softmax(-1)
        for t, position in enumerate(found["positions"]):
            best = logits[t].topk(7)
            assert [c["id"] for c in position["next"]] == best.indices.tolist()
            for c, value, i in zip(position["next"], best.values, best.indices):
                assert abs(c["logit"] - value.item()) < 1e-3 and abs(c["logprob"] - logprobs[t][i].item()) < 1e-3
                assert c["token"] == MODELS[folder][1].convert_ids_to_tokens(c["id"])
            if t:
                assert abs(position["logprob"] - logprobs[t - 1][ids[t]].item()) < 1e-3
                assert position["rank"] == 1 + (logits[t - 1] > logits[t - 1][ids[t]]).sum().item()
        last = inspect("logits", folder, "--prompt", PROMPT)["positions"]
        assert len(last) == 1 and len(last[0]["next"]) == 10
        assert [c["id"] for c in last[0]["next"][:7]] == [c["id"] for c in found["positions"][-1]["next"]]
    table = run("inspect", "logits", GPT2, "--prompt", PROMPT, "--top-k", 3).splitlines()
    assert len(table) == 4 and table[0].split() == ["rank", "id", "token", "probability", "logprob", "logit"]
    assert len(run("inspect", "logits", GPT2, "--prompt", PROMPT, "--all-positions").splitlines()) == 1 + len(ids)
    # An empty text begins with bos.
    assert inspect("logits", GPT2, "--prompt", "")["ids"] == [0]


def test_attention_numbers():
    for folder in MODELS:
        ids, out = reference(folder)
        found = inspect("attention", folder, "--prompt", PROMPT, "--layer", "all", "--head", "all")
        assert found["ids"] == ids
        assert len(found["maps"]) == sum(a.shape[1] for a in out.attentions)
        for m in found["maps"]:
            expected = out.attentions[m["layer"]][0, m["head"]]
            for t, row in enumerate(m["weights"]):
                assert len(row) == t + 1
                assert (torch.tensor(row) - expected[t, :t + 1]).abs().max() < 1e-4
        mean = inspect("attention", folder, "--prompt", PROMPT)["maps"]
        assert len(mean) == 1 and mean[0]["head"] == "mean" and mean[0]["layer"] == len(out.attentions) - 1
        expected = out.attentions[-1][0].mean(0)
        assert (torch.tensor(mean[0]["weights"][-1]) - expected[-1]).abs().max() < 1e-4
        one = inspect("attention", folder, "--prompt", PROMPT, "--layer", "-2", "--head", "-1")["maps"]
        assert (one[0]["layer"], one[0]["head"]) == (len(out.attentions) - 2, 3)
    table = run("inspect", "attention", GPT2, "--prompt", PROMPT, "--layer", "0", "--head", "1")
    assert table.startswith("layer 0, head 1 ") and len(table.splitlines()) == 2 + len(ids)


def test_labels():
    labels = inspect("attention", GPT2, "--prompt", "a 床\n<|endoftext|>")["labels"]
    text = "".join(label.split(" ")[0] for label in labels if not label.endswith(("/2", "/3", "/4")) or label.endswith(
        (" 1/2", " 1/3", " 1/4")))
    assert text == "a␣床\\n<|endoftext|>", labels
    # Text that is cut in the middle of a character does not exist; a token alone that is a part of one is spelled.
    # What would move a terminal's cursor is spelled too, C1 controls among it.
    labels = inspect("attention", GPT2, "--prompt", "\x1b[2J\u009b\r\n")["labels"]
    text = "".join(labels)
    assert text.isprintable() and "\\x1b" in text and "\\xc2\\x9b" in text and "\\r" in text and "\\n" in text, labels
    next_tokens = inspect("logits", GPT2, "--prompt", "床", "-k", 400)["positions"][0]["next"]
    assert len(next_tokens) == MODELS[GPT2][0].config.vocab_size
    assert all(c["label"] for c in next_tokens)


def test_attention_picture():
    picture = FOLDER / "图.svg"
    assert run("inspect", "attention", GPT2, "--prompt", "床前 <&\"> 明月", "--output", picture) == ""
    svg = xml.dom.minidom.parse(str(picture))
    texts = [t.firstChild.data for t in svg.getElementsByTagName("text")]
    labels = inspect("attention", GPT2, "--prompt", "床前 <&\"> 明月")["labels"]
    assert texts[0] == "layer 1, mean of 4 heads"
    assert sorted(texts[1:]) == sorted(labels * 2)
    weights = inspect("attention", GPT2, "--prompt", "床前 <&\"> 明月", "-o", picture)["maps"][0]["weights"]
    cells = [r for r in svg.getElementsByTagName("rect") if r.getElementsByTagName("title")]
    assert len(cells) == sum(w >= 0.0005 for row in weights for w in row)
    run("inspect", "attention", GPT2, "--prompt", "The fox", "--layer", "all", "--head", "all", "--output", picture)
    texts = [t.firstChild.data for t in xml.dom.minidom.parse(str(picture)).getElementsByTagName("text")]
    assert texts == [f"layer {l}, head {h}" for l in range(2) for h in range(4)]


def test_checkpoints():
    """Of a short real run: whole, then one byte changes."""
    corpus, run_folder = FOLDER / "corpus.txt", FOLDER / "run"
    corpus.write_text("".join(TEXT) * 20)
    (FOLDER / "run.yaml").write_text(f"""
model: {{name_or_path: {GPT2}}}
data: {{train: [{{path: {corpus}}}], max_length: 16, cache_dir: {FOLDER / "cache"}}}
trainer: {{output_dir: {run_folder}, max_steps: 2, save_steps: 1, per_device_train_batch_size: 2, device: cpu,
           num_threads: 1}}
""")
    run("pretrain", FOLDER / "run.yaml")
    of_run = inspect("checkpoint", run_folder)
    found, model = of_run["checkpoints"], of_run["model"]
    assert [c["state"]["step"] for c in found] == [1, 2] and all(c["whole"] for c in found)
    assert model["whole"] and model["path"] == str(run_folder)
    names = [f["name"] for f in model["files"]]
    assert "model.safetensors" in names and "optimizer.safetensors" not in names
    assert sum(line.endswith("whole") for line in run("inspect", "checkpoint", run_folder).splitlines()) == 3
    two = run_folder / "checkpoint-2"
    one = inspect("checkpoint", two)
    assert one["kind"] == "checkpoint" and one["verified_by"] == "checksums"
    files = {f["name"]: f for f in one["files"]}
    assert files["model.safetensors"]["tensors"] == 28 and "optimizer.safetensors" in files
    assert "whole" in run("inspect", "checkpoint", two)
    with open(two / "optimizer.safetensors", "r+b") as file:
        file.seek(-1, 2)
        byte = file.read(1)
        file.seek(-1, 2)
        file.write(bytes([byte[0] ^ 1]))
    out, _ = run("inspect", "checkpoint", two, exit=5)
    assert "DAMAGED" in out and "optimizer.safetensors" in out
    out, _ = run("inspect", "checkpoint", run_folder, "--json", exit=5)
    assert [c["whole"] for c in json.loads(out)["checkpoints"]] == [True, False]
    with open(run_folder / "model.safetensors", "r+b") as file:
        file.truncate(file.seek(0, 2) - 1)
    shutil.rmtree(two)
    out, _ = run("inspect", "checkpoint", run_folder, "--json", exit=5)
    assert [c["whole"] for c in json.loads(out)["checkpoints"]] == [True] and not json.loads(out)["model"]["whole"]
    two = run_folder / "checkpoint-1"
    (two / "manifest.json").unlink()
    out, _ = run("inspect", "checkpoint", two, exit=5)
    assert "manifest.json is missing" in out


def test_model_folders_are_checked_too():
    assert inspect("checkpoint", LLAMA)["kind"] == "model"
    assert "whole" in run("inspect", "checkpoint", LLAMA)
    broken = FOLDER / "broken"
    shutil.copytree(LLAMA, broken)
    with open(broken / "model.safetensors", "r+b") as file:
        file.truncate(9000)
    out, _ = run("inspect", "checkpoint", broken, exit=5)
    assert "DAMAGED" in out


def test_errors():
    for arguments, exit, says in (
        (["params", "nosuchmodel"], 5, "hf download"),
        (["params", FOLDER / "none.json"], 5, "none.json"),
        (["checkpoint", FOLDER / "none"], 5, "none"),
        (["logits", GPT2], 2, "--prompt"),
        (["logits", GPT2, "--prompt", "x", "-k", "0"], 2, "--top-k"),
        (["logits", GPT2, "--prompt", "fox " * 200], 3, "at most 96"),
        (["attention", GPT2, "--prompt", "x", "--layer", "2"], 2, "--layer"),
        (["attention", GPT2, "--prompt", "x", "--layer", "mean"], 2, "--layer"),
        (["attention", GPT2, "--prompt", "x", "--head", "four"], 2, "mean"),
        (["attention", GPT2, "--prompt", "x", "--output", "map.png"], 2, ".svg"),
        (["attention", GPT2, "--prompt", "x", "--output", FOLDER / "no/such/map.svg"], 5, "map.svg"),
        ([], 2, "subcommand"),
        (["magic"], 2, "subcommand"),
    ):
        out, err = run("inspect", *arguments, exit=exit)
        assert says in err, (arguments, err)
        assert not out, out


def test_help():
    for command in ([], ["params"], ["checkpoint"], ["logits"], ["attention"]):
        assert "Examples:" in run("inspect", *command, "--help")


try:
    main(dict(globals()))
finally:
    shutil.rmtree(FOLDER)
