#!/bin/sh
# Runs before the files of the .deb or .rpm package are removed. In an upgrade it does nothing.
# dpkg passes "remove" or "upgrade", rpm the number of versions that will be left.
set -e
case "$1" in
remove | 0) ;;
*) exit 0 ;;
esac
if [ -d /run/systemd/system ]; then
	systemctl disable --now dynast.service dynast.socket || true
fi
if dynast tree --data-dir /var/lib/dynast >/dev/null 2>&1; then
	dynast stop --data-dir /var/lib/dynast
fi
