"""Tokenizing speed: llmtk, Hugging Face's tokenizers and tiktoken in turns, on the same text, with the same ids.

  scripts/bench tokenize                              English and Chinese text, four tokenizers, 1 and 2 threads
  scripts/bench tokenize --tokenizer FOLDER           a tokenizer.json of one's own (byte-level BPE, or tiktoken is left out)
  scripts/bench tokenize --text a.txt rows.jsonl      text of one's own
  scripts/bench tokenize --check                      exit 7 unless llmtk is ahead of tiktoken and 8 x tokenizers (4 x where the
                                                      model is not BPE)

The text is what set-up extracts (fortunes, in the folder that scripts/bootstrap --print data names) and, where LLMTK_TEST_DATA
names the folder, Shakespeare and poems of the Tang. The tokenizers are GPT-2's, where LLMTK_TEST_DATA has it, and, learnt from the
text here, one of SmolLM2's kind (every digit by itself), one of BERT's (WordPiece) and one of T5's (Unigram, sentencepiece's table).

Before anything is timed all ids are compared. llmtk's time is what `tokenize count` takes to read the file, parse its JSON and
encode it; the peers have their texts in memory. `MB/s` is by the clock; `per core` is MB per second of processor time: of llmtk's
encoder alone, of the peers' whole call. Every round also measures how many cores the machine really gives to as many processes.
Medians over the rounds; ratios are taken round by round.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

from peer_tokenize import digest

HERE = pathlib.Path(__file__).resolve().parent
PEERS = ("tiktoken", "tokenizers")
BOUNDS = {"tiktoken": 1.0, "tokenizers": 8.0}  # llmtk is faster by, on one thread
BOUNDS_OF_PIECES = {"tokenizers": 4.0}  # WordPiece and Unigram
PIECE = 3000  # characters of a long text that make one row
SPIN = "x = 0\nfor i in range(4_000_000): x += i"


def run(command, **more):
    done = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **more)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))} failed with {done.returncode}:\n{done.stderr[-2000:]}")
    return done.stdout


def texts_of(path):
    if path.suffix == ".jsonl":
        return [json.loads(line)["text"] for line in open(path, encoding="utf-8")]
    text = path.read_text(encoding="utf-8")
    return [text[i:i + PIECE] for i in range(0, len(text), PIECE)]


def default_texts():
    """{"English": files, "Chinese": files} of what is there."""
    fortunes = pathlib.Path(run([HERE.parent / "bootstrap", "--print", "data"]).rstrip("\n")) / "fortunes"
    files = {"English": [fortunes / "english.jsonl"], "Chinese": [fortunes / "chinese.jsonl"]}
    if data := os.environ.get("LLMTK_TEST_DATA"):
        files["English"].append(pathlib.Path(data) / "text/tinyshakespeare.txt")
        files["Chinese"].append(pathlib.Path(data) / "text/tang_poems.txt")
    found = {name: [path for path in paths if path.exists()] for name, paths in files.items()}
    if not all(found.values()):
        sys.exit("no text: scripts/bootstrap extracts the fortunes, or name files with --text")
    return found


def gpt2_json(folder, out):
    """tokenizer.json from GPT-2's own two files."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    tokenizer = Tokenizer(models.BPE.from_file(str(folder / "vocab.json"), str(folder / "merges.txt")))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|endoftext|>"])
    out.mkdir()
    tokenizer.save(str(out / "tokenizer.json"))
    return out / "tokenizer.json"


def lines_of(rows):
    return [line for path in rows.values() for text in texts_of(path) for line in text.split("\n") if line.strip()]


def bert_json(rows, out):
    """A tokenizer of BERT's kind: its normalizer, its pre-tokenizer, WordPiece."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.train_from_iterator(lines_of(rows), trainers.WordPieceTrainer(
        vocab_size=16000, special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"], show_progress=False))
    out.mkdir()
    tokenizer.save(str(out / "tokenizer.json"))
    return out / "tokenizer.json"


def t5_json(rows, out):
    """A tokenizer of T5's kind: sentencepiece's table of normalization, words at blanks, Unigram."""
    import io

    import sentencepiece
    from sentencepiece import sentencepiece_model_pb2
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

    trained, model = io.BytesIO(), sentencepiece_model_pb2.ModelProto()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines_of(rows)), model_writer=trained, vocab_size=16000, input_sentence_size=40000, minloglevel=2,
        pad_id=0, eos_id=1, unk_id=2, bos_id=-1)
    model.ParseFromString(trained.getvalue())
    tokenizer = Tokenizer(models.Unigram([(piece.piece, piece.score) for piece in model.pieces], unk_id=2, byte_fallback=False))
    tokenizer.normalizer = normalizers.Precompiled(model.normalizer_spec.precompiled_charsmap)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace("▁", "always")])
    tokenizer.decoder = decoders.Metaspace("▁", "always")
    out.mkdir()
    tokenizer.save(str(out / "tokenizer.json"))
    return out / "tokenizer.json"


def tokenizers(options, rows, temporary):
    """{name: tokenizer.json}"""
    if options.tokenizer:
        return {path.name: path / "tokenizer.json" if path.is_dir() else path for path in options.tokenizer}
    found = {}
    gpt2 = pathlib.Path(os.environ.get("LLMTK_TEST_DATA", "/nonexistent")) / "tokenizers" / "gpt2"
    if gpt2.exists():
        found["GPT-2"] = gpt2_json(gpt2, temporary / "gpt2")
    run([options.llmtk, "tokenize", "train", *rows.values(), "-o", temporary / "digits", "--vocab-size", 16000, "--split-digits"])
    found["single digits, 16k"] = temporary / "digits" / "tokenizer.json"
    found["WordPiece, 16k"] = bert_json(rows, temporary / "bert")
    found["Unigram, 16k"] = t5_json(rows, temporary / "t5")
    return found


def run_llmtk(options, tokenizer, rows, threads):
    out = run([options.llmtk, "tokenize", "count", "--json", "-t", tokenizer, rows, "--threads", threads])
    row = json.loads(out.splitlines()[-1])
    return dict(seconds=row["seconds"], cpu_seconds=row["encode_seconds"], tokens=row["tokens"])


def run_peer(name, tokenizer, rows, threads, *flags):
    return json.loads(run([sys.executable, HERE / "peer_tokenize.py", name, tokenizer, rows, threads, *flags]))


def usable_peers(options, tokenizer, rows, what):
    """The peers whose ids are llmtk's. Other ids end the bench: then the times would say nothing."""
    out = run([options.llmtk, "tokenize", "encode", "--json", "-t", tokenizer, "-f", rows])
    ours = digest(json.loads(line)["ids"] for line in out.split("\n")[:-1])
    usable = []
    for name in PEERS:
        command = [sys.executable, HERE / "peer_tokenize.py", name, tokenizer, rows, "1", "--digest"]
        done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
        if done.returncode != 0:
            print(f"{what}: without {name}: {done.stderr.strip().splitlines()[-1]}", file=sys.stderr)
            continue
        if json.loads(done.stdout)["digest"] != ours:
            sys.exit(f"{what}: the ids of {name} are not those of llmtk")
        usable.append(name)
    return usable


