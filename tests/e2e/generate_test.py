"""llmtk generate: every flag, on small random models; what comes out is what transformers gives."""

import json
import os
import pathlib
import pty
import shutil
import socket
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor

import torch

from support import BIN, json_lines, main, make_model, run

FOLDER = pathlib.Path(tempfile.mkdtemp(prefix="llmtk-e2e-generate-"))
GPT2, LLAMA = FOLDER / "gpt2", FOLDER / "llama"
MODELS = {GPT2: make_model(GPT2, "gpt2"), LLAMA: make_model(LLAMA, "llama", seed=1)}
PROMPTS = ["The quick brown", "床前明月光，", "To be, or not to be, that is the question, the fox jumps", "🙂"]


def generate(folder, *arguments, **more):
    """The completions, without the last line with the timings."""
    lines = json_lines(run("generate", folder, "--json", *arguments, **more))
    assert list(lines[-1])[0] == "timings", lines[-1]
    return lines[:-1]


def prompt_flags(prompts):
    return [word for prompt in prompts for word in ("--prompt", prompt)]


def reference(folder, prompt, **settings):
    """New ids and their log-probabilities (of the model's own distribution), one prompt at a time."""
    model, tokenizer = MODELS[folder]
    ids = tokenizer(prompt, return_tensors="pt").input_ids
    out = model.generate(ids, pad_token_id=0, output_logits=True, return_dict_in_generate=True, **settings)
    new = out.sequences[0, ids.shape[1]:].tolist()
    logprobs = [logits[0].float().log_softmax(-1)[i].item() for logits, i in zip(out.logits, new)]
    return new, logprobs


def test_greedy_batches_are_transformers_one_by_one():
    for folder in MODELS:
        for flags, settings in (
            ([], {}),
            (["--repetition-penalty", "1.3"], dict(repetition_penalty=1.3)),
            (["--min-new-tokens", "12", "--eos-token-id", "300", "--eos-token-id", "17"],
             dict(min_new_tokens=12, eos_token_id=[300, 17])),
        ):
            found = generate(folder, *prompt_flags(PROMPTS), "--max-new-tokens", 24, *flags)
            assert len(found) == len(PROMPTS)
            for prompt, got in zip(PROMPTS, found):
                new, logprobs = reference(folder, prompt, max_new_tokens=24, do_sample=False, **settings)
                assert got["ids"] == new, (folder.name, prompt, flags, got["ids"], new)
                assert max(abs(a - b) for a, b in zip(got["logprobs"], logprobs)) < 2e-4
                tokenizer = MODELS[folder][1]
                assert got["prompt_ids"] == tokenizer(prompt).input_ids
                assert got["tokens"] == tokenizer.convert_ids_to_tokens(new)
                assert got["text"] == tokenizer.decode(new, skip_special_tokens=True)


def test_batch_size_changes_nothing():
    for more in ([], ["--do-sample", "--seed", 3, "--num-return-sequences", 3, "--temperature", 1.5, "--top-k", 0]):
        texts = [[(c["prompt_index"], c["sequence"], c["ids"]) for c in
                  generate(LLAMA, *prompt_flags(PROMPTS), *more, "--batch-size", size)]
                 for size in (1, 5 if more else 3)]
        assert texts[0] == texts[1]
        assert [t[:2] for t in texts[0]] == [(p, s) for p in range(4) for s in range(3 if more else 1)]


def test_sampling_depends_on_the_seed():
    def text(*flags):
        return generate(GPT2, "--prompt", "The", "--do-sample", "--temperature", 2, *flags)[0]["ids"]
    assert text("--seed", 1) == text("--seed", 1) != text("--seed", 2)
    assert text() != text()
    lines = json_lines(run("generate", GPT2, "--prompt", "The", "--do-sample", "--json"))
    again = generate(GPT2, "--prompt", "The", "--do-sample", "--seed", lines[-1]["seed"])
    assert again[0]["ids"] == lines[0]["ids"]


