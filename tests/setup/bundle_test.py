"""scripts/bundle: the tarball, unpacked elsewhere, runs with an empty environment and takes only glibc from the machine.

Of a build with CUDA the bundle is made without LibTorch, which would be 4 GB; of one without, it is whole.
"""

import os
import pathlib
import re
import subprocess
import sys
import tarfile
import tempfile

SOURCE = pathlib.Path(os.environ["LLMTK_SOURCE"])
BUILD = pathlib.Path(os.environ["LLMTK_BIN"]).parent
GLIBC = re.compile(r"linux-vdso|ld-linux|lib(c|m|dl|pthread|rt|util|resolv)\.so")


def run(*command, code=0, env=None):
    done = subprocess.run([str(word) for word in command], env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True)
    if done.returncode != code:
        sys.exit(f"{' '.join(map(str, command))}: exit code {done.returncode}, expected {code}\n{done.stdout}")
    return done.stdout


def expect(condition, message):
    if not condition:
        sys.exit(message)


def cached(name):
    return re.search(rf"^{name}:\w+=(.*)$", (BUILD / "CMakeCache.txt").read_text(), re.MULTILINE).group(1)


def check(bundle, env, torch):
    """torch: LibTorch's folder of libraries, when the bundle does not carry it."""
    programs = sorted((bundle / "bin").iterdir())
    built = {file.name for file in (BUILD / "bin").glob("llmtk*")}
    expect({file.name for file in programs} == built, f"carried: {programs}, built: {built}")
    for program in programs:
        expect("Usage" in run(program, "--help", env=env), f"{program.name} --help")
        loaded = subprocess.run(["/usr/bin/ldd", program], env=env, stdout=subprocess.PIPE, text=True,
                                stderr=subprocess.DEVNULL).stdout
        for line in filter(str.strip, loaded.splitlines()):
            name, path = re.match(r"\s*(?:(\S+) => )?(.*?)(?: \(0x\w+\))?$", line).groups()
            name = name or path
            inside = os.path.realpath(path).startswith(os.path.realpath(bundle) + "/")
            of_torch = torch is not None and os.path.realpath(path).startswith(os.path.realpath(torch.parent.parent) + "/")
            expect(inside or of_torch or GLIBC.search(name), f"{program.name} takes from outside the bundle: {line.strip()}")
    documents = bundle / "share" / "doc" / "llmtk"
    for file in (documents / "LICENSE", documents / "THIRD_PARTY_NOTICES.md", bundle / "README"):
        expect(file.stat().st_size > 100, f"{file} is missing")
    expect(len(list((documents / "licenses").iterdir())) > 5, "the licences' texts are missing")


def main():
    cuda = "libtorch_cuda" in (BUILD / "build.ninja").read_text()
    libtorch = pathlib.Path(cached("LLMTK_LIBTORCH"))
    with tempfile.TemporaryDirectory(prefix="llmtk-bundle-") as temporary:
        folder = pathlib.Path(temporary)
        tarball = folder / "made.tar"
        options = ["--cuda", "--without-libtorch"] if cuda else ["--cpu"]
        run(SOURCE / "scripts" / "bundle", *options, "--build", BUILD, "--output", tarball)
        (folder / "else where").mkdir()
        with tarfile.open(tarball) as archive:
            archive.extractall(folder / "else where", filter="tar") if hasattr(tarfile, "tar_filter") else \
                archive.extractall(folder / "else where")
        tarball.unlink()
        (bundle,) = (folder / "else where").iterdir()
        check(bundle, {"LD_LIBRARY_PATH": str(libtorch / "lib")} if cuda else {}, libtorch / "lib" if cuda else None)
        # The wrong kind is refused, and so is a name that says no compression.
        wrong = "--cpu" if cuda else "--cuda"
        expect("CUDA" in run(SOURCE / "scripts" / "bundle", wrong, "--build", BUILD, "--output", tarball, code=2), "kind")
        expect(".tar.gz" in run(SOURCE / "scripts" / "bundle", "--output", folder / "x.zip", code=2), "name")


main()
