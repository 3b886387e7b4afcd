"""scripts/bundle: the tarball, unpacked elsewhere, runs with an empty environment and takes only glibc from the machine.

Of a build with CUDA the bundle is made without LibTorch, which would be 4 GB, and LibTorch's share for processors is
carried by a small program of the test's own; of a build without CUDA the bundle is whole.
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
MACHINES = re.compile(r"linux-vdso|ld-linux|lib(c|m|dl|pthread|rt|util|resolv|cuda)\.so")  # glibc and the driver


def run(*command, code=0, env=None):
    done = subprocess.run([str(word) for word in command], env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True)
    if done.returncode != code:
        sys.exit(f"{' '.join(map(str, command))}: exit code {done.returncode}, expected {code}\n{done.stdout}")
    return done.stdout


def expect(condition, message):
    if not condition:
        sys.exit(message)


PROBE = r"""
#include <ATen/ops/matmul.h>
#include <ATen/ops/ones.h>

#include <cstdio>

int main() {
  std::printf("Usage: 300 * 300 * 300 = %.0f\n", at::matmul(at::ones({300, 300}), at::ones({300, 300})).sum().item<double>());
}
"""


def cached(name):
    return re.search(rf"^{name}:\w+=(.*)$", (BUILD / "CMakeCache.txt").read_text(), re.MULTILINE).group(1)


def check(bundle, built, env, torch=None):
    """torch: LibTorch's folder of libraries, when the bundle does not carry it."""
    programs = sorted((bundle / "bin").iterdir())
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
            expect(inside or of_torch or MACHINES.search(name), f"{program.name} takes from outside the bundle: {line.strip()}")
    documents = bundle / "share" / "doc" / "llmtk"
    for file in (documents / "LICENSE", documents / "THIRD_PARTY_NOTICES.md", bundle / "README"):
        expect(file.stat().st_size > 100, f"{file} is missing")
    expect(len(list((documents / "licenses").iterdir())) > 5, "the licences' texts are missing")


def unpacked(folder, *options):
    """Makes a bundle and unpacks it in a folder with a blank in its name."""
    tarball, target = folder / "made.tar", folder / "else where"
    print(run(SOURCE / "scripts" / "bundle", *options, "--output", tarball), end="")
    target.mkdir()
    with tarfile.open(tarball) as archive:
        archive.extractall(target, **({"filter": "tar"} if hasattr(tarfile, "tar_filter") else {}))
    tarball.unlink()
    (bundle,) = target.iterdir()
    return bundle


def check_carried_libtorch(folder, libtorch):
    """A build folder as scripts/bundle looks at it, of one program on LibTorch's processor half and a GPU's driver."""
    driver = folder / "driver"
    driver.mkdir(parents=True)
    run(cached("CMAKE_CXX_COMPILER"), "-shared", "-x", "c", "/dev/null", "-Wl,-soname,libcuda.so.1", "-o", driver / "libcuda.so.1")
    (folder / "probe.cpp").write_text(PROBE)
    run(cached("CMAKE_CXX_COMPILER"), "-std=c++20", "-idirafter", libtorch / "include", folder / "probe.cpp", "-o",
        folder / "llmtk-probe", libtorch / "lib/libtorch_cpu.so", libtorch / "lib/libc10.so", "-Wl,--no-as-needed",
        driver / "libcuda.so.1", f"-Wl,-rpath,{libtorch / 'lib'}:{driver}")
    (folder / "CMakeCache.txt").write_text(f"CMAKE_COMMAND:INTERNAL={cached('CMAKE_COMMAND')}\n"
                                           f"CMAKE_PROJECT_VERSION:STATIC=9.9\nLLMTK_LIBTORCH:PATH={libtorch}\n")
    documents = f'"{SOURCE}/LICENSE" "{SOURCE}/THIRD_PARTY_NOTICES.md"'
    (folder / "cmake_install.cmake").write_text(
        f'file(INSTALL DESTINATION "${{CMAKE_INSTALL_PREFIX}}/bin" TYPE PROGRAM FILES "{folder}/llmtk-probe" "{BUILD}/bin/llmtk")\n'
        f'file(INSTALL DESTINATION "${{CMAKE_INSTALL_PREFIX}}/share/doc/llmtk" TYPE FILE FILES {documents})\n')
    bundle = unpacked(folder, "--cpu", "--build", folder)
    expect(not (bundle / "lib/libcuda.so.1").exists(), "the driver belongs to the machine, not into a bundle")
    check(bundle, {"llmtk", "llmtk-probe"}, {"LD_LIBRARY_PATH": str(driver)})
    # A library path that leads to another LibTorch changes nothing.
    for env in ({"LD_LIBRARY_PATH": str(driver)}, {"LD_LIBRARY_PATH": f"{folder / 'wrong'}:{driver}"}):
        expect(run(bundle / "bin" / "llmtk-probe", env=env) == "Usage: 300 * 300 * 300 = 27000000\n", "the probe's answer")
        (folder / "wrong").mkdir(exist_ok=True)
        (folder / "wrong" / "libtorch_cpu.so").write_text("nothing that a loader could load")
    licences = {file.name.split("-")[0] for file in (bundle / "share/doc/llmtk/licenses").iterdir()}
    if "site-packages" in str(libtorch):
        expect("torch" in licences, f"LibTorch's licence is missing: {licences}")


def main():
    cuda = "libc10_cuda" in (BUILD / "build.ninja").read_text()
    libtorch = pathlib.Path(cached("LLMTK_LIBTORCH"))
    built = {file.name for file in (BUILD / "bin").glob("llmtk*")}
    with tempfile.TemporaryDirectory(prefix="llmtk-bundle-") as temporary:
        folder = pathlib.Path(temporary)
        (folder / "whole").mkdir()
        if cuda:
            bundle = unpacked(folder / "whole", "--cuda", "--without-libtorch", "--build", BUILD)
            check(bundle, built, {"LD_LIBRARY_PATH": str(libtorch / "lib")}, libtorch / "lib")
            check_carried_libtorch(folder / "carried", libtorch)
        else:
            check(unpacked(folder / "whole", "--cpu", "--build", BUILD), built, {})
        # The wrong kind is refused, and so is a name that says no compression.
        wrong = "--cpu" if cuda else "--cuda"
        expect("CUDA" in run(SOURCE / "scripts" / "bundle", wrong, "--build", BUILD, "--output", folder / "x.tar", code=2), "kind")
        expect(".tar.gz" in run(SOURCE / "scripts" / "bundle", "--output", folder / "x.zip", code=2), "name")


main()
