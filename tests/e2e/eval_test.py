"""llmtk eval: perplexity, log-probabilities and choices on small random models are what transformers computes."""

import json
import math
import pathlib
import shutil
import tempfile

import torch
from transformers import T5Config, T5ForConditionalGeneration

from support import TEXT, json_lines, main, make_model, make_tokenizer, run

torch.set_num_threads(1)
FOLDER = pathlib.Path(tempfile.mkdtemp(prefix="llmtk-e2e-eval-"))
GPT2, LLAMA = FOLDER / "gpt2", FOLDER / "llama"
MODELS = {GPT2: make_model(GPT2, "gpt2"), LLAMA: make_model(LLAMA, "llama", seed=1)}
DOCUMENT = "".join(TEXT)
ROWS = [("The quick brown", " fox"), ("床前明月光，", "疑是地上霜。举头望明月"),
        ("To be, or not to be, that is", " the question. 🙂"), ("a", "b"), ("", "nothing before this"), ("the fo", "x jumps")]


def near(got, expected, what=""):
    scale = max(abs(x) for x in expected)
    assert len(got) == len(expected), (what, got, expected)
    assert max(abs(a - b) for a, b in zip(got, expected)) < 5e-5 * scale, (what, got, expected)


def logprobs_of(model, context, targets):
    """One row alone, in plain transformers."""
    with torch.no_grad():
        logits = model(torch.tensor([context + targets[:-1]])).logits[0].log_softmax(-1)
    return [logits[len(context) + t - 1, id].item() for t, id in enumerate(targets)]


def ids_of(tokenizer, prompt, completion):
    whole, prefix = tokenizer(prompt + completion).input_ids, tokenizer(prompt).input_ids
    cut = next((i for i, (a, b) in enumerate(zip(prefix, whole)) if a != b), len(prefix))
    return whole[:cut] or [tokenizer.bos_token_id], whole[cut:]


def reference_perplexity(model, ids, max_length, stride):
    """As the guide of transformers has it: the loss of each window over the tokens that are new in it."""
    nll, tokens, previous = 0.0, 0, 0
    for begin in range(0, len(ids), stride):
        end = min(begin + max_length, len(ids))
        window = torch.tensor([ids[begin:end]])
        target = window.clone()
        target[:, :-(end - previous)] = -100
        counted = (target[:, 1:] != -100).sum().item()
        if counted:
            with torch.no_grad():
                nll += model(window, labels=target).loss.item() * counted
            tokens += counted
        previous = end
        if end == len(ids):
            break
    return math.exp(nll / tokens), tokens


def write_rows(name, rows):
    path = FOLDER / name
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return path


def test_perplexity_is_that_of_strided_windows():
    book = FOLDER / "book.txt"
    book.write_text(DOCUMENT)
    for folder, (model, tokenizer) in MODELS.items():
        ids = tokenizer(DOCUMENT).input_ids
        assert len(ids) > 3 * 96
        for flags, max_length, stride in (([], 96, 48), (["--stride", 96], 96, 96),
                                          (["--max-length", 40, "--stride", 7], 40, 7)):
            perplexity, tokens = reference_perplexity(model, ids, max_length, stride)
            for batch in (1, 5):
                found = json.loads(run("eval", "perplexity", folder, book, *flags, "--batch-size", batch, "--json"))
                assert found["tokens"] == tokens, (flags, found, tokens)
                near([found["perplexity"]], [perplexity], (folder, flags))
                assert (found["max_length"], found["stride"]) == (max_length, stride)
                # A character of a byte-level token is a byte; the first token of the text, or of each window, does not count.
                left_out = ids[::max_length] if stride == max_length else ids[:1]
                size = len(DOCUMENT.encode()) - sum(map(len, tokenizer.convert_ids_to_tokens(left_out)))
                assert found["bytes"] == size and tokens == len(ids) - len(left_out)
                bits = found["nll_per_token"] * tokens / math.log(2) / size
                assert abs(found["bits_per_byte"] - bits) < 1e-9
    # Rows are texts of their own; the sum is over all.
    rows = write_rows("texts.jsonl", [{"body": text} for text in TEXT[:3]])
    model, tokenizer = MODELS[GPT2]
    found = json.loads(run("eval", "perplexity", GPT2, rows, book, "--text-field", "body", "--json"))
    parts = [reference_perplexity(model, tokenizer(text).input_ids, 96, 48) for text in [*TEXT[:3], DOCUMENT]]
    tokens = sum(n for _, n in parts)
    near([found["nll_per_token"]], [sum(math.log(p) * n for p, n in parts) / tokens])
    assert found["tokens"] == tokens and found["texts"] == 4
    shown = run("eval", "perplexity", GPT2, book)
    assert "perplexity" in shown and "tokens" in shown


