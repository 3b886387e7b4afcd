#!/usr/bin/env bash
# Times the fused kernels against plain ATen: scripts/bench.d/kernels.sh [--device cuda] [--only WORD] ... (--help)
set -euo pipefail
# shellcheck source=../common.sh
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"

"$root/scripts/bootstrap"
configure release
build release bench_kernels
exec "$root/build/release/tests/bench_kernels" "$@"
