"""llmtk lora merge and --adapter: adapters that peft saved, on small random models; what comes out is what peft gives."""

import json
import math
import pathlib
import tempfile
import warnings

import torch
import transformers
from peft import IA3Config, LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from support import TEXT, json_lines, main, make_bert, make_model, run

warnings.filterwarnings("ignore")
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()
FOLDER = pathlib.Path(tempfile.mkdtemp(prefix="llmtk-e2e-lora-"))
GPT2, LLAMA = FOLDER / "gpt2", FOLDER / "llama"
MODELS = {GPT2: make_model(GPT2, "gpt2"), LLAMA: make_model(LLAMA, "llama", seed=1, tie_word_embeddings=True)}
BOOK = FOLDER / "book.txt"
BOOK.write_text("".join(TEXT))
PROMPTS = ["The quick brown", "床前明月光，"]


def make_adapter(name, base, model_class=AutoModelForCausalLM, seed=3, **settings):
    """A random adapter on the base, as peft saves it."""
    model = get_peft_model(model_class.from_pretrained(base), LoraConfig(**{"task_type": "CAUSAL_LM", **settings}))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            if p.requires_grad:
                p.add_(torch.randn(p.shape, generator=generator) * 0.2)
    model.save_pretrained(FOLDER / name)
    return FOLDER / name


FIRST = make_adapter("first", GPT2, r=4, lora_alpha=8)
SECOND = make_adapter("second", GPT2, r=2, target_modules=["c_attn", "c_fc"], seed=4)
HEAD = make_adapter("head", LLAMA, r=4, target_modules=["lm_head", "q_proj"], use_dora=True)


def adapted(base, *adapters):
    return PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapters[0]).eval()


def combined(weights):
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(GPT2), FIRST, "a")
    model.load_adapter(SECOND, "b")
    model.add_weighted_adapter(["a", "b"], weights, "sum", combination_type="cat")
    model.set_adapter("sum")
    return model.eval()


def logits(model):
    with torch.no_grad():
        return model(input_ids=torch.arange(1, 41).reshape(2, 20)).logits.float()


def close(a, b, bound=5e-5):
    return (a - b).abs().max() <= bound * b.abs().max()


def merge(*arguments, **more):
    out = run("lora", "merge", *arguments, "--json", **more)
    return json.loads(out) if isinstance(out, str) else out


def test_merged_models_open_in_transformers_and_compute_what_the_adapter_did():
    for base, adapter in ((GPT2, FIRST), (LLAMA, HEAD)):
        target = FOLDER / f"merged-{adapter.name}"
        receipt = merge("--model", base, "--adapter", adapter, "--output", target, "--text", BOOK, "--max-kl", 1e-6)
        reference = adapted(base, adapter)
        merged = AutoModelForCausalLM.from_pretrained(target)
        assert close(logits(merged), logits(reference)), adapter.name
        assert receipt["largest_logit_difference"] < 1e-4 * receipt["largest_logit"]
        ids = MODELS[base][1](BOOK.read_text(), return_tensors="pt").input_ids
        assert receipt["tokens"] == ids.numel()
        rows = ids[0].split(96)
        for name, model in (("base", MODELS[base][0]), ("adapter", reference), ("merged", merged)):
            with torch.no_grad():
                losses = [model(input_ids=row[None], labels=row[None]).loss * (len(row) - 1) for row in rows if len(row) > 1]
            expected = math.exp(sum(losses) / sum(len(row) - 1 for row in rows if len(row) > 1))
            assert math.isclose(receipt["perplexity"][name], expected, rel_tol=1e-4), (name, receipt, expected)
        config = json.loads((target / "config.json").read_text())
        assert config["tie_word_embeddings"] == (base == GPT2) and receipt["untied"] == ([] if base == GPT2 else ["lm_head.weight"])
        assert (target / "tokenizer.json").exists()


def test_the_adapter_names_its_base_and_weights_are_summed():
    receipt = merge("--adapter", f"{FIRST}=0.5", "--adapter", SECOND, "--output", FOLDER / "both")
    assert receipt["text"] is None and "perplexity" not in receipt
    assert close(logits(AutoModelForCausalLM.from_pretrained(FOLDER / "both")), logits(combined([0.5, 1.0])))
    shown = run("lora", "merge", "--adapter", FIRST, "--output", FOLDER / "shown", "--text", BOOK)
    assert "mean KL" in shown and "perplexity: base" in shown


