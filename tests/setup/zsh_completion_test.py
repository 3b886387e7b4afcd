"""Completion in zsh: what it offers, asked of the function itself with zsh's own words for it played by stand-ins."""

import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

BIN = pathlib.Path(os.environ["LLMTK_BIN"])
ZSH = shutil.which("zsh")
SCRIPT = """
compdef() { [[ $* == '_llmtk llmtk' ]] || print "compdef $*" }
compadd() { print -rl -- "${(@P)2}" }
_files() { print -r -- files "$@" }
source <(llmtk completion zsh)
words=("$@") CURRENT=$# PREFIX=$words[-1]
_llmtk
"""


class ZshCompletion(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="llmtk-zsh-"))
        self.addCleanup(shutil.rmtree, self.folder)

    def complete(self, *words):
        """What is offered at the last of `words`; zsh itself keeps what begins with it."""
        env = {"PATH": f"{BIN}:/usr/bin:/bin", "HOME": str(self.folder), "LC_ALL": "C.UTF-8"}
        done = subprocess.run([ZSH, "-f", "-c", SCRIPT, "zsh", *words], env=env, cwd=self.folder, check=True,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.assertEqual(done.stderr, "")
        return done.stdout.splitlines()

    def test_commands(self):
        listed = subprocess.run([BIN / "llmtk", "__complete", ""], stdout=subprocess.PIPE, text=True, check=True).stdout
        offered = self.complete("llmtk", "")
        self.assertEqual(offered, listed.split())
        self.assertLessEqual({"tokenize", "pretrain", "generate", "inspect", "completion", "help"}, set(offered))
        self.assertIn("--version", self.complete("llmtk", "--v"))

    def test_what_a_programs_help_lists(self):
        self.assertIn("encode", self.complete("llmtk", "tokenize", "enc"))
        self.assertIn("--tokenizer", self.complete("llmtk", "tokenize", "encode", "--to"))

    def test_files_where_no_word_fits(self):
        self.assertEqual(self.complete("llmtk", "tokenize", "encode", "--file", "x"), ["files"])
        self.assertEqual(self.complete("llmtk", "pretrain", "x"), ["files -g *.(yaml|yml)"])


if not ZSH:
    print("SKIPPED: zsh is not installed")
    sys.exit(77)
unittest.main()
