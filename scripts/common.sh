# shellcheck shell=bash
# Sourced by the scripts of this folder: where things are, and how to say what goes wrong.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
# shellcheck source=versions.sh
source "$root/scripts/versions.sh"

say() { printf '%s\n' "$*" >&2; }
die() { # die CODE MESSAGE...
  local code=$1
  shift
  printf 'error: %s\n' "$*" >&2
  exit "$code"
}

# require_space FOLDER MB WHAT
require_space() {
  local folder=$1 free
  while [[ ! -d $folder ]]; do folder=$(dirname "$folder"); done
  free=$(df -Pm "$folder" | awk 'NR == 2 { print $4 }')
  ((free >= $2)) || die 5 "$3 needs $2 MB of disk under $folder; $free MB are free"
}

# The per-user cache that all checkouts share.
[[ -n ${XDG_CACHE_HOME:-${HOME:-}} ]] || die 2 "neither HOME nor XDG_CACHE_HOME is set: no place for the cache"
cache=${XDG_CACHE_HOME:-$HOME/.cache}/llmtk

system_python() {
  if [[ -n ${LLMTK_PYTHON:-} ]]; then echo "$LLMTK_PYTHON"
  elif [[ -x /usr/bin/python3 ]]; then echo /usr/bin/python3
  else command -v python3 || true
  fi
}

# A virtual environment per Python and LibTorch version, so that checkouts that want different ones do not meet.
venv_folder() {
  local python
  python=$(readlink -f "$(system_python)")
  echo "$cache/$(basename "$python")-torch$TORCH_VERSION"
}

# Is there any use for LibTorch's CUDA half: a compiler for it, or a driver?
wants_cuda() {
  case ${LLMTK_CUDA:-AUTO} in
    ON | on | 1) return 0 ;;
    OFF | off | 0) return 1 ;;
  esac
  command -v nvcc >/dev/null || [[ -x ${CUDA_HOME:-/usr/local/cuda}/bin/nvcc || -e /proc/driver/nvidia/version ]]
}

# LibTorch that the user points to with LLMTK_LIBTORCH or CMAKE_PREFIX_PATH; nothing when there is none.
user_libtorch() {
  if [[ -n ${LLMTK_LIBTORCH:-} ]]; then
    [[ -e $LLMTK_LIBTORCH/lib/libtorch_cpu.so ]] ||
      die 2 "LLMTK_LIBTORCH=$LLMTK_LIBTORCH holds no lib/libtorch_cpu.so"
    (cd "$LLMTK_LIBTORCH" && pwd)
    return
  fi
  local folder
  local -a folders
  IFS=':;' read -r -a folders <<<"${CMAKE_PREFIX_PATH:-}"
  for folder in "${folders[@]}"; do
    if [[ -n $folder && -e $folder/lib/libtorch_cpu.so ]]; then
      (cd "$folder" && pwd)
      return
    fi
  done
}

# The LibTorch to build with; nothing when bootstrap has not run yet.
libtorch_folder() {
  local found
  found=$(user_libtorch) || exit 2
  if [[ -z $found ]]; then
    for found in "$(venv_folder)"/lib/python3*/site-packages/torch; do
      [[ -e $found/lib/libtorch_cpu.so ]] || found=
    done
  fi
  echo "$found"
}

# Configures build/PRESET when that has not happened yet or something it depends on has changed. What was configured with
# more than is asked for now (scripts/test names a Python too) is good.
# configure PRESET [cmake arguments ...]
configure() {
  local preset=$1 build=$root/build/$1 stamp presets libtorch argument log
  shift
  libtorch=$(libtorch_folder) || exit 2
  [[ -n $libtorch ]] || die 2 "there is no LibTorch yet: run scripts/bootstrap"
  local -a arguments=(--preset "$preset" "-DLLMTK_LIBTORCH=$libtorch" "$@")
  case ${LLMTK_CUDA:-} in
    ON | on | 1) arguments+=(-DLLMTK_CUDA=ON) ;;
    OFF | off | 0) arguments+=(-DLLMTK_CUDA=OFF) ;;
    *) [[ $preset != release && $preset != dev ]] || arguments+=(-DLLMTK_CUDA=AUTO) ;;
  esac
  presets="presets $(cksum <"$root/CMakePresets.json")"
  stamp=$build/.configured
  if [[ -e $build/build.ninja && -e $stamp ]]; then
    local stale=no
    for argument in "${arguments[@]}" "$presets"; do
      grep -qxF -e "$argument" "$stamp" || stale=yes
    done
    [[ $stale == yes ]] || return 0
  fi
  [[ -e $build/build.ninja ]] || require_space "$build" "$SPACE_BUILD" "building llmtk"
  say "Configuring build/$preset"
  mkdir -p "$build"
  rm -f "$stamp"
  log=$build/configure.log
  (cd "$root" && PATH="$(venv_folder)/bin:$PATH" cmake "${arguments[@]}") >"$log" 2>&1 || {
    cat "$log" >&2
    die 1 "CMake could not configure build/$preset (the whole output: $log)"
  }
  printf '%s\n' "${arguments[@]}" "$presets" >"$stamp"
}

# build PRESET TARGET...: says nothing when there is nothing to do.
build() {
  local preset=$1 ninja
  shift
  ninja=$(venv_folder)/bin/ninja
  local -a command=("$ninja" -C "$root/build/$preset" "$@")
  if [[ $("${command[@]}" -n 2>&1) == *"no work to do"* ]]; then return; fi
  say "Building build/$preset"
  PATH="$(venv_folder)/bin:$PATH" NINJA_STATUS='[%f/%t %es] ' "${command[@]}" ${LLMTK_JOBS:+-j "$LLMTK_JOBS"} >&2 ||
    die 1 "the build of build/$preset failed"
}
