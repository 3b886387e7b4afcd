"""cmake --install into an empty folder: its programs run, its package serves a program of somebody else."""

import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
BUILD = pathlib.Path(os.environ["LLMTK_BUILD"])
CMAKE = os.environ["LLMTK_CMAKE"]
# What a user who logs in has, and nothing that the test run adds.
PLAIN = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": os.environ.get("HOME", "/"), "LC_ALL": "C.UTF-8"}


def run(*command, env=PLAIN):
    done = subprocess.run([str(word) for word in command], env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}: exit code {done.returncode}\n{done.stdout}")
    return done.stdout


def expect(condition, message):
    if not condition:
        sys.exit(message)


def check_programs(prefix):
    for source in sorted((BUILD / "bin").iterdir()):
        if re.fullmatch(r"llmtk(-[a-z]+)*", source.name) and os.access(source, os.X_OK):
            program = prefix / "bin" / source.name
            expect(program.exists(), f"{source.name} is built but not installed")
            run(program, "--help")
    listed = run(prefix / "bin" / "llmtk", "--help")
    for program in sorted((prefix / "bin").glob("llmtk-*")):
        name = program.name.removeprefix("llmtk-")
        expect(re.search(rf"^  {name} ", listed, re.MULTILINE), f"llmtk --help does not list {name}:\n{listed}")


def check_files(prefix):
    for file in ["share/bash-completion/completions/llmtk", "share/zsh/site-functions/_llmtk", "share/doc/llmtk/LICENSE",
                 "share/doc/llmtk/THIRD_PARTY_NOTICES.md", "include/llmtk/core/error.h", "lib/cmake/llmtk/llmtkConfig.cmake"]:
        expect((prefix / file).is_file(), f"{file} is not installed")
    source = pathlib.Path(os.environ["LLMTK_SOURCE"])
    for config in (source / "configs").rglob("*.yaml"):
        installed = prefix / "share" / "llmtk" / "configs" / config.relative_to(source / "configs")
        expect(installed.is_file(), f"{installed} is not installed")
    for file in prefix.rglob("*.cmake"):
        for place in (str(source), str(BUILD)):
            expect(place + "/" not in file.read_text(), f"{file.name} points into the checkout: {place}")


def check_package(prefix, folder):
    shutil.copytree(HERE / "consumer", folder / "source")
    run(CMAKE, "-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={os.environ['LLMTK_NINJA']}",
        f"-DCMAKE_CXX_COMPILER={os.environ['LLMTK_CXX']}", f"-DCMAKE_PREFIX_PATH={prefix}", "-DCMAKE_BUILD_TYPE=Release",
        "-S", folder / "source", "-B", folder / "build")
    flags = (folder / "build" / "build.ninja").read_text()
    expect("-march" not in flags and "-Werror" not in flags and "cmake_pch" not in flags,
           "flags of llmtk's own build reach its users")
    run(CMAKE, "--build", folder / "build")
    said = run(folder / "build" / "consumer")
    # 64*16 + 8*16 embeddings, two blocks of 12*16*16 + 13*16, the last norm.
    expect(said == f"{64*16 + 8*16 + 2*(12*16*16 + 13*16) + 2*16} parameters, logits [1, 8, 64], finite: 1\n", said)


def main():
    with tempfile.TemporaryDirectory(prefix="llmtk-install-") as temporary:
        folder = pathlib.Path(temporary)
        run(CMAKE, "--install", BUILD, "--prefix", folder / "made here")
        prefix = folder / "moved there"  # nothing may remember where it was put first, and blanks are welcome
        (folder / "made here").rename(prefix)
        check_files(prefix)
        check_programs(prefix)
        check_package(prefix, folder)


main()
