"""llmtk inspect logits, hidden and attention over padded batches, for every family and head: what the files and the
JSON hold is what transformers computes of each text alone."""

import json
import os
import pathlib
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor

import torch
import transformers
from safetensors.torch import load_file

from support import main, make_model, make_tokenizer, run

os.environ["OMP_NUM_THREADS"] = "1"  # models this small gain nothing from more
torch.set_num_threads(1)
FOLDER = pathlib.Path(tempfile.mkdtemp(prefix="llmtk-e2e-inspect-tensors-"))
TEXTS = ["The 🙂 fox", "床前明月光，疑是地上霜", "To be, or not"]
TARGETS = ["fox", "明月光 To be", "The"]
LLAMA = dict(hidden_size=48, intermediate_size=96, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2,
             max_position_embeddings=96)
GEMMA = dict(LLAMA, head_dim=16, query_pre_attn_scalar=24, sliding_window=6,
             layer_types=["sliding_attention", "full_attention", "sliding_attention"])
GPT = dict(n_layer=2, n_head=4, n_embd=48, n_positions=96)
DECODERS = {
    "gpt2": GPT,
    "openai-gpt": GPT,
    "llama": LLAMA,
    "mistral": dict(LLAMA, sliding_window=6),
    "qwen2": LLAMA,
    "qwen3": dict(LLAMA, head_dim=16),
    "gemma2": dict(GEMMA, attn_logit_softcapping=3.0, final_logit_softcapping=4.0),
    "gemma3_text": GEMMA,
    "gpt_neox": dict(hidden_size=48, intermediate_size=96, num_hidden_layers=3, num_attention_heads=3,
                     max_position_embeddings=96),
    "opt": dict(hidden_size=48, ffn_dim=96, num_hidden_layers=3, num_attention_heads=4, max_position_embeddings=96,
                word_embed_proj_dim=24),
}
BERT = dict(hidden_size=48, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=96)
T5 = dict(d_model=48, d_kv=12, d_ff=96, num_layers=2, num_decoder_layers=3, num_heads=4, decoder_start_token_id=0)


def make(name, auto, family, scale=4, **settings):
    """A random model of `family` with the head that `auto` gives it. Returns its folder, the model and its tokenizer."""
    folder = FOLDER / name
    tokenizer = make_tokenizer(folder)
    torch.manual_seed(3)
    config = transformers.AutoConfig.for_model(family, vocab_size=len(tokenizer), bos_token_id=0, eos_token_id=0,
                                               pad_token_id=0, **settings)
    config._attn_implementation = "eager"
    model = auto.from_config(config, attn_implementation="eager").eval()
    with torch.no_grad():
        for p in model.parameters():
            if p.dim() > 1:
                p.mul_(scale)
    model.save_pretrained(folder)
    return folder, model, tokenizer


def flags(texts, flag="--prompt"):
    return [word for text in texts for word in (flag, text)]


def close(got, expected, what):
    assert got.shape == expected.shape, (what, got.shape, expected.shape)
    error, limit = (got - expected).abs().max().item(), 5e-5 * expected.abs().max().item()
    assert error <= limit, (what, error, limit)


def tensors(command, folder, *arguments):
    path = FOLDER / f"{command}.safetensors"
    run("inspect", command, folder, *arguments, "--output", path)
    return load_file(path)


def check_file(folder, model, texts, of_text, more=(), prefixes=("",), logits=True):
    """Everything in the three files against `of_text(i)`, transformers' outputs for text i alone. The last of `prefixes` is the
    stack that the logits belong to."""
    arguments = [*flags(texts), *more, "--batch-size", 2]  # a file is one batch nevertheless
    wanted = ["hidden", "attention"] + ["logits"] * logits
    with ThreadPoolExecutor(2) as pool:
        hidden, attention, *scores = pool.map(lambda command: tensors(command, folder, *arguments), wanted)
    for i in range(len(texts)):
        out = of_text(i)
        spans = {}
        for prefix in prefixes:
            mask = hidden["decoder_attention_mask" if prefix == "decoder_" else "attention_mask"][i].bool()
            spans[prefix] = mask
            states = out[prefix + "hidden_states"]
            assert sum(k.startswith(prefix + "hidden_states.") for k in hidden) == len(states)
            for layer, state in enumerate(states):
                close(hidden[f"{prefix}hidden_states.{layer}"][i][mask], state[0], f"{prefix}hidden {layer}")
            for layer, weights in enumerate(out[prefix + "attentions"]):
                close(attention[f"{prefix}attentions.{layer}"][i][:, mask][:, :, mask], weights[0], f"{prefix}attention {layer}")
        for layer, weights in enumerate(out.get("cross_attentions") or ()):
            got = attention[f"cross_attentions.{layer}"][i][:, spans["decoder_"]][:, :, spans["encoder_"]]
            close(got, weights[0], f"cross attention {layer}")
        if out.get("pooler_output") is not None:
            close(hidden["pooler_output"][i], out["pooler_output"][0], "pooler")
        if logits and out["logits"].dim() == 3:
            close(scores[0]["logits"][i][spans[prefixes[-1]]], out["logits"][0], "logits")
        elif logits:
            close(scores[0]["logits"][i], out["logits"][0], "logits")


