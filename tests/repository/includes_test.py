"""Which folder of lib/ may see which: in #include lines, in CMake's DEPENDS, and LibTorch only where a target says so."""

import functools
import os
import re
import unittest
from pathlib import Path

LIB = Path(os.environ["LLMTK_SOURCE"]) / "lib"

# A folder sees those above it that are named here, and core. apps and tests see everything.
SEES = {
    "core": "",
    "config": "",
    "io": "",
    "kernels": "",
    "dist": "",
    "text": "io",
    "data": "config text",
    "metrics": "data",
    "nn": "kernels",
    "models": "config io kernels nn",  # kernels: a family fuses what no other has (rotary tables of its own)
    "peft": "config io kernels nn",
    "quant": "config io kernels nn",
    "generate": "kernels nn text",
    "train": "config data dist io kernels nn",  # not models: it is given a module and a loss
    "rl": "config data dist generate io kernels nn peft text train",
    "rag": "config data generate io nn text",
    "vision": "config data generate io kernels nn text",
    "serve": "config generate io nn text",
}


def sees(folder):
    return {folder, "core", *SEES[folder].split()}


def sources(folder):
    return sorted(f for f in folder.rglob("*") if f.suffix in (".h", ".cpp", ".cu", ".cuh"))


@functools.cache
def includes(file):
    """[(the line's number, "core/error.h", whether in quotes)]"""
    found = []
    for number, line in enumerate(file.read_text().splitlines(), 1):
        if match := re.match(r'\s*#\s*include\s*([<"])([^>"]+)[>"]', line):
            found.append((number, match[2], match[1] == '"'))
    return found


@functools.cache
def everything_included(file):
    """The file and what it includes from lib/, whatever the depth."""
    seen, waiting = set(), [file]
    while waiting:
        file = waiting.pop()
        if file in seen:
            continue
        seen.add(file)
        for _, name, quoted in includes(file):
            path = LIB / name
            if quoted and path.is_file():
                waiting.append(path)
    return seen


def torch_lines(file):
    return [f"{f.relative_to(LIB)}:{number} includes {name}" for f in sorted(everything_included(file))
            for number, name, _ in includes(f) if re.match(r"(torch|ATen|c10|caffe2)/", name)]


def words_of_cmake(text):
    return re.sub(r"#.*", "", text).split()


@functools.cache
def targets():
    """{name: {"folder", "torch", "SOURCES", "CUDA", "DEPENDS", "PRIVATE_DEPENDS"}} of every llmtk_library."""
    found = {}
    for file in sorted(LIB.glob("*/CMakeLists.txt")):
        text = re.sub(r"#.*", "", file.read_text())
        for arguments in re.findall(r"\bllmtk_library\(([^)]*)\)", text):
            name, *words = words_of_cmake(arguments)
            target = {"folder": file.parent.name, "torch": False, "SOURCES": [], "CUDA": [], "DEPENDS": [],
                      "PRIVATE_DEPENDS": []}
            into = None
            for word in words:
                if word == "TORCH":
                    target["torch"] = True
                elif word in ("UNITY", "GLUE"):
                    pass
                elif word in target:
                    into = word
                else:
                    target[into].append(word)
            found[name] = target
    return found


def dependencies(name):
    return [word.removeprefix("llmtk::") for key in ("DEPENDS", "PRIVATE_DEPENDS") for word in targets()[name][key]
            if word.startswith("llmtk::") and word != "llmtk::torch"]


def linked(name):
    """What a target links of lib/, whatever the depth."""
    seen, waiting = set(), [name]
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            waiting += dependencies(name)
    return seen


def files_of(name):
    """A target's sources and the headers of the same names."""
    folder = LIB / targets()[name]["folder"]
    files = [folder / source for source in targets()[name]["SOURCES"] + targets()[name]["CUDA"]]
    return files + [header for file in files if (header := file.with_suffix(".h")).is_file()]


class Includes(unittest.TestCase):
    def test_the_table_points_one_way(self):
        above = set()
        for folder in SEES:
            self.assertLessEqual(sees(folder) - {folder}, above | {"core"}, f"{folder} sees what stands below it")
            above.add(folder)
        here = {folder.name for folder in LIB.iterdir() if folder.is_dir()}
        self.assertLessEqual(here, set(SEES), "new folders of lib/ get a line in this file's table")
        self.assertGreater(len(here), 5)

    def test_includes(self):
        wrong, count = [], 0
        for folder in SEES:
            for file in sources(LIB / folder):
                for number, name, quoted in includes(file):
                    if not quoted:
                        continue
                    count += 1
                    place = f"{file.relative_to(LIB)}:{number}: \"{name}\""
                    if not (LIB / name).is_file():
                        wrong.append(place + " is no file of lib/; write it from there, as in \"core/error.h\"")
                    elif name.split("/")[0] not in sees(folder):
                        wrong.append(place + f": {folder} sees only {' '.join(sorted(sees(folder)))}")
        self.assertEqual(wrong, [], "\n" + "\n".join(wrong))
        self.assertGreater(count, 100)

    def test_depends(self):
        wrong = []
        for name, target in targets().items():
            for other in dependencies(name):
                self.assertIn(other, targets(), f"llmtk::{other}, which {name} depends on, is not of lib/")
                if targets()[other]["folder"] not in sees(target["folder"]):
                    wrong.append(f"{name} depends on llmtk::{other}")
        self.assertEqual(wrong, [], "\n" + "\n".join(wrong))
        self.assertGreater(len(targets()), 8)

    def test_what_is_included_is_linked(self):
        wrong = []
        for name in targets():
            reached = {targets()[other]["folder"] for other in linked(name)}
            for file in files_of(name):
                wrong += [f"{file.relative_to(LIB)}:{number} includes \"{path}\"; llmtk_{name} does not depend on that folder"
                          for number, path, quoted in includes(file) if quoted and path.split("/")[0] not in reached]
        self.assertEqual(wrong, [], "\n" + "\n".join(wrong))

    def test_every_source_is_in_a_target(self):
        listed = {file for name in targets() for file in files_of(name)}
        there = {file for folder in LIB.iterdir() for file in sources(folder) if file.suffix in (".cpp", ".cu")}
        self.assertEqual(sorted(map(str, there - listed)), [], "no CMakeLists.txt names them")

    def test_libtorch_only_where_a_target_says_so(self):
        """What a plain target includes, and the kernels' CPU and CUDA files, which shall compile in seconds."""
        plain = [file for name, target in targets().items() if not target["torch"] for file in files_of(name)]
        plain += [file for file in sources(LIB / "kernels") if re.search(r"_(cpu\.cpp|cuda\.cu)$", file.name)]
        wrong = sorted({f"{file.relative_to(LIB)}: {line}" for file in plain for line in torch_lines(file)})
        self.assertEqual(wrong, [], "\n" + "\n".join(wrong))
        self.assertGreater(len(plain), 30)
        for name, target in targets().items():
            if not target["torch"]:
                self.assertEqual([other for other in linked(name) if targets()[other]["torch"]], [],
                                 f"llmtk_{name} has no TORCH, but depends on what has")


unittest.main()
