#!/usr/bin/env bash
# Runs a Python program of tests/ with everything that it needs, as root, and fails if any process outlives it.
#   ./scripts/rig.sh MODULE [ARGUMENTS]
# Called by faults.sh and bench.sh. Exit: that of the program; 1 if the set-up failed or a process was left.
set -uo pipefail
cd "$(dirname "$0")/.."
[ $# -gt 0 ] || { echo "rig: name a module, as in: ./scripts/rig.sh tests.benchmarks" >&2; exit 2; }
venv=${SENDENSE_VENV:-}
if [ -z "$venv" ]; then
  ./scripts/bootstrap.sh --dev || { echo "rig: the set-up for $1 failed, see above" >&2; exit 1; }
  venv=.venv
fi
python=$(cd "$venv" && pwd)/bin/python
export PYTHONPATH=$PWD/collections:$PWD
if [ "$(id -u)" -eq 0 ]; then run=(); else run=(sudo --preserve-env=PYTHONPATH); fi
exec "${run[@]}" "$python" scripts/contained.py "$python" -m "$@"
