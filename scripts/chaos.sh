#!/usr/bin/env bash
# Builds the program of this checkout and runs 'dynast chaos' with it. That kills,
# stops and damages members under load, and checks the guarantees.
#
#   scripts/chaos.sh [flags of 'dynast chaos', see --help]
#
# Set DYNAST to a built program to use it instead.
set -euo pipefail

if [ -n "${DYNAST:-}" ]; then
  exec "$DYNAST" chaos "$@"
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
(cd "$(dirname "$0")/.." && go build -o "$work/dynast" .)
"$work/dynast" chaos "$@"
