#!/bin/sh
# Runs before the files of the .deb or .rpm package are unpacked. They belong to this user.
set -e
if ! getent passwd dynast >/dev/null; then
	useradd --system --user-group --home-dir /var/lib/dynast --no-create-home --shell /usr/sbin/nologin dynast
fi
