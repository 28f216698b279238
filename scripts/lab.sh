#!/usr/bin/env bash
# The lab by hand: a libvirt host with a BIOS and a UEFI guest that keep writing. Needs root (sudo is used if it is there).
#   ./scripts/lab.sh up|status|down|build
# Exit: 0 done, 1 it could not be done, 2 wrong usage.
set -euo pipefail
cd "$(dirname "$0")/.."
./scripts/bootstrap.sh
if [ "$(id -u)" -eq 0 ]; then exec .venv/bin/python -m tests.lab "$@"; fi
exec sudo .venv/bin/python -m tests.lab "$@"
