#!/usr/bin/env bash
# Benchmarks, for a machine on which nothing else runs.
#   ./scripts/bench.sh         all of them, some minutes
#   ./scripts/bench.sh merge   one; the report keeps what the others found
# Report: build/bench/report.json. Exit: 0 measured, 1 a benchmark failed, 2 wrong usage. Needs root.
set -uo pipefail
cd "$(dirname "$0")/.."
venv=${SENDENSE_VENV:-}
if [ -z "$venv" ]; then
  ./scripts/bootstrap.sh --dev || { echo "bench: the set-up failed, see above" >&2; exit 1; }
  venv=.venv
fi
python=$(cd "$venv" && pwd)/bin/python
export PYTHONPATH=$PWD/collections:$PWD
if [ "$(id -u)" -eq 0 ]; then run=(); else run=(sudo --preserve-env=PYTHONPATH); fi
exec "${run[@]}" "$python" scripts/contained.py "$python" -m tests.benchmarks "$@"
