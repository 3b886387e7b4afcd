#!/usr/bin/env python3
"""Turns the text of Debian's packages `fortunes` and `fortunes-zh` into JSON lines: {"text": ...} per saying or poem.

Usage: fortunes.py /usr/share/games/fortunes OUTPUT_FOLDER   (writes english.jsonl and chinese.jsonl)
"""

import json
import os
import pathlib
import re
import sys

CHINESE = ["chinese", "tang300", "song100"]
SKIPPED = ["ascii-art", "translate-me"]  # pictures; other languages

ESCAPES = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")  # colours for a terminal
OVERSTRIKE = re.compile(r".\x08")  # underlined and bold text on a printer: a character, backspace, another
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")


def clean(text):
    text = ESCAPES.sub("", text).replace("\r\n", "\n")
    while OVERSTRIKE.search(text):
        text = OVERSTRIKE.sub("", text)
    text = CONTROL.sub("", text).expandtabs(8)
    return "\n".join(line.rstrip() for line in text.split("\n")).strip("\n")


def sayings(path):
    text = path.read_text(encoding="utf-8", errors="replace").replace("\ufffd", "")
    for block in re.split(r"^%\s*$", text, flags=re.MULTILINE):
        block = clean(block)
        if block.strip():
            yield block


def write(path, files):
    partial = path.with_suffix(".partial")
    seen = set()
    with open(partial, "w", encoding="utf-8") as out:
        for file in files:
            for text in sayings(file):
                if text not in seen:  # the collections overlap
                    seen.add(text)
                    out.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")
    os.replace(partial, path)


def main():
    source, target = (pathlib.Path(argument) for argument in sys.argv[1:3])
    target.mkdir(parents=True, exist_ok=True)
    files = sorted(f for f in source.iterdir() if f.is_file() and not f.is_symlink() and f.suffix == "")
    write(target / "chinese.jsonl", [f for f in files if f.name in CHINESE])
    write(target / "english.jsonl", [f for f in files if f.name not in CHINESE + SKIPPED and f.with_suffix(".dat").exists()])


if __name__ == "__main__":
    main()
