#!/usr/bin/env bash
# Kills random processes of a cluster with SIGKILL, the leader too, while
# clients write; then compares every acknowledged write with what is there.
# Exit code 1, with a list, when one is missing.
#
#   scripts/chaos.sh [--rounds N] [--writers N] [--binary FILE] [--data-dir DIR]
#
# Without --data-dir it starts a cluster of its own in a temporary directory
# and stops it in the end. Set CHAOS_SEED to repeat the choice of victims.
set -euo pipefail

rounds=20 writers=3 binary=./dynast data=""
usage() { sed -n '2,10s/^# \{0,1\}//p' "$0"; exit "$1"; }
while [ $# -gt 0 ]; do
  case $1 in
    --rounds) rounds=$2; shift 2 ;;
    --writers) writers=$2; shift 2 ;;
    --binary) binary=$2; shift 2 ;;
    --data-dir) data=$2; shift 2 ;;
    -h|--help) usage 0 ;;
    *) echo "chaos: unknown argument $1" >&2; usage 2 >&2 ;;
  esac
done
if [ ! -x "$binary" ]; then
  echo "chaos: $binary is not there: build it with 'go build -o dynast .', or name it with --binary" >&2
  exit 2
fi
seed=${CHAOS_SEED:-$RANDOM}
RANDOM=$seed
work=$(mktemp -d)
own=""
pids=()

cleanup() {
  touch "$work/stop"
  for p in "${pids[@]}"; do wait "$p" 2>/dev/null || true; done
  if [ -n "$own" ]; then
    "$binary" stop --data-dir "$data" >/dev/null || echo "chaos: the cluster in $data did not stop" >&2
  fi
  rm -rf "$work"
}
trap cleanup EXIT

tree() { "$binary" tree --json --data-dir "$data"; }
# The JSON is indented, one field a line: standard tools can read it.
client() { tree | sed -n 's/^  "client": "\(.*\)",$/\1/p'; }
in_sync() { tree | grep -c '"state": "in_sync"' || true; }
members() { tree | sed -n '/"members"/,/^  \]/s/^ *"pid": \([0-9]*\),$/\1/p'; }
leader() {
  tree | awk -F'"' '/^  "leader"/ { l = $4 } /^ *"address"/ { a = $4 } /^ *"pid"/ && a == l { gsub(/[^0-9]/, "", $3); print $3; exit }'
}
await() { # await SECONDS WHAT COMMAND...: until the command succeeds
  local limit=$((SECONDS + $1)) what=$2
  shift 2
  until "$@" 2>/dev/null; do
    if [ "$SECONDS" -ge "$limit" ]; then echo "chaos: timed out: $what" >&2; exit 1; fi
    sleep 0.05
  done
}
full() { [ "$(in_sync)" -ge 2 ]; }

if [ -z "$data" ]; then
  own=1 data=$work/data
  # A free port of this host for the clients.
  port=$((20000 + $$ % 20000))
  "$binary" up --data-dir "$data" --client-listen "127.0.0.1:$port" 2>"$work/log" &
fi
await 20 "two followers in sync" full
endpoint=$(client)
prefix=chaos/$seed/$$/
echo "chaos: seed $seed, $rounds rounds, $writers writers, clients at $endpoint, data in $data"

write() { # write N: put one key after the other, note what was acknowledged
  local i=0 k
  while [ ! -e "$work/stop" ]; do
    k=$prefix$1/$i
    if "$binary" put --endpoints="$endpoint" "$k" "$i" >/dev/null 2>>"$work/errors"; then echo "$k" >>"$work/acked.$1"; fi
    i=$((i + 1))
  done
}
for w in $(seq "$writers"); do
  write "$w" &
  pids+=($!)
done

for round in $(seq "$rounds"); do
  await 20 "two followers in sync" full
  mapfile -t all < <(members)
  case $((RANDOM % 4)) in
    0 | 1) victims=("$(leader)") what=leader ;;
    2) victims=("${all[RANDOM % ${#all[@]}]}") what="a member" ;;
    3) victims=("$(leader)" "${all[RANDOM % ${#all[@]}]}") what="the leader and a member" ;;
  esac
  echo "chaos: round $round: SIGKILL to $what: ${victims[*]}"
  kill -9 "${victims[@]}" 2>/dev/null || true
  sleep "0.$((RANDOM % 9 + 1))"
done
await 20 "two followers in sync" full
touch "$work/stop"
for p in "${pids[@]}"; do wait "$p" || true; done
pids=()

cat "$work"/acked.* 2>/dev/null | sort >"$work/acked" || true
if ! "$binary" get --endpoints="$endpoint" --prefix "$prefix" --keys-only >"$work/keys"; then
  echo "chaos: what is there cannot be read from $endpoint" >&2
  exit 1
fi
sed '/^$/d' "$work/keys" | sort >"$work/there"
comm -23 "$work/acked" "$work/there" >"$work/missing"
acked=$(wc -l <"$work/acked")
missing=$(wc -l <"$work/missing")
if [ "$acked" -eq 0 ]; then
  echo "chaos: no write was acknowledged at all; the last errors:" >&2
  tail -n 5 "$work/errors" >&2
  exit 1
fi
if [ "$missing" -gt 0 ]; then
  echo "chaos: $missing of $acked acknowledged writes are MISSING:"
  cat "$work/missing"
  exit 1
fi
echo "chaos: all $acked acknowledged writes are there"
