#!/usr/bin/env bash
# Writes the files of the packages that are made from the program or from other files: manual
# pages, completions for shells, and the unit with the path of the package.
#
#   scripts/package/files.sh DIRECTORY [VERSION]
#
# VERSION is for the manual pages. Set DYNAST to a built program to use it instead of this checkout's.
set -euo pipefail
[ $# -ge 1 ] || { echo "files.sh: give the directory to write" >&2; exit 2; }
repo=$(cd "$(dirname "$0")/../.." && pwd)
rm -rf "$1"
mkdir -p "$1"
dir=$(cd "$1" && pwd)
program=${DYNAST:-$dir/dynast}
[ -n "${DYNAST:-}" ] || (cd "$repo" && CGO_ENABLED=0 go build -trimpath -ldflags "-X main.version=${2:-}" -o "$program" .)

# The same source gives the same files: manual pages have the commit's date, gzip writes no time.
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git -C "$repo" log -1 --format=%ct)}
"$program" man "$dir/man1"
mkdir "$dir/man5"
mv "$dir"/man1/*.5 "$dir/man5"
gzip -9n "$dir"/man1/*.1 "$dir"/man5/*.5
mkdir "$dir/completions"
for shell in bash zsh fish; do "$program" completion "$shell" >"$dir/completions/dynast.$shell"; done
[ -n "${DYNAST:-}" ] || rm "$program"
# The comment at the top tells how to install the unit by hand.
sed -e '1,/^$/d' -e 's|/usr/local/bin/dynast|/usr/bin/dynast|' "$repo/scripts/dynast.service" >"$dir/dynast.service"