def test_scores_are_transformers_token_by_token():
    rows = write_rows("rows.jsonl", [{"prompt": p, "completion": c} for p, c in ROWS] + [{"text": t} for t in TEXT[:3]])
    for folder, (model, tokenizer) in MODELS.items():
        answers = []
        for batch in (1, 4):
            found = json_lines(run("eval", "score", folder, rows, "--batch-size", batch, "--json"))
            answers.append(found)
            expected = [ids_of(tokenizer, *row) for row in ROWS]
            expected += [(ids[:1], ids[1:]) for ids in (tokenizer(t).input_ids for t in TEXT[:3])]
            assert [row["index"] for row in found] == list(range(len(expected)))
            for got, (context, targets) in zip(found, expected):
                assert got["context_ids"] == context and got["ids"] == targets, (got, context, targets)
                assert got["tokens"] == tokenizer.convert_ids_to_tokens(targets)
                near(got["logprobs"], logprobs_of(model, context, targets), got)
                assert abs(got["logprob"] - sum(got["logprobs"])) < 1e-6
        for one, many in zip(*answers):
            near(many["logprobs"], one["logprobs"])
    one = json_lines(run("eval", "score", GPT2, "--prompt", ROWS[1][0], "--completion", ROWS[1][1], "--json"))
    first = json_lines(run("eval", "score", GPT2, rows, "--json"))
    near(one[0]["logprobs"], first[1]["logprobs"])
    text = json_lines(run("eval", "score", GPT2, "--text", TEXT[0], "--json"))
    near(text[0]["logprobs"], first[len(ROWS)]["logprobs"])
    shown = run("eval", "score", GPT2, "--text", "The quick")
    assert f"{json_lines(run('eval', 'score', GPT2, '--text', 'The quick', '--json'))[0]['logprob']:.6f}" in shown


def test_scores_of_an_encoder_decoder():
    folder = FOLDER / "t5"
    tokenizer = make_tokenizer(folder)
    torch.manual_seed(3)
    model = T5ForConditionalGeneration(T5Config(vocab_size=len(tokenizer), d_model=32, d_kv=8, d_ff=64, num_layers=2,
                                                num_heads=4, decoder_start_token_id=0, pad_token_id=0, eos_token_id=0)).eval()
    model.save_pretrained(folder)
    pairs = [row for row in ROWS if row[0]]
    rows = write_rows("pairs.jsonl", [{"prompt": p, "completion": c} for p, c in pairs])
    for batch in (1, 5):
        found = json_lines(run("eval", "score", folder, rows, "--batch-size", batch, "--json"))
        for got, (prompt, completion) in zip(found, pairs, strict=True):
            labels = tokenizer(completion).input_ids
            with torch.no_grad():
                logits = model(torch.tensor([tokenizer(prompt).input_ids]), labels=torch.tensor([labels])).logits[0]
            assert got["ids"] == labels
            near(got["logprobs"], [logits.log_softmax(-1)[t, id].item() for t, id in enumerate(labels)])
    # generation_config.json's start token goes first, as in generate().
    generation = json.loads((folder / "generation_config.json").read_text())
    (folder / "generation_config.json").write_text(json.dumps(generation | {"decoder_start_token_id": 7}))
    labels = tokenizer(pairs[0][1]).input_ids
    with torch.no_grad():
        logits = model(torch.tensor([tokenizer(pairs[0][0]).input_ids]),
                       decoder_input_ids=torch.tensor([[7] + labels[:-1]])).logits[0]
    near(json_lines(run("eval", "score", folder, rows, "--json"))[0]["logprobs"],
         [logits.log_softmax(-1)[t, id].item() for t, id in enumerate(labels)])
    run("eval", "score", folder, "--text", "The quick", exit=2)
    run("eval", "perplexity", folder, write_rows("text.jsonl", [{"text": "The quick"}]), exit=2)


