#!/usr/bin/env bash
# Proves that both commands work on a fresh machine: a minimal Debian 12 root with its own mounts and processes.
#   ./scripts/fresh.sh [--only demo|test] [--times N] [--keep] [--base FILE] [--mirror URL]
# --base FILE   take the bare root from this tar file; make the file first if it is missing
# --keep        leave the root behind for a look
# The root gets the caller's mirror, proxy, CA bundle and pip, npm and Go settings. The commit at HEAD is what runs.
# The directory is made below SENDENSE_FRESH_DIR (default: build/fresh); it needs 10 GB.
set -euo pipefail
cd "$(dirname "$0")/.."
top=$PWD
only="demo test" times=2 keep=no base="" mirror="" inside=""

fail() { echo "fresh: $*" >&2; exit 1; }
usage() { sed -n '2,8s/^# \{0,1\}//p' "$top/scripts/fresh.sh"; exit "$1"; }

while [ $# -gt 0 ]; do
  case $1 in
    --only) only=${2:?}; shift ;;
    --times) times=${2:?}; shift ;;
    --base) base=$(realpath -m "${2:?}"); shift ;;
    --mirror) mirror=${2:?}; shift ;;
    --keep) keep=yes ;;
    --inside) inside=${2:?}; shift ;; # second stage, in the new namespaces
    -h | --help) usage 0 ;;
    *) usage 2 >&2 ;;
  esac
  shift
done
case $only in demo | test | "demo test") ;; *) fail "--only takes demo or test, not '$only'" ;; esac
[[ $times =~ ^[1-9][0-9]*$ ]] || fail "--times takes a number from 1, not '$times'"
# shellcheck source=scripts/fresh_root.sh
. "$top/scripts/fresh_root.sh"

# --- second stage: process 1 of the new namespaces ---------------------------------------------------------------

mount_root() {
  mount --make-rprivate /
  mount --bind "$1" "$1"
  mount -t proc proc "$1/proc"
  mount -t sysfs sysfs "$1/sys"
  mount --rbind /dev "$1/dev"
  mount -t devpts -o newinstance,ptmxmode=0666,mode=0620 devpts "$1/dev/pts"
  mount --bind "$1/dev/pts/ptmx" "$1/dev/ptmx"
  mount -t tmpfs -o mode=1777 tmpfs "$1/dev/shm"
  local directory
  while read -r directory; do
    mkdir -p "$1$directory"
    mount --bind "$directory" "$1$directory"
    mount -o remount,bind,ro "$1$directory"
  done <"$1/etc/fresh/directories"
}

# Processes other than this one; those that are about to end get five seconds.
survivors() {
  local entry pid words deadline=$((SECONDS + 5)) found
  while :; do
    found=()
    for entry in /proc/[0-9]*; do
      pid=${entry#/proc/}
      words=$({ tr '\0' ' ' <"$entry/cmdline"; } 2>/dev/null) || continue # it has just ended
      [ "$pid" = 1 ] || [ -z "$words" ] || found+=("$pid $words")
    done
    [ "${#found[@]}" -gt 0 ] && [ "$SECONDS" -lt "$deadline" ] || break
    sleep 0.2
  done
  survived=("${found[@]}")
}

run_inside() {
  local root=$1 round name started before status failed=0 survived line
  mount_root "$root"
  mount -t proc proc /proc
  mapfile -t settings <"$root/etc/fresh/environment"
  before=$(</proc/self/mounts)
  : >"$root/etc/fresh/results"
  for round in $(seq "$times"); do
    for name in $only; do
      echo "fresh: round $round: ./scripts/$name.sh"
      started=$SECONDS status=0
      chroot "$root" /usr/bin/env -i "${settings[@]}" /bin/bash -c "cd /root/sendense && exec ./scripts/$name.sh" </dev/null || status=$?
      survivors
      for line in "${survived[@]}"; do echo "fresh: left running after $name.sh: $line" >&2; done
      [ "$before" = "$(</proc/self/mounts)" ] || {
        echo "fresh: $name.sh left a mount behind" >&2
        status=97 before=$(</proc/self/mounts)
      }
      [ "${#survived[@]}" -eq 0 ] || status=98
      printf '%-6s round %d  exit %-3d %5d s\n' "$name" "$round" "$status" $((SECONDS - started)) >>"$root/etc/fresh/results"
      [ "$status" -eq 0 ] || failed=1
    done
  done
  return "$failed"
}

if [ -n "$inside" ]; then
  trap 'exit 130' INT TERM
  run_inside "$inside" && exit 0 || exit 1
fi

# --- first stage: make the root ----------------------------------------------------------------------------------

[ "$(id -u)" -eq 0 ] || exec sudo -E "$top/scripts/fresh.sh" --only "$only" --times "$times" ${base:+--base "$base"} \
  ${mirror:+--mirror "$mirror"} $([ "$keep" = no ] || echo --keep)
for program in debootstrap unshare git tar apt-get; do
  command -v "$program" >/dev/null || fail "needs $program; install the package of that name (unshare: util-linux)"
done
parent=${SENDENSE_FRESH_DIR:-$top/build/fresh}
mkdir -p "$parent"
[ "$(df --output=avail -BG "$parent" | tail -n 1 | tr -dc 0-9)" -ge 10 ] || fail "$parent has less than 10 GB free; set SENDENSE_FRESH_DIR"
root=$(mktemp -d "$parent/root.XXXXXX")
chmod 755 "$root"
clean_up() {
  [ "$keep" = yes ] && { echo "fresh: kept $root"; return; }
  rm -rf --one-file-system "$root"
}
trap clean_up EXIT
started=$SECONDS
make_root "$root"
hand_in_settings "$root"
git clone -q --no-hardlinks "file://$top" "$root/root/sendense"
echo "fresh: root made in $((SECONDS - started)) s, commit $(git -C "$root/root/sendense" rev-parse --short HEAD)"
status=0
unshare --mount --pid --fork --kill-child -- "$top/scripts/fresh.sh" --inside "$root" --only "$only" --times "$times" || status=$?
cp -r "$root/root/sendense/build/demo" "$parent/" 2>/dev/null || true
cat "$root/etc/fresh/results" 2>/dev/null || true
grep -q " $root" /proc/self/mounts && fail "mounts of $root are left on this machine"
[ "$status" -eq 0 ] && echo "fresh: passed" || echo "fresh: FAILED" >&2
exit "$status"
