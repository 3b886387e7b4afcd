"""llmtk eval, stopped: by SIGTERM, by kill -9, in the middle of a line. Started again it ends as if nothing had been; results of
other work are refused."""

import json
import os
import pathlib
import resource
import shutil
import signal
import subprocess
import tempfile
import time

from support import BIN, TEXT, json_lines, main, make_bert, make_model, run

FOLDER = pathlib.Path(tempfile.mkdtemp(prefix="llmtk-e2e-eval-resume-"))
GPT2, BERT = FOLDER / "gpt2", FOLDER / "bert"
make_model(GPT2, "gpt2")
make_bert(BERT)


def write_rows(name, rows):
    path = FOLDER / name
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return path


BOOK = FOLDER / "book.txt"
BOOK.write_text("".join(TEXT) * 3)
# Command, model, input, flags, results: many small blocks of work.
CASES = {
    "perplexity": (GPT2, BOOK, ["--max-length", 24, "--stride", 5]),
    "score": (GPT2, write_rows("score.jsonl", [{"prompt": "The " * (i % 9), "completion": TEXT[i % 3]} for i in range(200)]),
              []),
    "choice": (GPT2, write_rows("choice.jsonl", [{"prompt": "The fox" * (i % 5), "choices": ["jumps", " over 月", "x"],
                                                  "label": i % 3} for i in range(200)]), ["--truncate"]),
    "classify": (BERT, write_rows("classify.jsonl", [{"text": "the quick fox " * (i % 9 + 1), "label": i % 3}
                                                     for i in range(400)]), ["--truncate"]),
}


def command_of(name, output):
    model, rows, flags = CASES[name]
    return ["eval", name, model, rows, *flags, "--batch-size", 1, "--threads", 1, "--json", "--output", output]


def start(arguments, **more):
    return subprocess.Popen([BIN / "llmtk", *map(str, arguments)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                            text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, **more)


def stopped(name, kept, lines, number):
    """Sends the signal as soon as the file has so many lines: long before the end, so a run that was faster is another try."""
    for _ in range(5):
        kept.unlink(missing_ok=True)
        with start(command_of(name, kept)) as process:
            while process.poll() is None and not (kept.exists() and kept.read_bytes().count(b"\n") >= lines):
                time.sleep(0.001)
            process.send_signal(number)
            said = process.stderr.read()
        if process.returncode != 0:
            return process.returncode, said
    raise AssertionError(f"{name}: too fast to be stopped")


def test_a_stopped_run_goes_on():
    for name in CASES:
        whole, kept = FOLDER / f"{name}.whole.jsonl", FOLDER / f"{name}.kept.jsonl"
        summary = run(*command_of(name, whole))
        expected = whole.read_bytes()

        def goes_on(what):
            done = kept.read_bytes().count(b"\n") - 1
            assert 0 <= done < expected.count(b"\n") - 1, (name, what, done)
            assert run(*command_of(name, kept)) == summary, (name, what)
            assert kept.read_bytes() == expected, (name, what)
            return done

        # The disk's limit ends the process at this byte, without a chance to do anything about it.
        limit = len(expected) * 2 // 3
        kept.unlink(missing_ok=True)
        with start(command_of(name, kept),
                   preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))) as process:
            process.stderr.read()
        assert process.returncode == -signal.SIGXFSZ, (name, process.returncode)
        assert kept.read_bytes() == expected[:limit]
        assert goes_on("cut") > 0

        code, _ = stopped(name, kept, 2, signal.SIGKILL)
        assert code == -signal.SIGKILL
        goes_on("killed")

        code, said = stopped(name, kept, 1, signal.SIGTERM)
        assert code == 75 and "stopped by SIGTERM with" in said, (name, code, said)
        done = goes_on("stopped")
        assert done > 0 and done % 16 == 0, (name, done)  # whole blocks, 16 batches each
        assert run(*command_of(name, kept)) == summary  # all done


def test_results_of_other_work_are_refused():
    model, rows, _ = CASES["choice"]
    kept, copy = FOLDER / "other.jsonl", FOLDER / "copy"
    output = ["--output", kept]

    def refused(name, *arguments):
        message = run("eval", *arguments, *output, exit=2)[1]
        assert f"'{name}' differs" in message, (name, message)

    run("eval", "choice", model, rows, *output)
    before = kept.read_bytes()
    refused("inputs.fewer.jsonl", "choice", model, write_rows("fewer.jsonl", json_lines(rows.read_text())[1:]))
    refused("eval", "score", model, CASES["score"][1])
    refused("dtype", "choice", model, rows, "--dtype", "bfloat16")
    for flags, key in ((["--separator", ""], "separator"), (["--truncate"], "truncate"),
                       (["--no-add-special-tokens"], "add_special_tokens")):
        refused("settings." + key, "choice", model, rows, *flags)

    def change(file, edit, name):
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(model, copy)
        (copy / file).write_bytes(edit((copy / file).read_bytes()))
        refused(f"{name}.{file}", "choice", copy, rows)

    last = lambda data: data[:-1] + bytes([data[-1] ^ 1])  # size and place of everything stay
    change("model.safetensors", last, "model")
    change("config.json", lambda data: data.replace(b'"layer_norm_epsilon": 1e-05', b'"layer_norm_epsilon": 2e-05'), "model")
    change("generation_config.json", lambda data: data.replace(b'"bos_token_id": 0', b'"bos_token_id": 1'), "model")
    change("tokenizer.json", lambda data: data + b"\n", "tokenizer")
    # The tokenizer may lie elsewhere.
    shutil.copy(model / "tokenizer.json", FOLDER / "tokenizer.json")
    refused("tokenizer.tokenizer_config.json", "choice", model, rows, "--tokenizer", FOLDER / "tokenizer.json")

    # What changes no number may change: where the files lie and when they were written, how many rows run together.
    shutil.rmtree(copy)
    shutil.copytree(model, copy, copy_function=shutil.copy)
    (FOLDER / "elsewhere").mkdir()
    moved = shutil.copy(rows, FOLDER / "elsewhere")
    run("eval", "choice", copy, moved, "--batch-size", 3, *output)
    assert kept.read_bytes() == before
    # A head's own flags.
    model, rows, flags = CASES["classify"]
    kept.unlink()
    run("eval", "classify", model, rows, *flags, *output)
    before = kept.read_bytes()
    run("eval", "classify", model, rows, *flags, "--no-add-special-tokens", *output, exit=2)
    run("eval", "classify", model, rows, *flags, "--label-field", "label", *output)  # the default, said aloud
    assert kept.read_bytes() == before


try:
    main(dict(globals()))
finally:
    shutil.rmtree(FOLDER)
