"""scripts/bootstrap with a Python that only pretends to install, in a home of its own."""

import os
import pathlib
import shutil
import subprocess
import tempfile
import unittest

SOURCE = pathlib.Path(os.environ["LLMTK_SOURCE"])

# Plays `python -m venv` and `python -m pip install`; every installation is a line in $FAKE/installed. $FAKE/mode says what
# goes wrong next time.
PYTHON = r"""#!/bin/bash
[[ $1 != -I ]] || shift
case "$1 $2" in
  "-m venv") mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
  "-m pip")
    while [[ $1 != install ]]; do [[ $1 != --log ]] || log=$2; shift; done
    mode=$(cat "$FAKE/mode" 2>/dev/null); rm -f "$FAKE/mode"
    sleep "${FAKE_SECONDS:-0}"
    [[ $mode != offline ]] || exit 1
    echo "Installing collected packages: x" >"$log"
    [[ $mode != killed ]] || { kill -9 $PPID; exit 1; }
    echo "$*" >>"$FAKE/installed"
    if [[ $* == *torch==* ]]; then
      folder=$(dirname "$(dirname "$0")")/lib/python3.11/site-packages/torch/lib
      mkdir -p "$folder" && : >"$folder/libtorch_cpu.so"
    fi ;;
  *) exec /usr/bin/python3 "$@" ;;
esac
"""


