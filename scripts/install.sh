#!/bin/sh
# Installs a release of dynast for Linux: downloads it, verifies its checksum, and puts the program and
# its manual pages below a prefix. It starts nothing. See docs/installation.md.
#
#   install.sh [--prefix DIR] [--version vX.Y.Z]
#
#   --prefix DIR       where to install; default: /usr/local (the program is DIR/bin/dynast)
#   --version VERSION  which release to install; default: the latest one
#
# Set DYNAST_RELEASES to the address of a mirror of https://github.com/dynast-io/dynast/releases.
set -eu

releases=${DYNAST_RELEASES:-https://github.com/dynast-io/dynast/releases}
prefix=/usr/local
version=latest

fail() {
	echo "install.sh: $*" >&2
	exit 1
}
usage() {
	echo "install.sh: $*" >&2
	echo "usage: install.sh [--prefix DIR] [--version vX.Y.Z]" >&2
	exit 2
}

# download writes the file at an address.
download() {
	if command -v curl >/dev/null; then
		curl -fsSL --retry 2 -o "$2" "$1"
	elif command -v wget >/dev/null; then
		wget -q -O "$2" "$1"
	else
		fail "needs curl or wget, and neither is installed"
	fi || fail "cannot download $1: check the version and the network"
}

# main is a function so that a shell that reads a half-downloaded script runs none of it.
main() {
	while [ $# -gt 0 ]; do
		case $1 in
		--prefix | --version) [ $# -ge 2 ] && [ -n "$2" ] || usage "$1 needs a value" ;;
		esac
		case $1 in
		--prefix) prefix=$2; shift 2 ;;
		--version) version=$2; shift 2 ;;
		*) usage "unknown argument $1" ;;
		esac
	done
	case $version in
	latest) from=$releases/latest/download ;;
	v*) from=$releases/download/$version ;;
	*) from=$releases/download/v$version ;;
	esac

	[ "$(uname -s)" = Linux ] || fail "dynast runs on Linux only, and this is $(uname -s)"
	case $(uname -m) in
	x86_64 | amd64) arch=amd64 ;;
	aarch64 | arm64) arch=arm64 ;;
	*) fail "there is no release for the architecture $(uname -m): build from source, see docs/installation.md" ;;
	esac
	command -v sha256sum >/dev/null || fail "needs sha256sum (coreutils) to verify the download"
	# The archive is unpacked below the prefix, so that moving its files there cannot fail halfway.
	mkdir -p "$prefix/bin" "$prefix/share/man/man1" 2>/dev/null && [ -w "$prefix/bin" ] && [ -w "$prefix/share/man/man1" ] ||
		fail "cannot write to $prefix: run as root, or choose another directory with --prefix (for example --prefix \"\$HOME/.local\")"
	work=$(mktemp -d "$prefix/bin/.dynast-install-XXXXXX") || fail "cannot create a directory in $prefix/bin"
	trap 'rm -rf "$work"' EXIT
	trap 'exit 130' INT TERM HUP

	archive=dynast_linux_$arch.tar.gz
	download "$from/checksums.txt" "$work/checksums.txt"
	download "$from/$archive" "$work/$archive"
	grep " $archive\$" "$work/checksums.txt" >"$work/checksum" || fail "$from/checksums.txt has no checksum for $archive"
	(cd "$work" && sha256sum -c checksum >/dev/null 2>&1) ||
		fail "the checksum of $archive is wrong: nothing was installed. If a release was published just now, run this again"

	mkdir "$work/files"
	tar -xzf "$work/$archive" -C "$work/files" || fail "cannot unpack $archive"
	installed=$("$work/files/dynast" version) || fail "the program in $archive does not run on this machine"
	# A running program's file cannot be written, but it can be replaced.
	chmod 755 "$work/files/dynast"
	mv -f "$work/files/dynast" "$prefix/bin/dynast"
	mv -f "$work"/files/man1/*.gz "$prefix/share/man/man1/"
	if [ -d "$work/files/man5" ]; then
		mkdir -p "$prefix/share/man/man5"
		mv -f "$work"/files/man5/*.gz "$prefix/share/man/man5/"
	fi
	echo "installed $prefix/bin/dynast: $installed"
	case :$PATH: in
	*:"$prefix/bin":*) ;;
	*) echo "note: $prefix/bin is not in your PATH" ;;
	esac
}

main "$@"
