"""The repository's files as texts: scripts parse, tests are run, links lead somewhere, nothing names the machine of who wrote it."""

import ast
import os
import re
import shutil
import subprocess
import unittest
from functools import cache
from pathlib import Path

ROOT = Path(os.environ["LLMTK_SOURCE"])
NOT_OURS = {".git", "build", "runs", "cache", "__pycache__"}


@cache
def files():
    """What git tracks or would; outside a checkout all files but those that builds and runs leave."""
    listed = subprocess.run(["git", "-C", ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
                            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False)
    names = listed.stdout.decode().split("\0")[:-1] if listed.returncode == 0 and (ROOT / ".git").exists() else []
    if not names:
        for folder, folders, here in os.walk(ROOT):
            folders[:] = [name for name in folders if name not in NOT_OURS]
            names += [os.path.relpath(os.path.join(folder, name), ROOT) for name in here]
    return sorted(path for name in names if (path := ROOT / name).is_file() and not path.is_symlink())


@cache
def text(path):
    try:
        return path.read_text()
    except UnicodeDecodeError:
        return ""  # a picture


def lines(path):
    return enumerate(text(path).splitlines(), 1)


def name(path):
    return str(path.relative_to(ROOT))


def written_in(path):
    """bash, zsh, python or None."""
    first = text(path).split("\n", 1)[0]
    if path.suffix == ".py" or "python" in first and first.startswith("#!"):
        return "python"
    if path.suffix in (".sh", ".bash", ".sbatch") or re.match(r"#!.*\b(ba)?sh\b|# shellcheck shell=bash", first):
        return "bash"
    return "zsh" if first.startswith("#compdef") else None


def cmake_words(folder):
    path = ROOT / folder / "CMakeLists.txt"
    return set(re.sub(r"#.*|[()\"/}]", " ", text(path)).split()) if path.is_file() else set()


class Repository(unittest.TestCase):
    def empty(self, wrong):
        self.assertEqual(wrong, [], "\n" + "\n".join(map(str, wrong)))

    def test_scripts_parse(self):
        counts = {"bash": 0, "python": 0}
        for path in files():
            language = written_in(path)
            if language == "python":
                ast.parse(text(path), name(path))
            elif language and shutil.which(language):
                done = subprocess.run([language, "-n", path], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
                self.assertEqual((done.returncode, done.stdout), (0, ""), name(path))
            if language in counts:
                counts[language] += 1
        self.assertGreater(counts["bash"], 8)
        self.assertGreater(counts["python"], 10)

    def test_scripts_can_be_started(self):
        self.empty([name(path) + " has a #! line but is not executable" for path in files()
                    if text(path).startswith("#!") and not os.access(path, os.X_OK)])

    def test_no_place_but_this_repository(self):
        """A stranger reads this: no folders of the machine it was written on, no words on how it came about."""
        patterns = {
            "a path of one machine": r"(?<![\w./}*$~-])/(?:work|root|home/(?!you\b)\w+)/",
            "a number of a tracker": r"(?i)\bissue #?\d",
            "who wrote it": r"(?i)\b(?:this|the|my|our|next|last|previous|earlier|another) (?:session|helper|brief)s?\b"
                            r"(?! (?:function|class|macro|target|script|program))",
            "a host of a package registry": r"\b(?:pypi|pythonhosted|npmjs|crates|anaconda|debian)\.(?:org|com|io)\b",
        }
        self.empty([f"{name(path)}:{number}: {what}: {line.strip()[:100]}" for path in files() for number, line in lines(path)
                    for what, pattern in patterns.items() if re.search(pattern, line)])
        self.assertGreater(len(files()), 100)

    def test_texts_are_tidy(self):
        wrong = []
        for path in files():
            if path.suffix in (".svg", ".json", ".patch") or not text(path):
                continue
            for number, line in lines(path):
                if line != line.rstrip() and path.suffix != ".md":
                    wrong.append(f"{name(path)}:{number}: spaces at the end")
                if re.match(r"(<{7}|>{7}|={7})( |$)", line):
                    wrong.append(f"{name(path)}:{number}: a merge that was not finished")
                if re.search(r"\b(?:TODO|FIXME|XXX)\b(?!\w)", line) and path.name != Path(__file__).name:
                    wrong.append(f"{name(path)}:{number}: unfinished: {line.strip()[:80]}")
            if not text(path).endswith("\n"):
                wrong.append(f"{name(path)}: no line feed at the end")
        self.empty(wrong)

    def test_every_test_is_run(self):
        tests = ROOT / "tests"
        listed, wrong, count = cmake_words("tests"), [], 0
        for path in files():
            if tests not in path.parents or path.suffix not in (".cpp", ".py"):
                continue
            folder = path.parent
            if not (folder / "CMakeLists.txt").is_file():
                wrong.append(f"{name(folder)} has no CMakeLists.txt")
            elif folder.parent == tests and folder.name not in listed:
                wrong.append(f"tests/CMakeLists.txt does not name {folder.name}")
            elif path.name not in cmake_words(folder):
                users = [other for other in folder.glob("*.py") if other != path and
                         re.search(rf"^\s*(?:from|import) {path.stem}\b", text(other), re.MULTILINE)]
                if path.suffix == ".cpp" or not users:
                    wrong.append(f"{name(folder)}/CMakeLists.txt does not name {path.name}")
            count += 1
        for path in files():  # CMake misses a .cpp, but says nothing of a .py that is not there
            if path.name == "CMakeLists.txt" and tests in path.parents:
                wrong += [f"{name(path)}: there is no {word}" for word in cmake_words(path.parent)
                          if re.fullmatch(r"\w+\.py", word) and not (path.parent / word).is_file()]
        self.empty(wrong)
        self.assertGreater(count, 30)

    def test_configs_say_how_they_are_run(self):
        """The first line: # ./scripts/llmtk pretrain configs/pretrain/quickstart.yaml"""
        configs = [path for path in files() if ROOT / "configs" in path.parents]
        for path in configs:
            self.assertEqual(path.suffix, ".yaml", name(path))
            first = text(path).split("\n", 1)[0]
            self.assertRegex(first, rf"^# (?:.* )?(?:\./scripts/)?llmtk \S+ {re.escape(name(path))}( |$)", name(path))

    def test_links_of_the_documents(self):
        """Links and names in backquotes lead to files that are there, and #parts of them to headings."""
        documents = [path for path in files() if path.suffix == ".md"]
        wrong = []
        for path in documents:
            prose = re.sub(r"(?ms)^```.*?^```", lambda block: "\n" * block[0].count("\n"), text(path))
            for number, line in enumerate(prose.splitlines(), 1):
                for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`]*`", "", line)):
                    if re.match(r"[a-z]+:", target):
                        continue
                    file, _, part = target.partition("#")
                    there = (path.parent / file) if file else path
                    if not there.exists():
                        wrong.append(f"{name(path)}:{number}: no {target}")
                    elif part and part not in headings(there):
                        wrong.append(f"{name(path)}:{number}: {name(there)} has no heading for #{part}")
                for named in re.findall(r"`((?:apps|cmake|configs|docs|lib|scripts|tests)/[\w./-]+)`", line):
                    if not (ROOT / named).exists():
                        wrong.append(f"{name(path)}:{number}: no {named}")
        self.empty(wrong)
        self.assertGreater(len(documents), 0)

    def test_the_readme_in_chinese_keeps_step(self):
        """The same headings, links, commands and code; only what a reader may word freely (in quotes) differs."""
        english, chinese = text(ROOT / "README.md"), text(ROOT / "docs/README.zh.md")

        def parts(readme):
            blocks = re.findall(r"(?ms)^```.*?^```", readme)
            prose = re.sub(r"(?ms)^```.*?^```", "", readme)
            return {"headings": re.findall(r"(?m)^#+(?= )", prose),
                    "code": [re.sub(r'"[^"]*"', '""', block) for block in blocks],
                    "rows": re.findall(r"(?m)^\| (`[^`]+`) \|", prose),
                    "in backquotes": sorted(set(re.findall(r"`[^`]+`", prose))),
                    "links": sorted({Path(target).name for target in re.findall(r"\]\(([^)]+)\)", prose)
                                     if not Path(target).name.startswith("README")})}

        for part, found in parts(chinese).items():
            self.assertEqual(found, parts(english)[part], part)

    def test_lengths(self):
        """Sources of about 400 lines at most: beyond 600 a file holds two things."""
        lengths = {name(path): text(path).count("\n") for path in files()
                   if path.suffix in (".h", ".cpp", ".cu", ".cuh", ".py")}
        self.empty([f"{path}: {count} lines" for path, count in lengths.items() if count > 600])


def headings(path):
    """The anchors of a Markdown file, as the usual viewers make them."""
    found = set()
    for line in re.sub(r"(?ms)^```.*?^```", "", text(path)).splitlines():
        if match := re.match(r"#+ (.*)", line):
            found.add(re.sub(r"[^\w\- ]", "", match[1].lower()).replace(" ", "-"))
    return found


unittest.main()
