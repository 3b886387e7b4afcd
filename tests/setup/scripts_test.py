"""The scripts as texts: shellcheck, what set-up installs against what the sources include, what scripts/bench lists."""

import os
import pathlib
import re
import shutil
import subprocess
import tempfile
import unittest

SOURCE = pathlib.Path(os.environ["LLMTK_SOURCE"])


def output(*command, code=0):
    done = subprocess.run([str(word) for word in command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True)
    if code is not None and done.returncode != code:
        raise AssertionError(f"{command}: exit code {done.returncode}\n{done.stdout}")
    return done.stdout


class Scripts(unittest.TestCase):
    def test_shellcheck(self):
        if not shutil.which("shellcheck"):
            self.skipTest("shellcheck is not installed")
        files = [file for folder in ("scripts", ".ci", "tests") for file in (SOURCE / folder).rglob("*") if file.is_file()]
        scripts = [file for file in files if file.read_bytes()[:30].startswith((b"#!/usr/bin/env bash", b"# shellcheck shell"))]
        self.assertGreater(len(scripts), 6)
        output("shellcheck", "-x", "-P", "SCRIPTDIR", *scripts)

    def test_bench_lists_what_there_is(self):
        listed = output(SOURCE / "scripts" / "bench", "--help")
        names = [file.stem.removeprefix("bench_") for file in (SOURCE / "scripts" / "bench.d").glob("bench_*.py")]
        self.assertGreater(len(names), 0)
        for name in names:
            self.assertRegex(listed, rf"(?m)^  {name} +[A-Z]")
        self.assertIn("there are: ", output(SOURCE / "scripts" / "bench", "nonsense", code=2))

    def test_soak_says_what_it_takes(self):
        self.assertIn("kills [COUNT]", output(SOURCE / "scripts" / "soak", "--help"))
        self.assertIn("not 'nonsense'", output(SOURCE / "scripts" / "soak", "nonsense", code=2))
        self.assertIn("too many words: 7", output(SOURCE / "scripts" / "soak", "kills", "3", "7", code=2))
        self.assertIn("too many words: 7", output(SOURCE / "scripts" / "soak", "kills", "3", "--preset", "dev", "7", code=2))
        self.assertIn("a preset of its own", output(SOURCE / "scripts" / "soak", "--preset", "dev", "fuzz", "jinja", code=2))
        self.assertIn("no option --nope", output(SOURCE / "scripts" / "soak", "fuzz", "--nope", code=2))

    def test_set_up_installs_what_the_sources_include(self):
        if not shutil.which("dpkg-query"):
            self.skipTest("no dpkg here")
        included = set()
        for folder in ("lib", "apps", "tests", "cmake"):
            for file in (SOURCE / folder).rglob("*"):
                if file.suffix in (".h", ".cpp", ".cu", ".cuh", ".inc"):
                    included |= set(re.findall(r"^\s*#\s*include\s*<([^>]+)>", file.read_text(), re.MULTILINE))
        headers = [path for name in sorted(included) for path in
                   [pathlib.Path("/usr/include") / name, pathlib.Path("/usr/include/x86_64-linux-gnu") / name]
                   if path.is_file()]  # the rest is the compiler's, LibTorch's or CUDA's
        owners = {line.split(":")[0].split(",")[0]
                  for line in output("dpkg-query", "-S", *headers, code=None).splitlines() if ": /" in line}
        listed = set(output("bash", "-c", f'. "{SOURCE}/scripts/versions.sh"; printf "%s\\n" "${{DEBIAN_PACKAGES[@]}}"').split())
        missing = owners - listed - {"libc6-dev", "linux-libc-dev"}  # g++ brings these
        self.assertEqual(missing, set())
        self.assertGreater(len(owners), 5)

    def test_the_notices_name_every_library(self):
        dependencies = (SOURCE / "cmake" / "Dependencies.cmake").read_text()
        names = set(re.findall(r"find_package\((\S+) REQUIRED\)", dependencies)) - {"Threads", "PkgConfig"}
        modules = re.search(r"set\(LLMTK_PKG_MODULES ([^)]*)\)", dependencies).group(1)
        names |= {module.split("=")[0] for module in modules.split()}
        notices = (SOURCE / "THIRD_PARTY_NOTICES.md").read_text().lower()
        also = {"hwy": "highway", "nlohmann_json": "nlohmann-json", "cudatoolkit": "cuda runtime"}
        for name in sorted(name.lower() for name in names):
            self.assertIn("| " + also.get(name, name), notices)

    def test_a_label_clearly_over_its_share_fails_where_CI_is_true(self):
        folder = pathlib.Path(tempfile.mkdtemp(prefix="llmtk-scripts-"))
        self.addCleanup(shutil.rmtree, folder)
        shutil.copytree(SOURCE / "scripts", folder / "scripts")
        shutil.copy(SOURCE / "CMakePresets.json", folder)
        env = {"HOME": str(folder), "PATH": f"{folder}/bin:/usr/bin:/bin", "LLMTK_LIBTORCH": str(folder), "LLMTK_CUDA": "OFF"}
        venv = subprocess.run(["bash", "-c", f'. "{folder}/scripts/common.sh"; venv_folder'], env=env, check=True,
                              stdout=subprocess.PIPE, text=True).stdout.strip()
        ctest = "echo \"unit    = $SECONDS_TAKEN sec*proc (4 tests)\"; exit $CTEST_STATUS"
        for name, text in (("lib/libtorch_cpu.so", ""), ("scripts/bootstrap", ""), ("bin/cmake", ""), ("bin/ctest", ctest),
                           (f"{venv}/bin/ninja", "echo no work to do")):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(f"#!/bin/bash\n{text}\n")
            (folder / name).chmod(0o755)

        def test(seconds, **more):
            done = subprocess.run([folder / "scripts" / "test", "--no-peers"], stdin=subprocess.DEVNULL, text=True,
                                  stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                  env={"CTEST_STATUS": "0", **env, "SECONDS_TAKEN": str(seconds), **more})
            return done.returncode, done.stdout

        code, said = test(200.0, CI="true")
        self.assertEqual(code, 0, said)
        self.assertNotIn("OVER", said)
        code, said = test(300.0, CI="true")
        self.assertEqual(code, 0, said)
        self.assertIn("OVER ITS SHARE", said)
        code, said = test(400.0)
        self.assertEqual(code, 0, said)
        self.assertIn("OVER ITS SHARE", said)
        code, said = test(800.0, CI="true")
        self.assertEqual(code, 1, said)
        self.assertIn("OVER 3 TIMES ITS SHARE: A FAILURE", said)
        self.assertEqual(test(800.0, CI="true", CTEST_STATUS="8")[0], 8)


unittest.main()