def alone(model, tokenizer, texts):
    def of_text(i):
        with torch.no_grad():
            ids = tokenizer(texts[i], return_tensors="pt").input_ids
            return model(ids, output_hidden_states=True, output_attentions=True)
    return of_text


def test_decoders():
    """Padded on the left, and every second family on the right."""
    for number, (family, settings) in enumerate(DECODERS.items()):
        folder, model, tokenizer = make(family, transformers.AutoModelForCausalLM, family, **settings)
        side = ["--padding-side", "right"] if number % 2 else []
        check_file(folder, model, TEXTS, alone(model, tokenizer, TEXTS), more=side)


def test_gguf():
    folder, model, tokenizer = make("to_gguf", transformers.AutoModelForCausalLM, "llama", **LLAMA)
    file = FOLDER / "llama.gguf"
    run("convert", folder, file, "--type", "f32")
    check_file(file, model, TEXTS, alone(model, tokenizer, TEXTS), more=["--tokenizer", folder])


def test_encoders():
    for family, settings in (("bert", BERT), ("roberta", BERT)):
        for auto in (transformers.AutoModelForMaskedLM, transformers.AutoModelForSequenceClassification,
                     transformers.AutoModelForTokenClassification, transformers.AutoModel):
            labels = {"num_labels": 3} if "Classification" in auto.__name__ else {}
            folder, model, tokenizer = make(f"{family}-{auto.__name__}", auto, family, **settings, **labels)
            side = ["--padding-side", "left"] if family == "roberta" else []
            check_file(folder, model, TEXTS, alone(model, tokenizer, TEXTS), more=side,
                       logits=auto is not transformers.AutoModel)
        assert "no head" in run("inspect", "logits", folder, "--prompt", "x", exit=2)[1]


def test_pairs():
    """Of BERT, whose tokens have the type of their text; of RoBERTa, which has one type."""
    for family, types in (("bert", 2), ("roberta", 1)):
        folder, model, tokenizer = make(f"{family}-pairs", transformers.AutoModelForSequenceClassification, family, **BERT,
                                        type_vocab_size=types, num_labels=3)

        def of_text(i):
            inputs = tokenizer(TEXTS[i], TARGETS[i], return_tensors="pt", return_token_type_ids=True)
            assert inputs["token_type_ids"].max() == 1
            if types == 1:
                del inputs["token_type_ids"]
            with torch.no_grad():
                return model(**inputs, output_hidden_states=True, output_attentions=True)
        pairs = flags(TARGETS, "--text-pair")
        check_file(folder, model, TEXTS, of_text, more=pairs)
        answer = json.loads(run("inspect", "logits", folder, "--prompt", TEXTS[0], *pairs[:2], "--json"))
        expected = tokenizer(TEXTS[0], TARGETS[0], return_token_type_ids=True)
        assert answer["ids"] == expected["input_ids"]
        assert answer["token_type_ids"] == [min(t, types - 1) for t in expected["token_type_ids"]]
    assert "not as many second texts" in run("inspect", "hidden", folder, *flags(TEXTS), *pairs[:2], exit=2)[1]
    assert "only encoders and classifiers read pairs" in run("inspect", "hidden", FOLDER / "llama", *flags(TEXTS), *pairs, exit=2)[1]


def test_encoder_decoder():
    v1_1 = make("t5_v1_1", transformers.AutoModelForSeq2SeqLM, "t5", **T5, scale=2, feed_forward_proj="gated-gelu",
                tie_word_embeddings=False)
    folder, model, tokenizer = t5 = make("t5", transformers.AutoModelForSeq2SeqLM, "t5", **T5)

    def check(folder, model, tokenizer):
        def of_text(i):
            with torch.no_grad():
                return model(tokenizer(TEXTS[i], return_tensors="pt").input_ids,
                             labels=tokenizer(TARGETS[i], return_tensors="pt").input_ids,
                             output_hidden_states=True, output_attentions=True)
        check_file(folder, model, TEXTS, of_text, more=flags(TARGETS, "--target"), prefixes=("encoder_", "decoder_"))
    check(*v1_1)
    check(*t5)
    answer = json.loads(run("inspect", "attention", folder, "--prompt", TEXTS[0], "--target", TARGETS[1], "--of", "cross",
                            "--layer", "2", "--head", "1", "--json"))
    out = model(tokenizer(TEXTS[0], return_tensors="pt").input_ids,
                labels=tokenizer(TARGETS[1], return_tensors="pt").input_ids, output_attentions=True)
    close(torch.tensor(answer["maps"][0]["weights"]), out.cross_attentions[2][0, 1], "cross")
    assert len(answer["decoder_labels"]) == out.cross_attentions[2].shape[2]
    picture = FOLDER / "cross.svg"
    run("inspect", "attention", folder, "--prompt", TEXTS[0], "--target", TARGETS[1], "--of", "cross", "--output", picture)
    assert "layer 2, mean of 4 heads" in picture.read_text()
    assert "not as many targets" in run("inspect", "hidden", folder, *flags(TEXTS), "--target", "x", exit=2)[1]


