#!/usr/bin/env bash
# Installs what is missing and runs the main job on a live guest: discover, full and incremental backup while it writes,
# verify, restore to a new machine, compare, boot. Needs root (sudo is used if it is there) and about 4 GiB of disk.
# Results: build/demo/report.json. Exit: 0 everything was proved, 1 something was not.
set -euo pipefail
cd "$(dirname "$0")/.."
./scripts/bootstrap.sh
export PYTHONPATH=collections:.
if [ "$(id -u)" -eq 0 ]; then exec .venv/bin/python -m tests.lab.demo; fi
exec sudo --preserve-env=PYTHONPATH .venv/bin/python -m tests.lab.demo
