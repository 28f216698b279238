#!/usr/bin/env bash
# Benchmarks, for a machine on which nothing else runs.
#   ./scripts/bench.sh         all of them, some minutes
#   ./scripts/bench.sh merge   one; the report keeps what the others found
# Report: build/bench/report.json. Exit: 0 measured, 1 a benchmark failed, 2 wrong usage. Needs root.
exec "$(dirname "$0")/rig.sh" tests.benchmarks "$@"
