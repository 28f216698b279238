#!/usr/bin/env bash
# Installs what the tests need and runs all layers, also after one has failed.
#   ./scripts/test.sh                        lint, unit, contract, integration, e2e, faults
#   ./scripts/test.sh unit contract          these layers only
#   ./scripts/test.sh integration -- -k nbd  everything after -- goes to pytest
# Files of tests run side by side, SENDENSE_TEST_WORKERS of them (2; 0 runs them one after another, for a debugger).
# Results: build/test/junit.xml. Exit: 0 all passed, 1 something failed, 2 wrong usage.
set -uo pipefail
cd "$(dirname "$0")/.."
known=(lint unit contract integration e2e faults)
layers=()
while [ $# -gt 0 ] && [ "$1" != -- ]; do
  case " ${known[*]} " in
    *" $1 "*) layers+=("$1") ;;
    *) echo "test: there is no layer '$1'; there are: ${known[*]}" >&2; exit 2 ;;
  esac
  shift
done
[ $# -eq 0 ] || shift
[ "${#layers[@]}" -gt 0 ] || layers=("${known[@]}")

venv=${SENDENSE_VENV:-}
if [ -z "$venv" ]; then
  ./scripts/bootstrap.sh --dev || { echo "test: the set-up failed, see above" >&2; exit 1; }
  venv=.venv
fi
python=$(cd "$venv" && pwd)/bin/python
mkdir -p build/test
status=0
directories=()
for layer in "${layers[@]}"; do
  if [ "$layer" = lint ]; then
    SENDENSE_VENV=$venv ./scripts/lint.sh || status=1
  else
    directories=("tests/$layer" "${directories[@]}") # the last layers have the longest files, which must not end alone
  fi
done
if [ "${#directories[@]}" -gt 0 ]; then
  # contained.py fails the run if a test leaves a process behind; fifty minutes mean that something hangs.
  timeout --signal=TERM --kill-after=60 3000 "$python" scripts/contained.py \
    "$python" -m pytest -p tests.layers -m "not long" -n "${SENDENSE_TEST_WORKERS:-2}" --dist loadfile --no-loadscope-reorder \
    --junitxml=build/test/junit.xml --durations=10 \
    "${directories[@]}" "$@" || status=1
fi
exit "$status"
