#!/usr/bin/env bash
# The fault campaign: kills, flips, power cuts and the rest of the catalogue, with an oracle after each fault.
#   ./scripts/faults.sh                               every family, about an hour on two cores
#   ./scripts/faults.sh --family kill-step --seed 7   one family; the report keeps what the others found
#   ./scripts/faults.sh --short                       a few faults of each family
# Report: build/faults/report.json. Exit: 0 nothing was found and enough was hit, 1 otherwise, 2 wrong usage. Needs root.
set -uo pipefail
cd "$(dirname "$0")/.."
venv=${SENDENSE_VENV:-}
if [ -z "$venv" ]; then
  ./scripts/bootstrap.sh --dev || { echo "faults: the set-up failed, see above" >&2; exit 1; }
  venv=.venv
fi
python=$(cd "$venv" && pwd)/bin/python
export PYTHONPATH=$PWD/collections:$PWD
if [ "$(id -u)" -eq 0 ]; then run=(); else run=(sudo --preserve-env=PYTHONPATH); fi
# contained.py fails the campaign if any process outlives it.
exec "${run[@]}" "$python" scripts/contained.py "$python" -m tests.faults.campaign "$@"
