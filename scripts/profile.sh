#!/usr/bin/env bash
# Writes default.pgo, the profile with which the Go compiler optimizes the program (profile-guided
# optimization, https://go.dev/doc/pgo). `go build` uses it without a flag.
#
#   scripts/profile.sh [SECONDS]      each of seven loads runs that long (default 6)
#
# It starts a cluster in a temporary directory, runs the loads of `dynast bench` on it, and merges the
# profiles of the leader and the followers. It needs Go and a minute. Run it again after large
# changes of the code. An old profile does no harm, it only helps less.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
seconds=${1:-6}
# The profile names the program's path. Always the same one, and -trimpath, keep the developer's out of it.
work=/tmp/dynast-profile
mkdir -m 700 "$work"
dynast="$work/dynast"
end() {
  "$dynast" stop --config "$work/config.hcl" >/dev/null 2>&1 || true
  wait
  rm -rf "$work"
}
trap end EXIT
(cd "$root" && go build -tags profile -pgo=off -trimpath -o "$dynast" .)
mkdir "$work/profiles"
cat >"$work/config.hcl" <<CONFIG
data_dir = "$work/data"
client { listen = "127.0.0.1:$((20000 + RANDOM % 10000))" }
member { ports = "17000-17100" }
log { level = "warn" }
CONFIG
export DYNAST_CPU_PROFILE="$work/profiles"
export DYNAST_CPU_PROFILE_FOR="$((7 * seconds + 10))s"
"$dynast" up --config "$work/config.hcl" &
until "$dynast" status --check --config "$work/config.hcl" >/dev/null 2>&1; do sleep 0.1; done
load() {
  echo "== $1, $2 client(s)" >&2
  "$dynast" bench "$1" --clients "$2" --connections "$3" --duration "${seconds}s" --keep --config "$work/config.hcl" >/dev/null
}
load put 64 4
load put 256 8
load put 1 1
load txn 64 4
load mixed 64 4
load lease 16 1
load watch 17 1
until [ "$(find "$work/profiles" -name '*.pprof' | wc -l)" -ge 3 ]; do sleep 0.2; done
go tool pprof -proto "$work"/profiles/*.pprof >"$root/default.pgo"
ls -l "$root/default.pgo"
