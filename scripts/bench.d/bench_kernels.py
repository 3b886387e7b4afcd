"""The fused kernels of lib/kernels against plain ATen, forward and backward, and how many times faster they are."""

import os
import subprocess
import sys
from pathlib import Path


def main():
    build = Path(os.environ["LLMTK_BIN"]).parent
    if (build / "build.ninja").exists():
        tools = Path(sys.executable).parent  # CMake and ninja stand beside this Python
        subprocess.run([tools / "cmake", "--build", build, "--target", "bench_kernels"], check=True,
                       env=os.environ | {"PATH": f"{tools}:{os.environ['PATH']}"}, stdout=subprocess.DEVNULL)
    sys.exit(subprocess.run([build / "tests" / "bench_kernels", *sys.argv[1:]]).returncode)


if __name__ == "__main__":
    main()
