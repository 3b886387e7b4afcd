"""llmtk eval classify: heads of every kind answer as in transformers, and the metrics are those of scikit-learn, scipy and
seqeval."""

import json
import os
import pathlib
import random
import shutil
import tempfile
import warnings

import numpy as np
import scipy.stats
import torch
from seqeval.metrics import accuracy_score as tag_accuracy
from seqeval.metrics import classification_report
from sklearn import metrics

from support import json_lines, main, make_bert, run

warnings.filterwarnings("ignore")
torch.set_num_threads(1)
FOLDER = pathlib.Path(tempfile.mkdtemp(prefix="llmtk-e2e-classify-"))
CHOICE = random.Random(7)
WORDS = "the quick brown fox jumps over lazy dog to be or not foxes undone quickly".split()
TEXTS = [" ".join(CHOICE.choices(WORDS, k=CHOICE.randint(1, 9))) for _ in range(60)] + ["the fox " * 20]
PAIRS = [None, "the dog", "lazy fox jumps over " * 6, "be quick"] * 15 + ["over the lazy dog " * 3]


def near(got, expected, what=""):
    got, expected = np.array(got, dtype=np.float64), np.array(expected, dtype=np.float64)
    assert got.shape == expected.shape and np.allclose(got, expected, rtol=0, atol=5e-5 * max(1e-3, abs(expected).max())), (
        what, got, expected)


def write_rows(name, rows):
    path = FOLDER / name
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return path


def logits_of(model, tokenizer, texts, pairs=None, types=True):
    found = []
    for text, pair in zip(texts, pairs or [None] * len(texts)):
        with torch.no_grad():
            found.append(model(**tokenizer(text, pair, truncation=True, return_token_type_ids=types,
                                           return_tensors="pt")).logits[0])
    return torch.stack(found)


def evaluate(folder, rows, *flags):
    """The summary, the same for any batch size, and the results."""
    kept, found = FOLDER / "results.jsonl", []
    for batch in (1, 7):
        kept.unlink(missing_ok=True)
        found.append(json.loads(run("eval", "classify", folder, rows, "--truncate", *flags, "--batch-size", batch, "--output",
                                    kept, "--json")))
    assert json.loads(json.dumps(found[0]), parse_float=lambda x: round(float(x), 6)) == json.loads(
        json.dumps(found[1]), parse_float=lambda x: round(float(x), 6))
    return found[1], json_lines(kept.read_text())[1:]


def check_classes(found, names, truth, answers, of=None):
    """Precision, recall, F1 and support of each class. truth, answers: classes, or a column of 0 and 1 for each."""
    expected = metrics.precision_recall_fscore_support(truth, answers, labels=of, zero_division=0)
    assert list(found["classes"]) == list(names)
    for i, name in enumerate(names):
        got = found["classes"][name]
        near([got["precision"], got["recall"], got["f1"], got["support"]], [column[i] for column in expected], name)


def test_one_class():
    folder, names = FOLDER / "one", ["no", "maybe", "yes"]
    model, tokenizer = make_bert(folder, labels=names)
    probabilities = logits_of(model, tokenizer, TEXTS, PAIRS).softmax(-1)
    answers = probabilities.argmax(-1).tolist()
    truth = [(a + (i % 3 == 0)) % 3 for i, a in enumerate(answers)]  # right two times of three
    rows = [{"text": t, "label": y if i % 2 else names[y]} | ({"text_pair": p} if p else {})
            for i, (t, p, y) in enumerate(zip(TEXTS, PAIRS, truth))]
    path = write_rows("one.jsonl", rows)
    assert "longer than the model" in run("eval", "classify", folder, path, exit=3)[1]
    found, results = evaluate(folder, path)
    near([r["probabilities"] for r in results], probabilities)  # of pairs that are cut, too
    assert [r["prediction"] for r in results] == answers and [r["label"] for r in results] == truth
    assert found["confusion"] == metrics.confusion_matrix(truth, answers).tolist()
    near([found["accuracy"], found["macro_f1"], found["matthews_correlation"]],
         [metrics.accuracy_score(truth, answers), metrics.f1_score(truth, answers, average="macro"),
          metrics.matthews_corrcoef(truth, answers)])
    check_classes(found, names, truth, answers, of=range(3))
    shown = run("eval", "classify", folder, path, "--truncate")
    assert f"{found['accuracy']:.6f}" in shown and "maybe" in shown, shown
    # A model of one token type, as RoBERTa, reads pairs without them.
    model, tokenizer = make_bert(FOLDER / "typeless", type_vocab_size=1)
    _, results = evaluate(FOLDER / "typeless", path)
    near([r["probabilities"] for r in results], logits_of(model, tokenizer, TEXTS, PAIRS, types=False).softmax(-1))