def test_filters_keep_what_they_say():
    greedy = generate(GPT2, "--prompt", "The fox")[0]["ids"]
    for flags in (["--top-k", 1], ["--top-p", 0.0001], ["--min-p", 1.0], ["--temperature", 0.0001],
                  ["--typical-p", 1, "--top-k", 1]):
        assert generate(GPT2, "--prompt", "The fox", "--do-sample", "--seed", 5, *flags)[0]["ids"] == greedy, flags
    # One draw of 64 rows: all among the model's three best.
    model, tokenizer = MODELS[GPT2]
    best = model(tokenizer("The fox", return_tensors="pt").input_ids).logits[0, -1].topk(3).indices.tolist()
    rows = generate(GPT2, "--prompt", "The fox", "--do-sample", "--seed", 1, "--top-k", 3, "--temperature", 10,
                    "--num-return-sequences", 64, "--max-new-tokens", 1, "--batch-size", 64)
    drawn = {row["ids"][0] for row in rows}
    assert drawn == set(best)


def test_lengths():
    assert len(generate(GPT2, "--prompt", "The")[0]["ids"]) == 20
    n = len(MODELS[GPT2][1]("The quick").input_ids)
    assert len(generate(GPT2, "--prompt", "The quick", "--max-length", n + 5)[0]["ids"]) == 5
    # The model's own end; and what does not fit is an error.
    row = generate(GPT2, "--prompt", "The", "--max-new-tokens", 500)[0]
    assert len(row["ids"]) + len(row["prompt_ids"]) == 96 and row["finish_reason"] == "length"
    run("generate", GPT2, "--prompt", "fox " * 200, exit=3)
    run("generate", GPT2, "--prompt", "The quick", "--max-length", 1, exit=3)


def test_ends():
    free = generate(LLAMA, "--prompt", "The", "--max-new-tokens", 12)[0]
    eos = generate(LLAMA, "--prompt", "The", "--max-new-tokens", 12, "--eos-token-id", free["ids"][4])[0]
    assert eos["ids"] == free["ids"][:free["ids"].index(free["ids"][4]) + 1] and eos["finish_reason"] == "eos"
    stop = free["text"][5:8]
    ended = generate(LLAMA, "--prompt", "The", "--max-new-tokens", 12, "--stop-strings", "not there", "--stop", stop)[0]
    assert ended["finish_reason"] == "stop_string" and ended["stop_string"] == stop, ended
    assert ended["text"] == free["text"][:free["text"].index(stop)]


def test_beams():
    """Ids and scores of every beam, best first; with a stop string too, which ends a beam where transformers ends it."""
    for folder in MODELS:
        model, tokenizer = MODELS[folder]
        for stop in ([], ["ov"]):
            found = generate(folder, *prompt_flags(PROMPTS), "--num-beams", 4, "--num-return-sequences", 3,
                             "--length-penalty", 0.7, "--max-new-tokens", 10, "--no-repeat-ngram-size", 3,
                             *[word for s in stop for word in ("--stop", s)])
            for p, prompt in enumerate(PROMPTS):
                ids = tokenizer(prompt, return_tensors="pt").input_ids
                out = model.generate(ids, pad_token_id=0, num_beams=4, num_return_sequences=3, length_penalty=0.7,
                                     max_new_tokens=10, no_repeat_ngram_size=3, return_dict_in_generate=True,
                                     output_scores=True, stop_strings=stop or None, tokenizer=tokenizer)
                for s, got in enumerate(found[3 * p:3 * p + 3]):
                    new = out.sequences[s, ids.shape[1]:].tolist()
                    assert new[:len(got["ids"])] == got["ids"] and not any(new[len(got["ids"]):]), (got, new)
                    assert abs(got["score"] - out.sequences_scores[s].item()) < 2e-4
                    assert got["sequence"] == s and got["text"] == tokenizer.decode(got["ids"], skip_special_tokens=True) or stop
    # Nothing is certain before the end, so the texts come whole; and greedy is one beam.
    text = run("generate", GPT2, "--prompt", "The", "--num-beams", 2, "--max-new-tokens", 4)
    assert text == generate(GPT2, "--prompt", "The", "--num-beams", 2, "--max-new-tokens", 4)[0]["text"] + "\n"
    assert "score" not in generate(GPT2, "--prompt", "The")[0]
    for flags in (["--num-return-sequences", 3, "--num-beams", 2], ["--length-penalty", 2], ["--early-stopping", "true"],
                  ["--bad-words-ids", "[[1], 2]"], ["--bad-words-ids", "[[100000]]"], ["--eta-cutoff", 0.1],
                  ["--min-length", 3, "--min-new-tokens", 3]):
        run("generate", GPT2, "--prompt", "The", *flags, exit=2)


