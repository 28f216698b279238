#!/usr/bin/env bash
# The fault campaign: kills, flips, power cuts and the rest of the catalogue, with an oracle after each fault.
#   ./scripts/faults.sh                               every family, about an hour on two cores
#   ./scripts/faults.sh --family kill-step --seed 7   one family; the report keeps what the others found
#   ./scripts/faults.sh --short                       a few faults of each family
# Report: build/faults/report.json. Exit: 0 nothing was found and enough was hit, 1 otherwise, 2 wrong usage. Needs root.
exec "$(dirname "$0")/rig.sh" tests.faults.campaign "$@"
