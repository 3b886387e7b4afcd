"""A disk that can be too small: a tmpfs, which takes root, or a user namespace in which we are root."""

import contextlib
import os
import shutil
import subprocess
import sys

INSIDE = "LLMTK_TEST_NAMESPACE"


def become_able_to_mount():
    """Starts this program again in a namespace of its own where it is not root already."""
    if os.geteuid() != 0 and INSIDE not in os.environ and shutil.which("unshare"):
        command = ["unshare", "--user", "--map-root-user", "--mount"]
        if subprocess.run([*command, "true"], stderr=subprocess.DEVNULL).returncode == 0:
            os.execvpe(command[0], [*command, sys.executable, *sys.argv], {**os.environ, INSIDE: "1"})


def resize(folder, size):
    subprocess.run(["mount", "-o", f"remount,size={size}", folder], check=True)


@contextlib.contextmanager
def small_disk(folder, size):
    """`folder` as a disk of `size` (as mount spells it). Where none can be mounted the whole program ends as skipped."""
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], stderr=subprocess.DEVNULL).returncode:
        print("SKIPPED: a small disk cannot be mounted here: neither root nor user namespaces")
        sys.exit(77)
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)