def test_json_in_full():
    """JSON lines, a text each, of the same batch; single-precision numbers come back bit by bit."""
    folder = FOLDER / "gpt2"
    model, tokenizer = make_model(folder, "gpt2")
    arguments = [folder, *flags(TEXTS)]
    lines = [json.loads(l) for l in run("inspect", "logits", *arguments, "--all-positions", "--full", "--json").splitlines()]
    file = tensors("logits", *arguments)
    states = [json.loads(l) for l in run("inspect", "hidden", *arguments, "--layer", "-1", "--json").splitlines()]
    hidden = tensors("hidden", *arguments, "--layer", "-1")
    assert sorted(hidden) == ["attention_mask", "hidden_states.2", "input_ids"]
    for i, (line, state) in enumerate(zip(lines, states, strict=True)):
        mask = file["attention_mask"][i].bool()
        assert line["ids"] == tokenizer(TEXTS[i]).input_ids == file["input_ids"][i][mask].tolist()
        assert torch.equal(torch.tensor([p["logits"] for p in line["positions"]]), file["logits"][i][mask])
        assert state["hidden_states"][0]["layer"] == 2
        assert torch.equal(torch.tensor(state["hidden_states"][0]["states"]), hidden["hidden_states.2"][i][mask])
    alone = [json.loads(l) for l in run("inspect", "hidden", *arguments, "--json", "--batch-size", 1).splitlines()]
    assert [line["ids"] for line in alone] == [line["ids"] for line in lines]
    for line, state in zip(alone, states):
        close(torch.tensor(line["hidden_states"][2]["states"]), torch.tensor(state["hidden_states"][0]["states"]), "one by one")
    # Ids instead of a text, and lines of a file.
    ids = ",".join(map(str, lines[1]["ids"]))
    again = json.loads(run("inspect", "logits", folder, "--ids", ids, "--json"))
    assert "prompt" not in again and again["positions"][0]["next"][0]["id"] == lines[1]["positions"][-1]["next"][0]["id"]
    texts = FOLDER / "texts.txt"
    texts.write_text("\n".join(TEXTS) + "\n")
    assert len(run("inspect", "hidden", folder, "--prompts-file", texts, "--json").splitlines()) == len(TEXTS)


def test_heads_in_words():
    folder = FOLDER / "bert-AutoModelForSequenceClassification"
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder)
    tokenizer = make_tokenizer(FOLDER / "tokenizer")
    logits = model(tokenizer(TEXTS[0], return_tensors="pt").input_ids).logits[0]
    scores = json.loads(run("inspect", "logits", folder, "--prompt", TEXTS[0], "--json"))["label_scores"]
    assert [s["id"] for s in scores] == logits.argsort(descending=True).tolist()
    assert all(abs(s["probability"] - logits.softmax(-1)[s["id"]]) < 1e-5 and s["label"] == f"LABEL_{s['id']}" for s in scores)
    assert len(run("inspect", "logits", folder, "--prompt", TEXTS[0]).splitlines()) == 4
    tokens = json.loads(run("inspect", "logits", FOLDER / "bert-AutoModelForTokenClassification", "--prompt", TEXTS[0], "--json"))
    assert len(tokens["positions"]) == len(tokens["ids"]) and len(tokens["positions"][0]["labels"]) == 3
    masked = json.loads(run("inspect", "logits", FOLDER / "bert-AutoModelForMaskedLM", "--prompt", TEXTS[0], "-k", 3, "--json"))
    assert len(masked["positions"]) == len(masked["ids"]) and len(masked["positions"][0]["here"]) == 3
    assert all(p["rank"] >= 1 for p in masked["positions"])


def test_flags_without_effect():
    folder = FOLDER / "gpt2"
    for command, arguments in (("logits", ["--output", "x.safetensors", "--top-k", "3"]), ("logits", ["--full"]),
                               ("logits", ["--output", "x.npz"]), ("logits", ["--target", "x"]),
                               ("attention", ["--of", "cross"]), ("attention", ["--head", "1", "--output", "x.safetensors"]),
                               ("hidden", ["--layer", "3"]), ("logits", ["--ids", "1,x"])):
        prompt = [] if "--ids" in arguments else ["--prompt", "x"]
        run("inspect", command, folder, *prompt, *arguments, exit=2)
    run("inspect", "logits", folder, "--ids", "1,100000", exit=3)


try:
    main(dict(globals()))
finally:
    shutil.rmtree(FOLDER)
