"""An option that would have no influence is refused, in every command: exit code 2, and what was said names it."""

import pathlib
import shutil
import tempfile

from support import main, make_bert, make_model, run

FOLDER = pathlib.Path(tempfile.mkdtemp(prefix="llmtk-e2e-idle-flags-"))
GPT2, BERT, MASKED, WORDS = (FOLDER / name for name in ("gpt2", "bert", "masked", "words"))
make_model(GPT2, "gpt2")
make_bert(BERT)
make_bert(MASKED, "MaskedLM")
make_bert(WORDS, "TokenClassification")
TEXT, ROWS = FOLDER / "text.txt", FOLDER / "rows.jsonl"
TEXT.write_text("the fox\n")
ROWS.write_text('{"text": "the fox", "b": "the dog"}\n')
CHAT = '[{"role": "user", "content": "hi"}]'

# Arguments, and the option that has no influence on what they do.
IDLE = [
    (["generate", GPT2, "--prompt", "a", "--decoder-start-token-id", 1], "--decoder-start-token-id"),
    (["generate", GPT2, "--prompt", "a", "--max-new-tokens", 2, "--max-length", 9], "--max-length"),
    (["generate", GPT2, "--prompt", "a", "--min-new-tokens", 2, "--min-length", 9], "--min-length"),
    (["generate", GPT2, "--prompt", "a", "--return-full-text", "--json"], "--return-full-text"),
    (["generate", GPT2, "--prompt", "a", "--seed", 3], "--seed"),
    (["generate", GPT2, "--prompt", "a", "--length-penalty", 2], "--length-penalty"),
    (["generate", GPT2, "--prompt", "a", "--system", "b"], "--system"),
    (["generate", GPT2, "--prompt", "a", "--chat", "--timings"], "--timings"),
    (["generate", GPT2, "--prompt", "a", "--num-assistant-tokens", 3], "--num-assistant-tokens"),
    (["generate", GPT2, "--prompt", "a", "--max-matching-ngram-size", 3], "--max-matching-ngram-size"),
    (["generate", MASKED, "--prompt", "a", "--fill-mask", "--max-new-tokens", 3], "--max-new-tokens"),
    (["inspect", "logits", GPT2, "--ids", "5,6", "--no-add-special-tokens"], "--add-special-tokens"),
    (["inspect", "hidden", GPT2, "--ids", "5,6", "--add-special-tokens"], "--add-special-tokens"),
    (["inspect", "logits", GPT2, "--prompt", "a", "--full"], "--full"),
    (["inspect", "logits", GPT2, "--prompt", "a", "--all-positions", "--top-k", 3], "--top-k"),
    (["inspect", "logits", BERT, "--prompt", "a", "--top-k", 3], "--top-k"),
    (["inspect", "logits", BERT, "--prompt", "a", "--full", "--json"], "--full"),
    (["inspect", "logits", MASKED, "--prompt", "a", "--all-positions"], "--all-positions"),
    (["inspect", "logits", MASKED, "--prompt", "a", "--top-k", 3], "--top-k"),
    (["inspect", "logits", WORDS, "--prompt", "a", "--top-k", 3, "--json"], "--top-k"),
    (["inspect", "logits", GPT2, "--prompt", "a", "--top-k", 3, "--output", FOLDER / "x.safetensors"], "--top-k"),
    (["inspect", "attention", GPT2, "--prompt", "a", "--head", 1, "--output", FOLDER / "x.safetensors"], "--head"),
    (["inspect", "params", GPT2, "--all", "--json"], "--all"),
    (["embed", BERT, "--pooling", "mean", "--text", "a", "--text-field", "body"], "--text-field"),
    (["embed", BERT, "--pooling", "mean", "--text", "a", "--document", "line"], "--document"),
    (["embed", BERT, "--pooling", "mean", "--document", "line"], "--document"),
    (["eval", "score", GPT2, "--text", "a fox", "--truncate"], "--truncate"),
    (["eval", "perplexity", GPT2, TEXT, "--text-field", "body"], "--text-field"),
    (["tokenize", "encode", "-t", GPT2, "-f", ROWS, "--pair-field", "b", "--bad-lines", "skip"], "--bad-lines"),
    (["tokenize", "encode", "-t", GPT2, "-f", ROWS, "--pair-field", "b", "--threads", 2], "--threads"),
    (["tokenize", "encode", "-t", GPT2, "-f", ROWS, "--pair-field", "b", "--document", "line"], "--document"),
    (["tokenize", "encode", "-t", GPT2, "a fox", "--document", "line"], "--document"),
    (["tokenize", "encode", "-t", GPT2, "a fox", "--text-field", "b"], "--text-field"),
    (["tokenize", "encode", "-t", GPT2, "--threads", 2], "--threads"),
    (["tokenize", "encode", "-t", GPT2, "a fox", "--show", "tokens", "--json"], "--show"),
    (["tokenize", "render", "-t", GPT2, "--ids", "--json"], "--ids"),
    (["tokenize", "shard", "-t", GPT2, TEXT, "-o", FOLDER / "shards", "--seed", 3], "--seed"),
    (["tokenize", "shard", "-t", GPT2, TEXT, "-o", FOLDER / "shards", "--split-by", "tail"], "--split-by"),
    (["tokenize", "shard", "-t", GPT2, TEXT, "-o", FOLDER / "shards", "--validation-fraction", 0.5, "--split-by", "tail",
      "--seed", 3], "--seed"),
    (["tokenize", "train", TEXT, "-o", FOLDER / "tokenizer", "--byte-fallback"], "--byte-fallback"),
    (["convert", GPT2, FOLDER / "folder", "--type", "F16"], "--type"),
    (["convert", GPT2, FOLDER / "folder", "--name", "x"], "--name"),
    (["convert", GPT2, FOLDER / "x.gguf", "--dtype", "float16"], "--dtype"),
    (["convert", GPT2, FOLDER / "x.gguf", "--max-shard-size", "1MB"], "--max-shard-size"),
]


def test_options_without_influence_are_refused():
    for arguments, flag in IDLE:
        said = run(*arguments, stdin=CHAT, exit=2)[1]
        assert flag in said, (arguments, said)
    assert not list(FOLDER.glob("x.*"))


def test_the_same_options_where_they_count():
    run("inspect", "logits", GPT2, "--prompt", "a", "--no-add-special-tokens")
    run("inspect", "logits", GPT2, "--prompt", "a", "--all-positions", "--top-k", 3, "--json")
    run("tokenize", "encode", "-t", GPT2, "-f", ROWS, "--text-field", "b", "--threads", 2)
    run("tokenize", "encode", "-t", GPT2, "--document", "line", stdin="a\nb\n")


try:
    main(dict(globals()))
finally:
    shutil.rmtree(FOLDER)
