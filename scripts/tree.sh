#!/usr/bin/env bash
# Shows dynast's processes as the operating system sees them. It reads only /proc and
# asks no process, so it also works when there is no leader.
#
#   scripts/tree.sh [DATA_DIR]    with DATA_DIR only the processes of that directory
set -euo pipefail

want=${1:-}
[ -z "$want" ] || want=$(cd "$want" && pwd)
# A process that ends between two reads gets no line.
field() { sed -n "s/^$2:[[:space:]]*//p" "/proc/$1/status" 2>/dev/null || true; }

printf '%-16s %8s %8s %10s %9s  %s\n' COMM PID PPID RSS_KIB UP_S ARGUMENTS
found=0
for dir in /proc/[0-9]*; do
  pid=${dir#/proc/}
  comm=$(cat "$dir/comm" 2>/dev/null) || continue
  case $comm in dynast:*) ;; *) continue ;; esac
  case $(field "$pid" State) in Z*) continue ;; esac # a zombie
  # Every member keeps its slot's lock file open for life, so its files name its directory.
  if [ -n "$want" ] && ! ls -l "$dir/fd" 2>/dev/null | grep -qF -- "-> $want/"; then continue; fi
  started=$(sed 's/^.*) //' "$dir/stat" 2>/dev/null | cut -d' ' -f20) || continue
  [ -n "$started" ] || continue
  up=$(awk -v s="$started" -v hz="$(getconf CLK_TCK)" '{ printf "%d", $1 - s / hz }' /proc/uptime)
  args=$(tr '\0' ' ' <"$dir/cmdline" 2>/dev/null) || continue
  printf '%-16s %8s %8s %10s %9s  %s\n' "$comm" "$pid" "$(field "$pid" PPid)" "$(field "$pid" VmRSS | cut -d' ' -f1)" "$up" "$args"
  found=$((found + 1))
done
if [ "$found" -eq 0 ]; then
  echo "no dynast process${want:+ of $want}" >&2
  exit 1
fi