def test_a_bound_that_is_missed_writes_nothing():
    target = FOLDER / "never"
    merge("--adapter", FIRST, "--output", target, "--dtype", "bfloat16", "--max-kl", 1e-9, exit=7)
    assert not target.exists()
    merge("--adapter", FIRST, "--output", GPT2, exit=2)
    merge("--adapter", FIRST, "--output", FOLDER / "both", exit=2)
    merge("--adapter", FIRST, "--output", target, "--max-tokens", 9, exit=2)
    merge("--adapter", f"{FIRST}=much", "--output", target, exit=2)
    merge("--adapter", FOLDER / "none", "--model", GPT2, "--output", target, exit=5)
    merge("--adapter", FIRST, "--model", LLAMA, "--output", target, exit=2)
    scales = IA3Config(task_type="CAUSAL_LM", target_modules=["c_attn"], feedforward_modules=[])
    get_peft_model(AutoModelForCausalLM.from_pretrained(GPT2), scales).save_pretrained(FOLDER / "ia3")
    merge("--adapter", FOLDER / "ia3", "--model", GPT2, "--output", target, exit=2)
    assert not target.exists()


def test_generate_eval_and_inspect_take_adapters():
    for flags, reference in ((["--adapter", FIRST], adapted(GPT2, FIRST)),
                             (["--adapter", f"{FIRST}=0.7", "--adapter", f"{SECOND}=0.4"], combined([0.7, 0.4]))):
        prompts = [word for prompt in PROMPTS for word in ("--prompt", prompt)]
        for more, settings in (([], {}), (["--num-beams", 3], dict(num_beams=3))):
            found = json_lines(run("generate", GPT2, *flags, *prompts, "--max-new-tokens", 16, *more, "--json"))
            for prompt, got in zip(PROMPTS, found):
                ids = MODELS[GPT2][1](prompt, return_tensors="pt").input_ids
                expected = reference.generate(input_ids=ids, max_new_tokens=16, do_sample=False, pad_token_id=0, **settings)
                assert got["ids"] == expected[0, ids.shape[1]:].tolist(), (flags, prompt)
        found = json.loads(run("inspect", "logits", GPT2, *flags, "--prompt", PROMPTS[0], "--json", "-k", 3))
        ids = torch.tensor([found["ids"]])
        with torch.no_grad():
            best = reference(input_ids=ids).logits[0, -1].log_softmax(-1).topk(3)
        assert [n["id"] for n in found["positions"][-1]["next"]] == best.indices.tolist()
    scores = [json.loads(run("eval", "perplexity", *model, BOOK, "--json"))["perplexity"]
              for model in ((GPT2, "--adapter", FIRST), (FOLDER / "merged-first",), (GPT2,))]
    assert math.isclose(scores[0], scores[1], rel_tol=1e-4) and abs(scores[0] - scores[2]) > 1e-3


def greedy(model, prompt):
    ids = MODELS[GPT2][1](prompt, return_tensors="pt").input_ids
    return model.generate(input_ids=ids, max_new_tokens=12, do_sample=False, pad_token_id=0)[0, ids.shape[1]:].tolist()


def test_rows_switch_between_adapters():
    """As peft's set_adapter and disable_adapter, row by row; what stands in no row is the command line's."""
    choices = {None: combined([0.7, 0.4]), "first": adapted(GPT2, FIRST), "second": adapted(GPT2, SECOND),
               "base": MODELS[GPT2][0], "mixed": combined([-0.3, 0.5])}
    written = {"first": "first=1", "second": ["second=1"], "base": None, "mixed": ["second=0.5", "first=-0.3"]}
    order = [None, "first", "first", "base", "second", "mixed", None, "base", "first"]
    rows = [{"prompt": PROMPTS[i % 2]} | ({} if name is None else {"adapter": written[name]}) for i, name in enumerate(order)]
    file = FOLDER / "switched.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    flags = ["--adapter", f"{FIRST}=0.7", "--adapter", f"{SECOND}=0.4", "--max-new-tokens", 12]
    found = json_lines(run("generate", GPT2, *flags, "--prompts-file", file, "--json"))
    for i, (name, row, got) in enumerate(zip(order, rows, found)):
        assert got["prompt_index"] == i and got["ids"] == greedy(choices[name], row["prompt"]), (i, name)
    assert len({tuple(greedy(model, PROMPTS[0])) for model in choices.values()}) == len(choices)
    titles = run("generate", GPT2, *flags, "--prompts-file", file).split("=== ")[1:]
    assert [title.split("\n")[0] for title in titles] == [row["prompt"] for row in rows]

    drawn = [json_lines(run("generate", GPT2, *flags, "--prompts-file", write_rows(*part), "--do-sample", "--seed", 3, "--json"))
             for part in ([rows[3], rows[7]], [rows[3], rows[1], rows[7]])]
    assert drawn[0][0]["ids"] == drawn[1][0]["ids"]
    for adapter, said, code in (("third", "first, second", 2), ("first=much", "number", 2), ({"first": 1}, "a row's adapter is no name", 3)):
        message = run("generate", GPT2, *flags, "--prompts-file", write_rows({"prompt": "a", "adapter": adapter}), exit=code)[1]
        assert said in message and "rows.jsonl:1" in message, message


