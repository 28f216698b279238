#!/usr/bin/env bash
# Installs what is missing: distribution packages, the parts of the lab's guest, and .venv. Safe to repeat; quick when
# nothing is missing. Starts no service. Honours the caller's proxy, CA bundle and pip settings. Root or sudo.
#   ./scripts/bootstrap.sh          for the product, the lab and the demo
#   ./scripts/bootstrap.sh --dev    also for tests and linters
#   ./scripts/bootstrap.sh --bench  as --dev, and the programs that benchmarks compare with
# Exit: 0 all there, 1 something could not be installed, 2 wrong usage.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/packages.sh
. ./scripts/packages.sh

requirements=requirements/base.txt
case "$#:${1:-}" in
  0:) ;;
  1:--dev | 1:--bench)
    requirements=requirements/dev.txt
    [ "$1" = --dev ] || packages_apt+=("${bench_apt[@]}")
    packages_apt+=("${compiler_apt[@]}")
    packages_dnf+=("${compiler_dnf[@]}")
    packages_zypper+=("${compiler_zypper[@]}")
    ;;
  *) echo "bootstrap: usage: $0 [--dev|--bench]" >&2; exit 2 ;;
esac

say() { printf 'bootstrap: %s\n' "$*"; }
fail() { printf 'bootstrap: %s\n' "$*" >&2; exit 1; }

as_root() {
  if [ "$(id -u)" -eq 0 ]; then
    "$@"
  else
    command -v sudo >/dev/null || fail "not root and there is no sudo; run it as root"
    sudo --preserve-env=http_proxy,https_proxy,no_proxy,HTTP_PROXY,HTTPS_PROXY,NO_PROXY,DEBIAN_FRONTEND "$@"
  fi
}

# --- distribution packages -------------------------------------------------------------------------------------------

apt_options=(-q -y -o Dpkg::Use-Pty=0 -o Dpkg::Options::=--force-confold -o APT::Install-Recommends=false
  -o Acquire::Retries=3)
ca_bundle=${SSL_CERT_FILE:-${CURL_CA_BUNDLE:-${REQUESTS_CA_BUNDLE:-}}}
[ -z "$ca_bundle" ] || apt_options+=(-o "Acquire::https::CaInfo=$ca_bundle")

missing_apt() {
  local package
  for package in "${packages_apt[@]}"; do
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)" = installed ] || echo "$package"
  done
}

# Packages ask policy-rc.d whether they may start their services. What is there already is put back afterwards.
policy=/usr/sbin/policy-rc.d
policy_saved=/usr/sbin/policy-rc.d.before-sendense
policy_none=/usr/sbin/policy-rc.d.none-before-sendense

forbid_services() {
  trap allow_services EXIT
  if [ -e "$policy" ]; then
    as_root mv "$policy" "$policy_saved"
  else
    as_root touch "$policy_none"
  fi
  printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
  as_root chmod 755 "$policy"
}

allow_services() {
  if [ -e "$policy_saved" ]; then
    as_root mv "$policy_saved" "$policy"
  elif [ -e "$policy_none" ]; then
    as_root rm -f "$policy" "$policy_none"
  fi
}

updated=
apt_update() {
  [ -z "$updated" ] || return 0
  say "reading the package lists"
  as_root apt-get "${apt_options[@]}" update >"$log" 2>&1 || fail_with_log "apt-get update failed"
  updated=yes
}

fail_with_log() {
  tail -n 25 "$log" >&2
  fail "$1; the whole output is in $log"
}

install_apt() {
  local missing
  mapfile -t missing < <(missing_apt)
  [ "${#missing[@]}" -gt 0 ] || return 0
  apt_update
  say "installing ${#missing[@]} packages: ${missing[*]}"
  forbid_services
  DEBIAN_FRONTEND=noninteractive as_root apt-get "${apt_options[@]}" install "${missing[@]}" >"$log" 2>&1 \
    || fail_with_log "apt-get install failed"
  allow_services
  trap - EXIT
}

install_rpm() {
  local manager=$1 package missing=()
  shift
  for package in "$@"; do rpm -q --quiet "$package" || missing+=("$package"); done
  [ "${#missing[@]}" -gt 0 ] || return 0
  say "installing with $manager (names not verified on this distribution): ${missing[*]}"
  if [ "$manager" = dnf ]; then
    as_root dnf -q -y --setopt=install_weak_deps=False install "${missing[@]}" >"$log" 2>&1
  else
    as_root zypper --quiet --non-interactive install --no-recommends "${missing[@]}" >"$log" 2>&1
  fi || fail_with_log "$manager could not install them"
}