def test_settings_of_the_model():
    """generation_config.json is in force, and the flags over it."""
    folder = FOLDER / "settings"
    shutil.copytree(GPT2, folder)
    settings = {"num_beams": 3, "no_repeat_ngram_size": 2, "max_new_tokens": 8, "bos_token_id": 0, "eos_token_id": 0}
    (folder / "generation_config.json").write_text(json.dumps({**settings, "max_time": 3.0}))
    found = generate(folder, "--prompt", "The fox")[0]
    same = generate(GPT2, "--prompt", "The fox", "--num-beams", 3, "--no-repeat-ngram-size", 2, "--max-new-tokens", 8)[0]
    assert found == same and "score" in found
    assert generate(folder, "--prompt", "The fox", "--num-beams", 1, "--no-repeat-ngram-size", 0,
                    "--max-new-tokens", 8)[0]["ids"] == generate(GPT2, "--prompt", "The fox", "--max-new-tokens", 8)[0]["ids"]
    done = subprocess.run([BIN / "llmtk", "generate", folder, "--prompt", "x"], capture_output=True, text=True)
    assert "max_time=3.0 is not supported" in done.stderr, done.stderr


def test_streams_whole_characters_as_they_come():
    """Every piece that is written is valid UTF-8, and there are many."""
    command = [BIN / "llmtk", "generate", str(GPT2), "--prompt", "床前", "--do-sample", "--seed", "3", "--temperature",
               "9", "--top-k", "0", "--max-new-tokens", "80"]
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)  # keeps what is written apart
    with subprocess.Popen(command, stdout=theirs) as process:
        theirs.close()
        pieces = []
        while piece := ours.recv(4096):
            piece.decode()
            pieces.append(piece)
    assert process.returncode == 0 and len(pieces) > 20, pieces
    lines = generate(GPT2, *command[3:])
    assert b"".join(pieces).decode() == lines[0]["text"] + "\n"


def test_where_prompts_come_from():
    one = run("generate", GPT2, "--prompt", "The quick\nfox")
    assert run("generate", GPT2, stdin="The quick\nfox") == one
    assert run("generate", GPT2, "--prompt", "The quick\nfox", "--return-full-text") == "The quick\nfox" + one

    (FOLDER / "prompts.txt").write_text("\n".join(PROMPTS) + "\n\n")
    (FOLDER / "prompts.jsonl").write_text("".join(json.dumps({key: p}, ensure_ascii=False) + "\n"
                                                  for p, key in zip(PROMPTS, ["prompt", "text", "prompt", "text"])))
    expected = [c["ids"] for c in generate(GPT2, *prompt_flags(PROMPTS))]
    for flags, stdin in ((["--prompts-file", FOLDER / "prompts.txt"], ""),
                         (["--prompts-file", FOLDER / "prompts.jsonl"], ""),
                         (["--prompts-file", "-"], "\r\n".join(PROMPTS)),
                         (["--prompts-file", "-"], "\n".join([json.dumps({"prompt": PROMPTS[0]}), *PROMPTS[1:]]))):
        assert [c["ids"] for c in generate(GPT2, *flags, stdin=stdin)] == expected, flags

    several = run("generate", GPT2, *prompt_flags(PROMPTS[:2]))
    texts = [c["text"] for c in generate(GPT2, *prompt_flags(PROMPTS[:2]))]
    assert several == f"=== {PROMPTS[0]}\n{texts[0]}\n\n=== {PROMPTS[1]}\n{texts[1]}\n", several
    # An empty prompt begins with bos.
    assert generate(GPT2, "--prompt", "")[0]["ids"] == generate(GPT2, "--prompt", "<|endoftext|>")[0]["ids"]