def write_rows(*rows):
    (FOLDER / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return FOLDER / "rows.jsonl"


def test_a_chat_switches_between_adapters():
    """What was read with one adapter is read again with the other, and reused where none changed."""
    template = FOLDER / "plain.jinja"
    template.write_text("{% for m in messages %}{{ m['content'] }} {% endfor %}")
    flags = ["--adapter", f"{FIRST}=0.7", "--adapter", f"{SECOND}=0.4", "--max-new-tokens", 6, "--template", template]
    said = ["The quick", "/adapter second=1", "brown fox", "/adapter second=1", "jumps", "/adapter base", "over", "/adapter all", "the"]
    used = [combined([0.7, 0.4]), adapted(GPT2, SECOND), adapted(GPT2, SECOND), MODELS[GPT2][0], combined([0.7, 0.4])]
    turns = json_lines(run("generate", GPT2, "--chat", "--json", *flags, stdin="\n".join(said) + "\n"))
    assert len(turns) == len(used)
    text, tokenizer = "", MODELS[GPT2][1]
    for i, (words, turn, model) in enumerate(zip([w for w in said if w[0] != "/"], turns, used)):
        text += words + " "
        ids = tokenizer(text, return_tensors="pt", add_special_tokens=False).input_ids
        expected = model.generate(input_ids=ids, max_new_tokens=6, do_sample=False, pad_token_id=0)[0, ids.shape[1]:].tolist()
        assert turn["ids"] == expected, i
        assert (turn["reused_tokens"] > 0) == (i == 2), turns
        text += turn["content"] + " "
    assert "no adapter of this name" in run("generate", GPT2, "--chat", *flags, stdin="/adapter third\n", exit=2)[1]
    listed = run("generate", GPT2, "--chat", *flags, stdin="/adapter first\n/adapter third\n", exit=2)[1]
    assert "* first=0.7\n  second=0.4" in listed, listed


def test_what_cannot_be_switched_is_named():
    """An adapter that brought weights of the model itself."""
    adapter = make_adapter("with-head", LLAMA, r=4, target_modules=["q_proj"], modules_to_save=["lm_head"])
    rows = write_rows({"prompt": "a", "adapter": None})
    assert "rows.jsonl:1" in run("inspect", "logits", LLAMA, "--prompts-file", rows, exit=2)[1]
    message = run("generate", LLAMA, "--adapter", adapter, "--prompts-file", rows, exit=2)[1]
    assert "changed the model itself" in message and "with-head" in message


def test_other_work_of_eval_is_told_by_the_adapter():
    out = FOLDER / "results.jsonl"
    run("eval", "perplexity", GPT2, BOOK, "--adapter", FIRST, "--output", out)
    run("eval", "perplexity", GPT2, BOOK, "--adapter", FIRST, "--output", out)
    run("eval", "perplexity", GPT2, BOOK, "--adapter", SECOND, "--output", out, exit=2)


def test_a_head_comes_with_its_adapter():
    base = FOLDER / "bert"
    _, tokenizer = make_bert(base, "MaskedLM", labels=("a", "b", "c"))
    opened = transformers.AutoModelForTokenClassification
    adapter = make_adapter("tagger", base, opened, task_type="TOKEN_CLS", r=4)
    inputs = tokenizer("the quick fox", return_tensors="pt")
    reference = PeftModel.from_pretrained(opened.from_pretrained(base), adapter).eval()
    with torch.no_grad():
        expected = reference(**inputs).logits
    target = FOLDER / "tagger.safetensors"
    run("inspect", "logits", base, "--adapter", adapter, "--prompt", "the quick fox", "--output", target)
    assert close(load_file(target)["logits"].view_as(expected), expected)
    merge("--adapter", adapter, "--output", FOLDER / "merged-tagger")
    merged = opened.from_pretrained(FOLDER / "merged-tagger")
    with torch.no_grad():
        assert close(merged(**inputs).logits, expected)


main(globals())