class Bootstrap(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="llmtk-bootstrap-"))
        self.addCleanup(shutil.rmtree, self.folder)
        self.checkout = self.folder / "checkout"
        self.checkout.mkdir()
        shutil.copytree(SOURCE / "scripts", self.checkout / "scripts")
        self.bin = self.folder / "bin"
        self.bin.mkdir()
        self.fake("python9", PYTHON)
        self.env = {"HOME": str(self.folder), "PATH": f"{self.bin}:/usr/bin:/bin:/usr/sbin:/sbin", "FAKE": str(self.folder),
                    "LLMTK_PACKAGES": "installed", "LLMTK_CUDA": "OFF", "LLMTK_PYTHON": str(self.bin / "python9")}
        self.venv = self.folder / ".cache" / "llmtk" / f"python9-torch{self.version('TORCH_VERSION')}"

    def fake(self, name, text):
        (self.bin / name).write_text(text)
        (self.bin / name).chmod(0o755)

    def version(self, name):
        return subprocess.run(["bash", "-c", f'. "{SOURCE}/scripts/versions.sh"; echo "${{{name}[*]}}"'], check=True,
                              stdout=subprocess.PIPE, text=True).stdout.strip()

    def start(self, *arguments, **env):
        return subprocess.Popen([self.checkout / "scripts" / "bootstrap", *arguments], env={**self.env, **env},
                                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def bootstrap(self, *arguments, code=0, **env):
        process = self.start(*arguments, **env)
        said = process.communicate()[0]
        self.assertEqual(process.returncode, code, said)
        return said

    def installed(self):
        file = self.folder / "installed"
        return file.read_text().splitlines() if file.exists() else []

    def next_time(self, mode):
        (self.folder / "mode").write_text(mode)

    def test_takes_the_processors_share_only_and_is_silent_afterwards(self):
        self.bootstrap()
        tools, torch = self.installed()
        self.assertIn(self.version("BUILD_TOOLS"), tools)
        self.assertIn("--no-deps", torch)
        self.assertIn(self.version("TORCH_CPU_DEPENDENCIES"), torch)
        self.assertEqual(self.bootstrap(), "")
        self.assertEqual(len(self.installed()), 2)
        self.assertEqual(self.bootstrap("--print", "libtorch").strip(),
                         str(self.venv / "lib/python3.11/site-packages/torch"))
        self.assertEqual(os.readlink(self.checkout / "data" / "cache"), str(self.folder / ".cache/llmtk/data"))

    def test_with_a_gpu_the_whole_wheel_replaces_the_share(self):
        self.bootstrap()
        self.bootstrap(LLMTK_CUDA="ON")
        self.assertNotIn("--no-deps", self.installed()[-1])
        self.assertIn("torch==", self.installed()[-1])
        self.assertEqual(self.bootstrap(), "")  # the whole is good for the share
        self.bootstrap("--peers")
        self.assertIn(self.version("PEERS"), self.installed()[-1])
        self.assertIn("--no-deps " + self.version("PEER_FILES"), self.installed()[-2])
        self.assertEqual(len(self.installed()), 5)
        self.assertEqual(self.bootstrap("--peers"), "")

    def test_a_failed_download_is_an_error_and_costs_nothing(self):
        self.next_time("offline")
        said = self.bootstrap(code=1)
        self.assertIn("cmake==", said)
        (self.venv / "mine").write_text("")
        self.assertNotIn("afresh", self.bootstrap())
        self.assertTrue((self.venv / "mine").exists())
        self.assertEqual(len(self.installed()), 2)

    def test_an_interrupted_installation_starts_afresh(self):
        self.bootstrap()
        (self.venv / "mine").write_text("")
        self.next_time("killed")
        self.bootstrap("--peers", code=-9)
        self.assertIn("afresh", self.bootstrap())
        self.assertFalse((self.venv / "mine").exists())
        self.assertEqual(len(self.installed()), 4)  # tools and torch, twice
        self.assertEqual(self.bootstrap(), "")

    def test_two_at_once_install_once(self):
        both = [self.start(FAKE_SECONDS="0.5") for _ in range(2)]
        said = [process.communicate()[0] for process in both]
        self.assertEqual([process.returncode for process in both], [0, 0], said)
        self.assertEqual(len(self.installed()), 2, said)
        self.assertEqual(sum("Waiting for another" in text for text in said), 1, said)

    def test_too_little_disk_is_said_before_anything_is_installed(self):
        self.fake("df", "#!/bin/sh\nprintf 'Filesystem 1048576-blocks Used Available\\nx 9 9 100 9%% /\\n'\n")
        said = self.bootstrap(code=5)
        self.assertIn("100 MB are free", said)
        self.assertIn(str(int(self.version("SPACE_TOOLS")) + int(self.version("SPACE_TORCH_CPU"))), said)
        self.assertEqual(self.installed(), [])
        self.assertFalse(self.venv.exists())

    def test_a_libtorch_of_the_users_own(self):
        own = self.folder / "own libtorch"
        (own / "lib").mkdir(parents=True)
        (own / "lib" / "libtorch_cpu.so").write_text("")
        for env in ({"LLMTK_LIBTORCH": str(own)}, {"CMAKE_PREFIX_PATH": f"/nowhere:{own}"}):
            self.bootstrap(**env)
            self.assertEqual(len(self.installed()), 1)  # the tools
            self.assertEqual(self.bootstrap("--print", "libtorch", **env).strip(), str(own))
        self.assertIn("libtorch_cpu.so", self.bootstrap(code=2, LLMTK_LIBTORCH=str(self.folder)))

    def needs_debian(self):
        release = pathlib.Path("/etc/os-release").read_text()
        if "VERSION_ID=\"12\"" not in release or "ID=debian" not in release:
            self.skipTest("not Debian 12")

    def test_python_itself_may_come_with_the_packages(self):
        self.needs_debian()
        late = self.bin / "python-late"  # a link to python9 once it is installed
        self.fake("sudo", '#!/bin/sh\nexec "$@"\n')
        self.fake("apt-get", f'#!/bin/sh\ncase "$*" in *install*) ln -s "{self.bin}/python9" "{late}";; esac\n')
        self.fake("dpkg-query", f'#!/bin/bash\nshift 2\nfor p; do [[ $p == python3 && ! -e "{late}" ]] || '
                                'echo "$p installed"; done\n')
        self.bootstrap(LLMTK_PACKAGES="", LLMTK_PYTHON=str(late))
        self.assertEqual(self.bootstrap("--print", "libtorch", LLMTK_PYTHON=str(late)).strip(),
                         str(self.venv / "lib/python3.11/site-packages/torch"))

    def test_packages_that_are_missing_are_installed_and_no_others(self):
        self.needs_debian()
        self.fake("sudo", '#!/bin/sh\nexec "$@"\n')
        self.fake("apt-get", '#!/bin/sh\necho "$*" >>"$FAKE/apt"\ncase $1 in install) touch "$FAKE/have";; esac\n')
        self.fake("dpkg-query", '#!/bin/bash\nshift 2\nfor p; do [[ $p == mold && ! -e $FAKE/have ]] || '
                                'echo "$p installed"; done\n')
        self.assertIn("mold", self.bootstrap(LLMTK_PACKAGES=""))
        update, install = (self.folder / "apt").read_text().splitlines()
        self.assertTrue(update.startswith("update"), update)
        self.assertTrue(install.endswith(" mold"), install)
        self.assertEqual(self.bootstrap(LLMTK_PACKAGES=""), "")

    def test_a_folder_in_the_links_place_is_left_alone(self):
        (self.checkout / "data" / "cache").mkdir(parents=True)
        self.assertIn("move it away", self.bootstrap(code=5))
        self.assertTrue((self.checkout / "data" / "cache").is_dir())

    def test_usage(self):
        self.assertIn("Usage", self.bootstrap("--help"))
        self.assertIn("--nonsense", self.bootstrap("--nonsense", code=2))
        self.assertIn("'nonsense'", self.bootstrap("--print", "nonsense", code=2))
        self.assertIn("HOME", self.bootstrap(code=2, HOME=""))


unittest.main()