def test_the_start_of_a_text():
    """An empty prompt begins with generation_config.json's bos; what the tokenizer puts before a text is never cut off."""
    from tokenizers import processors

    folder = FOLDER / "bos"
    model, tokenizer = make_model(folder, "gpt2", seed=2)
    generation = json.loads((folder / "generation_config.json").read_text())
    (folder / "generation_config.json").write_text(json.dumps(generation | {"bos_token_id": 9}))
    got = json_lines(run("eval", "score", folder, "--prompt", "", "--completion", "The fox", "--json"))[0]
    assert got["context_ids"] == [9]
    near(got["logprobs"], logprobs_of(model, [9], tokenizer("The fox").input_ids))
    (folder / "generation_config.json").write_text(json.dumps(generation | {"bos_token_id": 10_000}))
    assert "bos_token_id" in run("eval", "score", folder, "--completion", "The fox", exit=2)[1]
    (folder / "generation_config.json").unlink()

    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<|endoftext|> $A", pair="<|endoftext|> $A <|endoftext|> $B", special_tokens=[("<|endoftext|>", 0)])
    tokenizer.save_pretrained(folder)
    rows = write_rows("long_bos.jsonl", [{"prompt": "fox " * 100, "completion": "jumps"}])
    got = json_lines(run("eval", "score", folder, rows, "--truncate", "--json"))[0]
    context, targets = ids_of(tokenizer, "fox " * 100, "jumps")
    assert context[0] == 0 and got["context_ids"] == [0] + context[len(context) + len(targets) - 96:], got
    near(got["logprobs"], logprobs_of(model, got["context_ids"], targets))


def test_neighbours_do_not_turn_angles():
    """Angles that depend on the longest row of a batch, wherever config.json says so: rows of other lengths run apart."""
    from transformers import AutoConfig, AutoModelForCausalLM

    small = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
                 head_dim=8)
    theta = {"rope_theta": 10000.0}
    dynamic = dict(max_position_embeddings=16, rope_parameters={"rope_type": "dynamic", "factor": 2.0, **theta})
    long = {"rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [3.0] * 4, "factor": 4.0, **theta,
            "original_max_position_embeddings": 16}
    nested = dict(max_position_embeddings=64, layer_types=["full_attention"] * 2, rope_parameters={
        "full_attention": long, "sliding_attention": {"rope_type": "default", **theta}})
    for family, rope in (("llama", dynamic), ("gemma3_text", nested)):
        folder = FOLDER / family
        tokenizer = make_tokenizer(folder)
        torch.manual_seed(4)
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(
            family, vocab_size=len(tokenizer), **small, **rope)).eval()
        model.save_pretrained(folder)
        rows = write_rows("rope.jsonl", [{"prompt": "The quick ", "completion": "fox " * n} for n in (2, 9, 2, 5)])
        found = [json_lines(run("eval", "score", folder, rows, "--batch-size", batch, "--json")) for batch in (1, 4)]
        for one, many in zip(*found):
            near(many["logprobs"], one["logprobs"], family)


QUESTIONS = [{"prompt": p, "choices": [c, " jumps over the lazy dog", "x", "月光光月光"], "label": i % 4}
             for i, (p, c) in enumerate(ROWS * 3)]


def test_choices():
    questions = write_rows("questions.jsonl", QUESTIONS)
    model, tokenizer = MODELS[GPT2]
    right = [0, 0, 0]
    kept = FOLDER / "choices.jsonl"
    found = json.loads(run("eval", "choice", GPT2, questions, "--separator", "", "--json", "--output", kept))
    results = json_lines(kept.read_text())[1:]
    for question, result in zip(QUESTIONS, results, strict=True):
        logprobs = [logprobs_of(model, *ids_of(tokenizer, question["prompt"], c)) for c in question["choices"]]
        sums = [sum(x) for x in logprobs]
        near(result["logprobs"], sums)
        for i, lengths in enumerate(([1] * 4, [len(x) for x in logprobs], [len(c) for c in question["choices"]])):
            best = max(range(4), key=lambda c: sums[c] / lengths[c])
            key = ("prediction", "prediction_per_token", "prediction_per_character")[i]
            assert result[key] == best, (key, question, result)
            right[i] += best == question["label"]
    assert len({tuple(r[k] for r in results) for k in ("prediction", "prediction_per_token")}) == 2  # lengths count
    expected = [n / len(QUESTIONS) for n in right]
    assert [found[k] for k in ("accuracy", "accuracy_per_token", "accuracy_per_character")] == expected, (found, expected)
    assert found["questions"] == len(QUESTIONS)

    # The same under other names, with labels as letters and as texts, and with a blank as the separator.
    other = write_rows("other.jsonl", [{"question": q["prompt"], "options": q["choices"],
                                        "answer": "ABCD"[q["label"]] if i % 2 else q["choices"][q["label"]]}
                                       for i, q in enumerate(QUESTIONS)])
    names = ["--prompt-field", "question", "--choices-field", "options", "--label-field", "answer"]
    again = json.loads(run("eval", "choice", GPT2, other, *names, "--separator", "", "--json", "--batch-size", 3))
    assert again == found
    spaced = write_rows("spaced.jsonl", [dict(q, choices=[" " + c for c in q["choices"]]) for q in QUESTIONS])
    blank = json.loads(run("eval", "choice", GPT2, questions, "--json"))
    assert blank["accuracy"] == json.loads(run("eval", "choice", GPT2, spaced, "--separator", "", "--json"))["accuracy"]