# --- parts of the lab's guest ----------------------------------------------------------------------------------------

# fetch_parts DIRECTORY PACKAGE...: unpack packages below build/lab; the directory appears when it is complete, and says of what.
fetch_parts() {
  local directory=$1 partial=$1.partial package
  shift
  if grep -qsxF "$*" "$directory/packages.list"; then return 0; fi
  apt_update
  say "unpacking for the lab: $*"
  rm -rf "$partial"
  mkdir -p "$partial/packages"
  (cd "$partial/packages" && apt-get "${apt_options[@]}" -o APT::Sandbox::User=root download "$@") >"$log" 2>&1 \
    || fail_with_log "apt-get download failed"
  for package in "$partial"/packages/*.deb; do
    dpkg-deb -x "$package" "$partial"
  done
  rm -rf "$partial/packages" "$directory"
  printf '%s\n' "$*" >"$partial/packages.list"
  mv "$partial" "$directory"
}

fetch_guest_parts() {
  local kernel
  fetch_parts build/lab/parts "${parts_apt[@]}"
  if [ ! -d build/lab/kernel ]; then
    apt_update
    kernel=$(apt-cache show --no-all-versions "$kernel_apt" | sed -nE 's/^Depends: (linux-image-[^ ,]+).*/\1/p' | head -n 1)
    [ -n "$kernel" ] || fail "cannot tell which package $kernel_apt stands for"
    fetch_parts build/lab/kernel "$kernel"
  fi
}

# --- Python ----------------------------------------------------------------------------------------------------------

make_venv() {
  if [ ! -x .venv/bin/python ] || [ "$(readlink -f .venv/bin/python)" != "$(readlink -f /usr/bin/python3)" ]; then
    say "making .venv from /usr/bin/python3"
    rm -rf .venv
    /usr/bin/python3 -m venv --system-site-packages .venv >"$log" 2>&1 || fail_with_log "python3 -m venv failed"
  fi
  say "installing $requirements into .venv"
  .venv/bin/python -m pip install --disable-pip-version-check --no-input -q -r "$requirements" >"$log" 2>&1 \
    || fail_with_log "pip install failed"
}

# --- what was done already -------------------------------------------------------------------------------------------

digest_of_inputs() {
  { printf '%s\n' "$PWD"; cat scripts/bootstrap.sh scripts/packages.sh requirements/*.txt
    readlink -f /usr/bin/python3; } | sha256sum | cut -d' ' -f1
}

complete() {
  # What --dev installs includes everything else.
  [ -x .venv/bin/python ] && grep -qsxF "$(digest_of_inputs)" "$stamp" build/bootstrap-dev.stamp || return 1
  [ "$family" != apt ] || { [ -d build/lab/kernel ] && [ -d build/lab/parts ] && [ -z "$(missing_apt)" ]; }
}

family=none
for manager in apt-get dnf zypper; do
  if command -v "$manager" >/dev/null; then family=${manager%-get}; break; fi
done
[ "$(uname -m)" = x86_64 ] || fail "only x86_64 is supported, this is $(uname -m)"
mkdir -p build
log=$PWD/build/bootstrap.log
stamp=build/bootstrap-$(basename "$requirements" .txt).stamp
# Two runs at a time (tests of two checkouts are fine) would trip over .venv.
exec 9>build/bootstrap.lock
if command -v flock >/dev/null; then flock 9; fi

[ "$family" != apt ] || allow_services # a killed run may have left them forbidden
if complete; then
  say "nothing is missing"
  exit 0
fi
case $family in
  apt) install_apt; fetch_guest_parts ;;
  dnf) install_rpm dnf "${packages_dnf[@]}" ;;
  zypper) install_rpm zypper "${packages_zypper[@]}" ;;
  none) fail "no known package manager (apt-get, dnf, zypper); install by hand what scripts/packages.sh lists" ;;
esac
[ -d build/lab/kernel ] || say "the lab's guest is built from Debian packages only: lab, demo and their tests will not run here"
make_venv
digest_of_inputs >"$stamp"
say "done"
