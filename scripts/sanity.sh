#!/usr/bin/env bash
# Builds the collection's artefact and runs ansible-test's sanity tests on it, with empty ignore files.
# ansible-test cannot follow the link under collections/, and what users install is the artefact.
#   ./scripts/sanity.sh [argument of ansible-test sanity...]      for example: --test validate-modules
set -euo pipefail
cd "$(dirname "$0")/.."
venv=${SENDENSE_VENV:-.venv}
PATH=$(cd "$venv" && pwd)/bin:$PATH
export PATH
work=$PWD/build/sanity
# ansible-test keeps one virtual environment per test below $HOME/.ansible; keep them out of the caller's home.
home=$PWD/build/sanity-home
pip_version=24.2
collection=$work/ansible_collections/sendense/platform

extract_artefact() {
  rm -rf "$work"
  mkdir -p "$collection"
  ansible-galaxy collection build --force --output-path "$work" . >"$work/build.log"
  tar -xzf "$work"/sendense-platform-*.tar.gz -C "$collection"
  # Within our own checkout ansible-test would see nothing but ignored files; a repository of its own ends its search.
  git -C "$collection" init -q
}

# ansible-test hands none of the caller's environment on to pip; pip reads this file instead.
write_pip_settings() {
  mkdir -p "$home/.config/pip"
  {
    printf "[global]\nquiet = 2\n"
    python -m pip config list | sed -nE "s/^(global|:env:|install)\.([a-z-]+)='(.*)'\$/\2 = \3/p" | sort -u -t= -k1,1
    [ -z "${https_proxy:-${HTTPS_PROXY:-}}" ] || echo "proxy = ${https_proxy:-$HTTPS_PROXY}"
  } >"$home/.config/pip/pip.conf"
  [ ! -f "$HOME/.netrc" ] || ln -sf "$HOME/.netrc" "$home/.netrc"
}

# ansible-test wants to download get-pip.py from a server of its own. The same pip from the package index does as well.
write_get_pip() {
  local cache=$home/.ansible/test/cache
  mkdir -p "$cache"
  [ -f "$cache/pip-$pip_version-py3-none-any.whl" ] || python -m pip download -q --no-deps -d "$cache" "pip==$pip_version"
  cat >"$cache/get_pip_${pip_version//./_}.py" <<'PY'
import os
import sys

wheel = os.path.join(os.path.dirname(os.path.abspath(__file__)), "pip-24.2-py3-none-any.whl")
sys.path.insert(0, wheel)
from pip._internal.cli.main import main

wanted = [word for word in sys.argv[1:] if word not in ("--no-setuptools", "--no-wheel", "pip")]
sys.exit(main(["install", "--upgrade", *wanted, wheel]))
PY
}

extract_artefact
write_pip_settings
write_get_pip
cd "$collection"
HOME=$home exec ansible-test sanity --python 3.11 --color no "$@"
