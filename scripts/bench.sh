#!/usr/bin/env bash
# Benchmarks, for a machine on which nothing else runs.
#   ./scripts/bench.sh         all of them, at most 20 minutes; needs 16 GiB in /dev/shm and in /var/tmp
#   ./scripts/bench.sh merge   one; the report keeps what the others found
# Installs the program that the product is compared with, if it is missing. Report: build/bench/report.json; after a whole run
# `python -m tests.benchmarks.page` writes it into docs/reference/performance.md.
# Exit: 0 measured, 1 a benchmark failed, 2 wrong usage. Needs root.
set -euo pipefail
scripts=$(dirname "$0")
[ -n "${SENDENSE_VENV:-}" ] || "$scripts/bootstrap.sh" --bench || { echo "bench: the set-up failed, see above" >&2; exit 1; }
exec "$scripts/rig.sh" tests.benchmarks "$@"
