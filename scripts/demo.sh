#!/usr/bin/env bash
# Records the demonstration in the README: start, kill, tree. The commands really run,
# in a directory of their own, and nothing in the transcript is edited.
#
#   scripts/demo.sh            prints the transcript
#   scripts/demo.sh --write    puts it into README.md, between the lines "demo:begin" and "demo:end"
#
# DEMO_BINARY is a built program; without it this script builds one. DEMO_CLIENT and
# DEMO_PORTS are addresses to use if the default ones are taken.
set -euo pipefail
export DYNAST_CONFIG=off # no file of this host
unset DYNAST_DATA_DIR
repo=$(cd "$(dirname "$0")/.." && pwd)
case "${1:-}" in
"" | --write) ;;
*) echo "demo.sh: unknown argument $1: give --write or nothing" >&2; exit 2 ;;
esac

dir=$(mktemp -d)
program=${DEMO_BINARY:-$dir/dynast}
[ -x "$program" ] || (cd "$repo" && go build -o "$program" .)
mkdir "$dir/work"
cd "$dir/work"

dynast() {
	case "$1" in
	up) exec "$program" "$@" ${DEMO_CLIENT:+--client-listen "$DEMO_CLIENT"} ${DEMO_PORTS:+--member-ports "$DEMO_PORTS"} ;;
	*) "$program" "$@" ;;
	esac
}
cleanup() { "$program" stop --timeout 5s >/dev/null 2>&1 || true; rm -rf "$dir"; }
trap cleanup EXIT

# run shows a command and its output, standard error included.
run() {
	printf '$ %s\n' "$1"
	eval "$1" 2>&1
}
# settled waits until two followers are in sync.
settled() {
	for _ in $(seq 600); do
		[ "$("$program" tree --json 2>/dev/null | grep -o '"in_sync"' | wc -l)" -ge 2 ] && return
		sleep 0.1
	done
	echo "demo.sh: two followers are not in sync after a minute" >&2
	exit 1
}

transcript() {
	printf '$ dynast up 2>dynast.log &\n'
	dynast up 2>dynast.log &
	disown # so that this shell prints nothing when it is killed
	settled
	run 'dynast put greeting hello'
	run 'dynast tree'
	run 'kill -9 "$(head -n1 dynast-data/cluster.lock | cut -d" " -f1)"    # whoever leads'
	run 'dynast get greeting'
	settled
	run 'dynast tree'
	run 'dynast stop'
}

transcript >"$dir/transcript"
if [ "${1:-}" != --write ]; then
	cat "$dir/transcript"
	exit
fi
awk -v file="$dir/transcript" '
	/<!-- demo:begin/ { print; print "```console"; while ((getline line < file) > 0) print line; print "```"; skip = 1; next }
	/<!-- demo:end/   { skip = 0 }
	!skip             { print }
' "$repo/README.md" >"$dir/README.md"
cat "$dir/README.md" >"$repo/README.md"
