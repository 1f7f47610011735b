#!/usr/bin/env bash
# Measures dynast, etcd (one member, and three members on this host) and two limits
# of the machine, in one run, one after the other.
#
#   scripts/bench.sh [-out docs/benchmarks.md] [-rounds N] [-duration 3s] [-dir DIR]
#   scripts/bench.sh -base OTHER_BUILD [-only put]       (two builds of dynast in one run)
#   scripts/bench.sh -growth [-out docs/benchmarks.md]
#   scripts/bench.sh -services [-out docs/benchmarks.md]
#   scripts/bench.sh -hosts [-out docs/benchmarks.md]    (root, iproute2)
#   scripts/bench.sh -smoke
#
# It prints Markdown. -out also writes it into a file, with a chart beside the file.
# It needs Go, and some minutes on a machine without other work. -h lists all
# arguments. Without -dynast it builds the program from this source.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
program=""
for a in "$@"; do
  case $a in -dynast | -dynast=* | --dynast | --dynast=*) program=given ;; esac
done
(cd "$root" && go build -o "$work/sidebyside" ./shared/prove/bench/sidebyside)
if [ -z "$program" ]; then
  (cd "$root" && go build -o "$work/dynast" .)
  set -- "$@" -dynast "$work/dynast"
fi
# The program runs in the background, so that this script can pass a signal on to it
# and it can end what it started. A child of a script without job control ignores
# an interrupt.
"$work/sidebyside" "$@" &
child=$!
trap 'kill -TERM "$child" 2>/dev/null || true' INT TERM
code=0
wait "$child" || code=$?
if kill -0 "$child" 2>/dev/null; then code=0; wait "$child" || code=$?; fi
exit "$code"