def at_terminal(*arguments, type_in=b""):
    """Everything that a terminal shows of a command that runs in it."""
    terminal, inside = pty.openpty()
    process = subprocess.Popen([BIN / "llmtk", *map(str, arguments)], stdin=inside, stdout=inside, stderr=inside)
    os.close(inside)
    os.write(terminal, type_in)
    shown = b""
    try:
        while piece := os.read(terminal, 4096):
            shown += piece
    except OSError:  # the terminal's end
        pass
    os.close(terminal)
    assert process.wait(timeout=60) == 0, shown
    return shown.decode()


def test_terminals():
    shown = at_terminal("generate", GPT2, "--max-new-tokens", 3, "--return-full-text", type_in=b"The fox\n\x04\x04")
    assert "reading the prompt from standard input; end with Ctrl-D" in shown
    # What a text says to the terminal is spelt out there, and only there.
    prompt = ["--prompt", "\x1b[31mred\u009b", "--max-new-tokens", 3, "--return-full-text"]
    shown = at_terminal("generate", GPT2, *prompt)
    assert shown.startswith("\\x1b[31mred\\xc2\\x9b") and "\x1b" not in shown and "\u009b" not in shown, shown
    assert run("generate", GPT2, *prompt).startswith("\x1b[31mred\u009b")


def test_defaults_are_the_models():
    folder = FOLDER / "with_defaults"
    shutil.copytree(GPT2, folder)
    (folder / "generation_config.json").write_text(json.dumps(
        {"max_new_tokens": 5, "do_sample": True, "temperature": 0.0001, "eos_token_id": 0}))
    greedy = generate(GPT2, "--prompt", "The fox")[0]["ids"]
    assert generate(folder, "--prompt", "The fox")[0]["ids"] == greedy[:5]
    assert generate(folder, "--prompt", "The fox", "--no-do-sample", "--max-new-tokens", 8)[0]["ids"] == greedy[:8]
    n = len(MODELS[GPT2][1]("The fox").input_ids)
    assert len(generate(folder, "--prompt", "The fox", "--max-length", n + 9)[0]["ids"]) == 9


def test_model_tokenizer_dtype_device():
    # By name, from the local cache.
    snapshot = FOLDER / "home/hub/models--me--tiny/snapshots/abc"
    shutil.copytree(GPT2, snapshot)
    (FOLDER / "home/hub/models--me--tiny/refs").mkdir()
    (FOLDER / "home/hub/models--me--tiny/refs/main").write_text("abc")
    expected = generate(GPT2, "--prompt", "The fox")[0]["ids"]
    found = generate("me/tiny", "--prompt", "The fox", env={"HF_HUB_CACHE": str(FOLDER / "home/hub")})
    assert found[0]["ids"] == expected
    # A tokenizer of its own.
    bare = FOLDER / "bare"
    shutil.copytree(GPT2, bare, ignore=shutil.ignore_patterns("tokenizer*", "special*"))
    run("generate", bare, "--prompt", "The fox", exit=5)
    assert generate(bare, "--prompt", "The fox", "--tokenizer", GPT2)[0]["ids"] == expected
    # Types.
    model, tokenizer = make_model(FOLDER / "bf16", "llama", seed=2)
    model.to(torch.bfloat16).save_pretrained(FOLDER / "bf16")
    model.float()
    MODELS[FOLDER / "bf16"] = (model, tokenizer)
    new, _ = reference(FOLDER / "bf16", "The fox", max_new_tokens=8, do_sample=False)
    flags = ["--prompt", "The fox", "--max-new-tokens", 8]
    assert generate(FOLDER / "bf16", *flags, "--dtype", "float32")[0]["ids"] == new
    assert len(generate(FOLDER / "bf16", *flags, "--threads", 1, "--device", "cpu")[0]["ids"]) == 8
    timings = json_lines(run("generate", GPT2, "--prompt", "The fox", "--json"))[-1]["timings"]
    assert timings["new_tokens"] == 20 and timings["decode_tokens_per_second"] > 0
    done = subprocess.run([BIN / "llmtk", "generate", GPT2, "--prompt", "x", "--timings"], capture_output=True, text=True)
    assert "first token" in done.stderr and "first token" not in done.stdout


