#!/bin/sh
# Runs after the files of the .deb or .rpm package are unpacked. It starts nothing and restarts
# nothing: 'dynast upgrade' replaces running processes without a failed request.
set -e
if [ -d /run/systemd/system ]; then
	systemctl daemon-reload || true
fi
if dynast tree --data-dir /var/lib/dynast >/dev/null 2>&1; then
	echo "dynast: the running processes are still of the version before. To replace them without a failed request:"
	echo "  dynast upgrade --data-dir /var/lib/dynast"
else
	echo "dynast: to start it now and at every boot:"
	echo "  systemctl enable --now dynast"
fi
