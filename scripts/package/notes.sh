#!/usr/bin/env bash
# Prints the notes of a release: the section of CHANGELOG.md for its version.
#
#   scripts/package/notes.sh v1.2.3
#
# It fails if there is no such section, so that no release is published without one.
set -euo pipefail
[ $# -eq 1 ] || { echo "notes.sh: give a version, for example v1.2.3" >&2; exit 2; }
changelog=$(dirname "$0")/../../CHANGELOG.md
awk -v title="## ${1#v}" '
	/^## /       { inside = $0 == title || index($0, title " ") == 1; if (inside) found = 1; next }
	inside       { print }
	END          { exit !found }
' "$changelog" || { echo "notes.sh: CHANGELOG.md has no section '## ${1#v}': rename 'Unreleased' to it before the release" >&2; exit 1; }