def test_proposed_tokens_change_nothing():
    repeating = [prompt * 3 for prompt in PROMPTS]
    small = FOLDER / "small"
    make_model(small, "llama", seed=2)
    for flags in ([], ["--do-sample", "--seed", "3", "--top-k", "5"]):
        plain = generate(LLAMA, *prompt_flags(repeating), "--max-new-tokens", 24, *flags)
        for proposer in (["--prompt-lookup-num-tokens", "6"], ["--prompt-lookup-num-tokens", "6", "--max-matching-ngram-size", "1"],
                         ["--assistant-model", small], ["--assistant-model", LLAMA, "--num-assistant-tokens", "3"]):
            lines = json_lines(run("generate", LLAMA, "--json", *prompt_flags(repeating), "--max-new-tokens", 24, *flags, *proposer))
            assert lines[:-1] == plain, (flags, proposer)
            timings = lines[-1]["timings"]
            assert timings["proposed_tokens"] > 0 and 0 <= timings["accepted_tokens"] <= timings["proposed_tokens"]
            if LLAMA in proposer and not flags:
                assert timings["accepted_tokens"] == timings["proposed_tokens"]  # the model itself
    said = subprocess.run([str(word) for word in (BIN / "llmtk", "generate", LLAMA, *prompt_flags(repeating), "--prompt-lookup-num-tokens", 6,
                                                  "--timings")], capture_output=True, text=True).stderr
    assert "proposed tokens" in said and "were taken" in said, said
    template = FOLDER / "last.jinja"
    template.write_text("{{ messages[-1].content }}")
    talk = ["generate", LLAMA, "--chat", "--json", "--template", template, "--prompt", "a b a b", "--prompt", "c", "--max-new-tokens", 8]
    plain, chat = json_lines(run(*talk)), json_lines(run(*talk, "--prompt-lookup-num-tokens", 4))
    assert "proposed_tokens" in chat[0] and "proposed_tokens" not in plain[0]
    assert [turn["ids"] for turn in chat] == [turn["ids"] for turn in plain]
    other = FOLDER / "other-words"
    shutil.copytree(small, other)
    tokenizer = json.loads((other / "tokenizer.json").read_text())
    first, second = list(tokenizer["model"]["vocab"])[40:42]
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]
    (other / "tokenizer.json").write_text(json.dumps(tokenizer))
    failed = run("generate", LLAMA, "--prompt", "a", "--assistant-model", other, exit=2)[1]
    assert "another vocabulary" in failed and "--prompt-lookup-num-tokens" in failed, failed
    for arguments in (["--assistant-model", small, "--prompt-lookup-num-tokens", "3"], ["--prompt-lookup-num-tokens", "3", "--num-beams", "2"],
                      ["--prompt-lookup-num-tokens", "0"]):
        run("generate", LLAMA, "--prompt", "a", *arguments, exit=2)


def test_a_cache_of_8_bits():
    plain, small = (generate(LLAMA, *prompt_flags(PROMPTS), "--max-new-tokens", 12, *flags)
                    for flags in ([], ["--kv-cache-dtype", "int8"]))
    assert len(small) == len(plain)
    # Close, not equal: the first token's probability is that of keys and values that were rounded.
    for a, b in zip(plain, small):
        assert a["logprobs"][0] != b["logprobs"][0] and abs(a["logprobs"][0] - b["logprobs"][0]) < 0.1
    run("generate", LLAMA, "--prompt", "a", "--kv-cache-dtype", "int4", exit=2)