def test_errors_name_what_is_wrong():
    def error(rows, *flags, exit=3, command="score"):
        return run("eval", command, GPT2, write_rows("bad.jsonl", rows), *flags, exit=exit)[1]

    good = {"prompt": "a", "completion": "b"}
    assert "bad.jsonl:2: a row without a text" in error([good, {"prompt": "a"}])
    assert "bad.jsonl:1: a row with both" in error([{"text": "a", "completion": "b"}])
    assert "bad.jsonl:1: the row is longer" in error([{"prompt": "fox " * 100, "completion": "b"}])
    assert "the text 'completion'" in error([{"prompt": "a", "completion": 3}])
    assert "nothing to score" in error([{"prompt": "a", "completion": ""}])
    assert "at least 2" in error([{"text": "a"}])
    assert "none of the choices" in error([{"prompt": "a", "choices": ["b", "c"], "label": 2}], command="choice")
    assert "at least two texts" in error([{"prompt": "a", "choices": ["b"], "label": 0}], command="choice")
    (FOLDER / "bad.jsonl").write_text("[1]\n")
    run("eval", "choice", GPT2, FOLDER / "bad.jsonl", exit=3)
    run("eval", "choice", GPT2, FOLDER / "missing.jsonl", exit=5)
    run("eval", "perplexity", GPT2, FOLDER / "book.txt", "--max-length", 97, exit=2)
    run("eval", "perplexity", GPT2, FOLDER / "book.txt", "--max-length", 40, "--stride", 41, exit=2)
    run("eval", "score", GPT2, exit=2)
    run("eval", "score", GPT2, "--prompt", "a", exit=2)
    run("eval", "score", GPT2, "--text", "a fox", "--truncate", exit=2)
    run("eval", "perplexity", GPT2, FOLDER / "book.txt", "--text-field", "body", exit=2)
    run("eval", "perplexity", FOLDER / "t5", FOLDER / "book.txt", exit=2)
    # Results of somebody else stay as they are, with a line's end or without; so do results that are none of this command's.
    kept, questions = FOLDER / "kept.jsonl", write_rows("few.jsonl", QUESTIONS[:3])
    run("eval", "choice", GPT2, questions, "--output", kept)
    first = kept.read_text().splitlines(keepends=True)[0]
    for text in ('{"precious": 1}', "precious", '{"precious": 1}\n', first + '{"other": 1}\n', first + "{broken\n"):
        kept.write_text(text)
        assert str(kept) in run("eval", "choice", GPT2, questions, "--output", kept, exit=5)[1]
        assert kept.read_text() == text
    # The end of a prompt that is too long, where that is asked for.
    model, tokenizer = MODELS[GPT2]
    long = write_rows("long.jsonl", [{"prompt": "fox " * 100, "completion": "jumps"}])
    context, targets = ids_of(tokenizer, "fox " * 100, "jumps")
    got = json_lines(run("eval", "score", GPT2, long, "--truncate", "--json"))[0]
    assert got["context_ids"] == context[len(context) + len(targets) - 97:], got
    near(got["logprobs"], logprobs_of(model, got["context_ids"], targets))


try:
    main(dict(globals()))
finally:
    shutil.rmtree(FOLDER)
