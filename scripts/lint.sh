#!/usr/bin/env bash
# Runs every linter, also after one has failed, and says how long each took. Names of linters may be given.
#   ./scripts/lint.sh [shell|ruff|mypy|imports|yaml|generated|changelog|ansible|sanity]...
set -uo pipefail
cd "$(dirname "$0")/.."
venv=${SENDENSE_VENV:-.venv}
if [ ! -x "$venv/bin/ruff" ]; then
  echo "lint: $venv has no linters; run ./scripts/bootstrap.sh first" >&2
  exit 2
fi
PATH=$(cd "$venv" && pwd)/bin:$PATH
export PATH
mkdir -p build

lint_shell() {
  local file failed=0
  for file in scripts/*.sh .ci/run; do bash -n "$file" || failed=1; done
  return "$failed"
}
lint_ruff() { ruff check --quiet --cache-dir build/ruff .; }
lint_mypy() { mypy -p ansible_collections.sendense.platform.plugins -p sendense_runner; }
lint_imports() { PYTHONPATH=collections:. lint-imports --cache-dir build/import-linter --no-logo 2>&1 | quiet_unless_failed; }
lint_yaml() { yamllint --strict .; }
lint_generated() { python scripts/generate.py --check; }
lint_changelog() { antsibull-changelog lint; }
# --strict: a warning fails. Offline: it must not fetch collections.
lint_ansible() { ANSIBLE_HOME=$PWD/build/ansible-home ansible-lint --nocolor --strict --offline -q; }
lint_sanity() { ./scripts/sanity.sh; }

quiet_unless_failed() {
  local text
  text=$(cat)
  case $text in *' 0 broken'*) ;; *) printf '%s\n' "$text"; return 1 ;; esac
}

all=(shell ruff mypy imports yaml generated changelog ansible sanity)
failed=()
for name in "${@:-${all[@]}}"; do
  if ! declare -F "lint_$name" >/dev/null; then
    echo "lint: there is no linter '$name'; there are: ${all[*]}" >&2
    exit 2
  fi
  started=$SECONDS
  if "lint_$name"; then verdict=ok; else verdict=FAILED; failed+=("$name"); fi
  printf 'lint: %-10s %-6s %4d s\n' "$name" "$verdict" $((SECONDS - started))
done
[ "${#failed[@]}" -eq 0 ] || { echo "lint: failed: ${failed[*]}" >&2; exit 1; }