def test_errors_say_what_and_exit_with_their_codes():
    (FOLDER / "empty.txt").write_text("\n \n")
    (FOLDER / "bad.jsonl").write_text('{"prompt": "x"}\n{"question": "y"}\n')
    (FOLDER / "long.txt").write_text("x\n\n" + "fox " * 200 + "\n")
    p = ["--prompt", "x"]
    cases = [
        (5, "no such folder", ["no/such/model/here", *p]),
        (5, "hf download nosuchmodel", ["nosuchmodel", *p]),
        (2, "--no-such-flag", [GPT2, *p, "--no-such-flag"]),
        (2, "model", []),
        (2, "tpu", [GPT2, *p, "--device", "tpu"]),
        (2, "cuda", [GPT2, *p, "--device", "cuda:99"]),
        (2, "int3", [GPT2, *p, "--dtype", "int3"]),
        (2, "--do-sample", [GPT2, *p, "--temperature", "0.5"]),
        (2, "--seed", [GPT2, *p, "--seed", "1"]),
        (2, "--temperature", [GPT2, *p, "--do-sample", "--temperature", "0"]),
        (2, "--top-k", [GPT2, *p, "--top-k", "many"]),
        (2, "--max-new-tokens", [GPT2, *p, "--max-new-tokens", "0"]),
        (2, "--do-sample", [GPT2, *p, "--num-return-sequences", "2"]),
        (2, "--batch-size", [GPT2, *p, "--batch-size", "0"]),
        (2, "--prompts-file", [GPT2, *p, "--prompts-file", "-"]),
        (5, "nothing.txt", [GPT2, "--prompts-file", FOLDER / "nothing.txt"]),
        (3, "no prompts", [GPT2, "--prompts-file", FOLDER / "empty.txt"]),
        (3, "bad.jsonl:2", [GPT2, "--prompts-file", FOLDER / "bad.jsonl"]),
        (3, "long.txt:3", [GPT2, "--prompts-file", FOLDER / "long.txt"]),
    ]
    with ThreadPoolExecutor(2) as pool:
        answers = pool.map(lambda case: run("generate", *case[2], exit=case[0]), cases)
        for (_, says, arguments), (out, err) in zip(cases, answers):
            assert says in err, f"{arguments}: expected '{says}' in: {err}"
            assert not out.strip(), out
    assert "UTF-8" in run("generate", GPT2, stdin=b"\xc4\xe3\xba\xc3", exit=3)[1]
    bad_row = run("generate", GPT2, "--prompts-file", "-", stdin="x\n{y}\n", exit=3)[1]
    assert "standard input:2" in bad_row and "not JSON" in bad_row
    out, _ = run("generate", GPT2, *p, "--dtype", "int3", "--json", exit=2)
    assert json.loads(out)["exit_code"] == 2 and json.loads(out)["error"]["got"] == "'int3'"

    broken = FOLDER / "broken"
    shutil.copytree(GPT2, broken)
    with open(broken / "model.safetensors", "r+b") as file:
        file.truncate(5000)
    assert "model.safetensors" in run("generate", broken, *p, exit=5)[1]
    # A full disk or a closed pipe behind stdout is no success.
    with open("/dev/full", "wb") as full:
        assert subprocess.run([BIN / "llmtk", "generate", GPT2, *p], stdout=full, stderr=subprocess.DEVNULL).returncode == 5


def test_weights_that_are_no_numbers():
    from safetensors.torch import load_file, save_file
    folder = FOLDER / "nan"
    shutil.copytree(GPT2, folder)
    weights = load_file(folder / "model.safetensors")
    weights["transformer.ln_f.bias"].fill_(float("nan"))
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    run("generate", folder, "--prompt", "x", exit=4)


def test_help():
    text = run("generate", "--help")
    assert "Examples:" in text and "--repetition-penalty" in text
    assert run("generate", "--version").startswith("llmtk ")


try:
    main(dict(globals()))
finally:
    shutil.rmtree(FOLDER)