def test_several_classes():
    folder, names = FOLDER / "several", ["sport", "art", "money", "weather"]
    model, tokenizer = make_bert(folder, labels=names, problem_type="multi_label_classification")
    probabilities = logits_of(model, tokenizer, TEXTS).sigmoid().numpy()
    for threshold, flags in ((0.5, []), (0.75, ["--threshold", 0.75])):
        answers = (probabilities > threshold).astype(int)
        truth = answers.copy()
        for i in range(0, len(TEXTS), 2):
            truth[i, i // 2 % 4] ^= 1  # every second row is wrong in one class
        assert 0 < answers.mean() < 1
        listed = [np.flatnonzero(row).tolist() for row in truth]
        ways = [lambda row, of: [float(x) for x in row], lambda row, of: [bool(x) for x in row],
                lambda row, of: of[::-1], lambda row, of: [names[c] for c in of]]
        rows = [{"text": t, "topics": ways[i % 4](row, of)} for i, (t, row, of) in enumerate(zip(TEXTS, truth, listed))]
        found, results = evaluate(folder, write_rows("several.jsonl", rows), "--label-field", "topics", *flags)
        near([r["probabilities"] for r in results], probabilities)
        assert [r["labels"] for r in results] == listed
        assert [r["predictions"] for r in results] == [np.flatnonzero(row).tolist() for row in answers]
        near([found[k] for k in ("subset_accuracy", "micro_precision", "micro_recall", "micro_f1", "macro_f1", "hamming_loss")],
             [metrics.accuracy_score(truth, answers), metrics.precision_score(truth, answers, average="micro"),
              metrics.recall_score(truth, answers, average="micro"), metrics.f1_score(truth, answers, average="micro"),
              metrics.f1_score(truth, answers, average="macro", zero_division=0), metrics.hamming_loss(truth, answers)])
        check_classes(found, names, truth, answers)
    bad = lambda label: run("eval", "classify", folder, write_rows("bad.jsonl", [{"text": "a", "label": label}]), exit=3)[1]
    assert "0.0 or 1.0" in bad([0.5, 1.0, 0.0, 0.0]) and "4 of them" in bad([1.0]) and "each class once" in bad([1, 1])
    assert "a list of classes" in bad("art") and "no class of the model" in bad([4]) and "no class" in bad(["music"])
    # Without config.json's word for it, --problem-type says it.
    plain = FOLDER / "plain"
    make_bert(plain, labels=names)
    rows = FOLDER / "several.jsonl"
    flags = ["--label-field", "topics", "--problem-type", "multi_label_classification", "--threshold", 0.75]
    assert evaluate(plain, rows, *flags)[0] == found
    run("eval", "classify", plain, rows, "--truncate", "--label-field", "topics", exit=3)


def test_quantities():
    for names, settings in ((["score"], {}), (["joy", "anger"], {"problem_type": "regression"})):
        folder, columns = FOLDER / f"quantities{len(names)}", len(names)
        model, tokenizer = make_bert(folder, labels=names, **settings)
        answers = logits_of(model, tokenizer, TEXTS).double().numpy()
        truth = np.round(answers + np.random.default_rng(3).normal(size=answers.shape), 0)  # many are equal
        rows = [{"text": t, "label": y.tolist() if columns > 1 else y[0]} for t, y in zip(TEXTS, truth)]
        found, results = evaluate(folder, write_rows("quantities.jsonl", rows))
        near([np.atleast_1d(r["prediction"]) for r in results], answers)
        expected = [[metrics.mean_squared_error(y, x), metrics.mean_absolute_error(y, x), scipy.stats.pearsonr(y, x).statistic,
                     scipy.stats.spearmanr(y, x).statistic] for y, x in zip(truth.T, answers.T)]
        keys = ("mse", "mae", "pearson", "spearman")
        near([found[k] for k in keys], np.mean(expected, axis=0))
        assert found["rows"] == len(TEXTS)
        if columns > 1:
            near([[found["outputs"][name][k] for k in keys] for name in names], expected)
            assert "anger" in run("eval", "classify", folder, FOLDER / "quantities.jsonl", "--truncate")
        bad = write_rows("bad.jsonl", [{"text": "a", "label": "much"}])
        assert "number" in run("eval", "classify", folder, bad, exit=3)[1]
        same = write_rows("same.jsonl", [{"text": t, "label": [2.5] * columns} for t in TEXTS[:3]])
        found = json.loads(run("eval", "classify", folder, same, "--json"))
        assert found["pearson"] is None and found["spearman"] is None, found


def tagged(model, tokenizer, words, limit):
    """What transformers answers for each word: by its first token; None for a word that is not seen."""
    inputs = tokenizer(words, is_split_into_words=True, truncation=True, max_length=limit, return_tensors="pt")
    with torch.no_grad():
        best = model(**inputs).logits[0].argmax(-1).tolist()
    places = inputs.word_ids()
    return [best[places.index(w)] if w in places else None for w in range(len(words))]


def check_entities(found, results, names, rows, answers):
    assert [r["predictions"] for r in results] == answers
    seen = [[w for w, a in enumerate(answer) if a is not None] for answer in answers]
    spelled = lambda tag: tag.replace("M-", "I-")  # BMES, as seqeval reads it
    truth = [[spelled(row["tags"][w]) for w in of] for row, of in zip(rows, seen)]
    guess = [[spelled(names[answer[w]]) for w in of] for answer, of in zip(answers, seen)]
    report = classification_report(truth, guess, output_dict=True, zero_division=0)
    micro = report["micro avg"]
    near([found["precision"], found["recall"], found["f1"], found["macro_f1"], found["accuracy"]],
         [micro["precision"], micro["recall"], micro["f1-score"], report["macro avg"]["f1-score"], tag_accuracy(truth, guess)])
    assert found["entities"] == micro["support"] and found["words"] == sum(map(len, seen)) and found["rows"] == len(rows)
    types = [name for name in report if not name.endswith(" avg")]
    assert sorted(types) == list(found["classes"])
    for name in types:
        near([found["classes"][name][k] for k in ("precision", "recall", "f1", "support")],
             [report[name][k] for k in ("precision", "recall", "f1-score", "support")], name)
    return micro["f1-score"]


def test_entities():
    """Any tags after one another, of words that are cut into pieces, have no piece, or lie beyond what the model sees."""
    schemes = {"iob2": "BI", "iobes": "BIES", "odd": "BI"}
    for scheme, letters in schemes.items():
        names = ["O"] + [f"{letter}-{kind}" for letter in letters for kind in ("PER", "LOC-X")]
        names += ["MISC", "I", "B"] if scheme == "odd" else []
        folder = FOLDER / scheme
        model, tokenizer = make_bert(folder, "TokenClassification", labels=names)
        lines = [CHOICE.choices([*WORDS, "\u200b"], k=CHOICE.randint(1, 14)) for _ in range(60)]
        answers = [tagged(model, tokenizer, words, 24) for words in lines]
        assert any(None in answer for answer in answers) and len({a for answer in answers for a in answer}) > 4
        tags = [[names[a] if a is not None and CHOICE.random() < 0.7 else CHOICE.choice(names) for a in answer]
                for answer in answers]
        rows = [{"tokens": w, "tags": [names.index(t) if i % 2 else t for t in y]}
                for i, (w, y) in enumerate(zip(lines, tags))]
        found, results = evaluate(folder, write_rows("words.jsonl", rows))
        rows = [{"tags": y} for y in tags]
        assert 0.1 < check_entities(found, results, names, rows, answers) < 0.95
    # Tags that spell no entities are classes.
    names = ["noun", "verb", "other"]
    model, tokenizer = make_bert(FOLDER / "parts", "TokenClassification", labels=names)
    answers = [tagged(model, tokenizer, words, 24) for words in lines]
    truth = [[CHOICE.randrange(3) for _ in words] for words in lines]
    found, results = evaluate(FOLDER / "parts", write_rows("parts.jsonl", [
        {"w": words, "t": tags} for words, tags in zip(lines, truth)]), "--text-field", "w", "--label-field", "t")
    flat = [(y, a) for tags, answer in zip(truth, answers) for y, a in zip(tags, answer) if a is not None]
    y, a = zip(*flat)
    near([found["accuracy"], found["macro_f1"]], [metrics.accuracy_score(y, a), metrics.f1_score(y, a, average="macro")])
    assert (found["words"], found["rows"]) == (len(flat), len(lines))
    check_classes(found, names, y, a, of=range(3))


def test_resumes():
    """Real Chinese resumes, tagged character by character (BMES), by a model that has learnt a little of them."""
    data = pathlib.Path(os.environ.get("LLMTK_TEST_DATA", "")) / "tag"
    if not (data / "resume_ner_dev.jsonl").exists():
        print("skipped: LLMTK_TEST_DATA has no tag/resume_ner_dev.jsonl")
        return
    train = json_lines((data / "resume_ner_train.jsonl").read_text())[:800]
    rows = json_lines((data / "resume_ner_dev.jsonl").read_text())[:100]
    names = sorted({tag for row in train + rows for tag in row["tags"]})
    folder, limit = FOLDER / "resumes", 64
    model, tokenizer = make_bert(folder, "TokenClassification", labels=names, max_length=limit,
                                 words=sorted({c.lower() for row in train for c in row["tokens"]}))
    with torch.no_grad():
        for p in model.parameters():
            if p.dim() > 1:
                p.div_(12)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for step in range(60):
        batch = CHOICE.sample(train, 16)
        inputs = tokenizer([row["tokens"] for row in batch], is_split_into_words=True, truncation=True, max_length=limit,
                           padding=True, return_tensors="pt")
        labels = torch.full_like(inputs.input_ids, -100)
        for b, row in enumerate(batch):
            for t, w in enumerate(inputs.word_ids(b)):
                labels[b, t] = -100 if w is None else names.index(row["tags"][w])
        optimizer.zero_grad()
        model.train()(**inputs, labels=labels).loss.backward()
        optimizer.step()
    model.eval().save_pretrained(folder)
    found, results = evaluate(folder, write_rows("resumes.jsonl", rows))
    answers = [tagged(model, tokenizer, row["tokens"], limit) for row in rows]
    assert check_entities(found, results, names, rows, answers) > 0.2
    shown = run("eval", "classify", folder, FOLDER / "resumes.jsonl", "--truncate")
    assert f"{found['f1']:.6f}" in shown and "TITLE" in shown


def test_errors_name_what_is_wrong():
    one, words = FOLDER / "one", FOLDER / "iob2"
    good = write_rows("good.jsonl", [{"text": "the fox", "label": 0}])
    tags = write_rows("tags.jsonl", [{"tokens": ["the", "fox"], "tags": ["O", "B-PER"]}])

    def error(folder, rows, *flags, exit):
        path = rows if isinstance(rows, pathlib.Path) else write_rows("bad.jsonl", rows)
        return run("eval", "classify", folder, path, *flags, exit=exit)[1]

    assert "no class of the model" in error(one, [{"text": "a", "label": 3}], exit=3)
    assert "bad.jsonl:1" in error(one, [{"text": "a"}], exit=3)
    assert "no row has a second text" in error(one, good, "--pair-field", "premise", exit=3)
    assert "--threshold" in error(one, good, "--threshold", 0.3, exit=2)
    assert "--problem-type" in error(words, tags, "--problem-type", "regression", exit=2)
    assert "--pair-field" in error(words, tags, "--pair-field", "b", exit=2)
    assert "as many tags" in error(words, [{"tokens": ["a", "b"], "tags": ["O"]}], exit=3)
    assert "without the words" in error(words, [{"tokens": "a b", "tags": ["O"]}], exit=3)
    assert "no class of the model" in error(words, [{"tokens": ["a"], "tags": ["B-ORG"]}], exit=3)
    assert "longer than the model" in error(words, [{"tokens": ["a"] * 30, "tags": ["O"] * 30}], exit=3)
    assert "does not classify" in error(FOLDER / "quantities1", good, "--problem-type", "single_label_classification", exit=2)
    run("eval", "score", one, "--text", "the fox", exit=2)


try:
    main(dict(globals()))
finally:
    shutil.rmtree(FOLDER)
