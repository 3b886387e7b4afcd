"""ROUGE-L against rouge_score; of Chinese with a tokenizer there that gives it the same words."""

import json
import os
import pathlib
import random
import re
import subprocess

from rouge_score import rouge_scorer

TOOL = pathlib.Path(os.environ["LLMTK_BIN"]).parent / "tests" / "rouge_tool"
HAN = "[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7a3\uf900-\ufaff\U00020000-\U000323af]"


class Mixed:
    def tokenize(self, text):
        return re.findall("[a-z0-9]+|" + HAN, text.lower())


def texts(pieces, count):
    chosen = random.Random(1)
    return [["".join(chosen.choices(pieces, k=chosen.randint(0, 30))) for _ in range(2)] for _ in range(count)]


def compare(pairs, scorer):
    lines = "".join(json.dumps(pair) + "\n" for pair in pairs)
    out = subprocess.run([TOOL], input=lines, capture_output=True, text=True, check=True).stdout.splitlines()
    for (reference, prediction), line in zip(pairs, out, strict=True):
        precision, recall, f1, words = json.loads(line)
        theirs = scorer.score(reference, prediction)["rougeL"]
        assert words == scorer._tokenizer.tokenize(reference), (reference, words)
        for mine, other in ((precision, theirs.precision), (recall, theirs.recall), (f1, theirs.fmeasure)):
            assert abs(mine - other) < 1e-12, (reference, prediction, theirs)


english = ["The ", "cat", "'s ", "sat ", "on ", "3.5", "-", "\n", "é", "GPU ", "cat ", "\u212a", "\u0130x ", "ß"]
compare(texts(english, 500), rouge_scorer.RougeScorer(["rougeL"]))
compare(texts(english + list("床前明月光，疑是地上霜。さくら한글㐀豈"), 500), rouge_scorer.RougeScorer(["rougeL"], tokenizer=Mixed()))
print("1000 pairs agree with rouge_score")
