#!/bin/sh
# Runs after the files of the .deb or .rpm package are removed. The data stays: nobody should lose
# a database because they removed a program.
set -e
if [ -d /run/systemd/system ]; then
	systemctl daemon-reload || true
fi
case "$1" in
remove | 0)
	if [ -d /var/lib/dynast ]; then
		echo "dynast: the data in /var/lib/dynast and the user dynast are kept. To delete them:"
		echo "  rm -r /var/lib/dynast && userdel dynast"
	fi
	;;
esac