def cores(count):
    """How many times the work of one process `count` of them do at the same time."""
    def seconds(n):
        begin = time.perf_counter()
        for process in [subprocess.Popen([sys.executable, "-c", SPIN]) for _ in range(n)]:
            process.wait()
        return time.perf_counter() - begin
    return count * seconds(1) / seconds(count)


def measure(options, tokenizer, rows, what):
    """{(name, threads): results of every round}"""
    results = {}
    peers = usable_peers(options, tokenizer, rows, what)
    for turn in range(options.rounds):
        for threads in options.threads:
            for name in ("llmtk", *peers):
                result = (run_llmtk(options, tokenizer, rows, threads) if name == "llmtk"
                          else run_peer(name, tokenizer, rows, threads))
                results.setdefault((name, threads), []).append(result)
        print(f"{what}: round {turn + 1} of {options.rounds}", file=sys.stderr, flush=True)
    return results


def summarize(results, megabytes):
    rows = []
    median = lambda runs, key: megabytes / statistics.median(run[key] for run in runs)
    for (name, threads), runs in results.items():
        ratios = [theirs["seconds"] / ours["seconds"] for ours, theirs in zip(results["llmtk", threads], runs)]
        rows.append(dict(name=name, threads=threads, mb_per_second=median(runs, "seconds"),
                         mb_per_core_second=median(runs, "cpu_seconds"), llmtk_is_faster_by=statistics.median(ratios)))
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokenizer", type=pathlib.Path, nargs="+", help="model folders or tokenizer.json files")
    parser.add_argument("--text", type=pathlib.Path, nargs="+", help=".txt, or .jsonl with the key text")
    parser.add_argument("--threads", type=lambda text: [int(n) for n in text.split(",")], default=[1, 2])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    options.llmtk = pathlib.Path(os.environ["LLMTK_BIN"]) / "llmtk"

    summary, machine = [], []
    with tempfile.TemporaryDirectory(prefix="llmtk-bench-tokenize-") as temporary:
        temporary = pathlib.Path(temporary)
        rows, megabytes = {}, {}
        for name, paths in ({"text": options.text} if options.text else default_texts()).items():
            texts = [text for path in paths for text in texts_of(path) if text]
            rows[name] = temporary / f"{name}.jsonl"
            rows[name].write_text("".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts))
            megabytes[name] = sum(len(text.encode()) for text in texts) / 1e6
        for tokenizer, file in tokenizers(options, rows, temporary).items():
            for text in rows:
                machine.append(cores(max(options.threads)))
                results = measure(options, file, rows[text], f"{tokenizer}, {text}")
                tokens = {run["tokens"] for runs in results.values() for run in runs}
                assert len(tokens) == 1, (tokenizer, text, tokens)
                kind = json.load(open(file, encoding="utf-8"))["model"]["type"]
                summary.append(dict(tokenizer=tokenizer, model=kind, text=text, megabytes=megabytes[text], tokens=tokens.pop(),
                                    results=summarize(results, megabytes[text])))
    if options.json:
        print(json.dumps(dict(rounds=options.rounds, cores=statistics.median(machine), measurements=summary), ensure_ascii=False))
    else:
        print(f"medians of {options.rounds} rounds; {max(options.threads)} processes get the work of "
              f"{statistics.median(machine):.2f} cores done here")
        for block in summary:
            print(f"\n{block['tokenizer']}; {block['text']}, {block['megabytes']:.1f} MB, {block['tokens']} tokens")
            print(f"{'':12} {'threads':>7} {'MB/s':>8} {'per core':>9} {'llmtk is faster by':>19}")
            for row in block["results"]:
                print(f"{row['name']:12} {row['threads']:7} {row['mb_per_second']:8.1f} {row['mb_per_core_second']:9.1f} "
                      f"{row['llmtk_is_faster_by']:18.2f}x")
    missed = [row for block in summary for row in block["results"] if row["threads"] == 1 and row["llmtk_is_faster_by"] <
              (BOUNDS if block["model"] == "BPE" else BOUNDS_OF_PIECES).get(row["name"], 0)]
    if options.check and missed:
        sys.exit(7)


main()
