#!/usr/bin/env bash
# Shows the tree of dynast's processes and of what they have started, as the operating system
# sees it. It reads only /proc and asks no process, so it also works when there is no leader.
# After a takeover, processes are children of whoever adopts orphans, so there are several trees.
#
#   scripts/tree.sh [DATA_DIR]    with DATA_DIR only the processes of that directory
set -euo pipefail

want=${1:-}
[ -z "$want" ] || want=$(cd "$want" && pwd)

declare -A children=() name=() ours=() # by pid
# A process that ends between two reads is left out.
for dir in /proc/[0-9]*; do
  pid=${dir#/proc/}
  stat=$(cat "$dir/stat" 2>/dev/null) || continue
  comm=$(cat "$dir/comm" 2>/dev/null) || continue
  read -r state ppid _ <<<"${stat##*) }"
  [ "$state" != Z ] || continue # a zombie
  name[$pid]=$comm
  children[$ppid]+=" $pid"
  case $comm in dynast:*) ;; *) continue ;; esac
  # Every member keeps its slot's lock file open for life, so its files name its directory.
  if [ -n "$want" ] && ! ls -l "$dir/fd" 2>/dev/null | grep -qF -- "-> $want/"; then continue; fi
  ours[$pid]=$ppid
done
if [ "${#ours[@]}" -eq 0 ]; then
  echo "no dynast process${want:+ of $want}" >&2
  exit 1
fi

ticks=$(getconf CLK_TCK)
read -r now _ </proc/uptime

# show PID FIRST REST prints a process and what it has started. FIRST stands before its own line,
# REST before those of its children.
show() {
  local pid=$1 first=$2 rest=$3 started rss args kids kid
  started=$(sed 's/^.*) //' "/proc/$pid/stat" 2>/dev/null | cut -d' ' -f20) || return 0
  [ -n "$started" ] || return 0
  rss=$(sed -n 's/^VmRSS:[[:space:]]*\([0-9]*\).*/\1/p' "/proc/$pid/status" 2>/dev/null) || return 0
  args=$(tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null) || return 0
  printf '%8s %10s %9s  %s%s  %s\n' "$pid" "${rss:-0}" "$((${now%.*} - started / ticks))" "$first" "${name[$pid]}" "$args"
  read -ra kids <<<"${children[$pid]:-}"
  for kid in ${kids[@]+"${kids[@]}"}; do
    if [ "$kid" = "${kids[-1]}" ]; then
      show "$kid" "$rest└─ " "$rest   "
    else
      show "$kid" "$rest├─ " "$rest│  "
    fi
  done
}

printf '%8s %10s %9s  %s\n' PID RSS_KIB UP_S 'PROCESS AND ARGUMENTS'
for pid in $(printf '%s\n' "${!ours[@]}" | sort -n); do
  parent=${ours[$pid]}
  # What another one of ours has started stands below it.
  while [ -n "$parent" ] && [ "$parent" -gt 1 ] && [ -z "${ours[$parent]:-}" ]; do
    parent=$(sed 's/^.*) //' "/proc/$parent/stat" 2>/dev/null | cut -d' ' -f2) || parent=
  done
  [ -n "$parent" ] && [ "$parent" -gt 1 ] || show "$pid" '' ''
done
