#!/bin/sh
# Works as long as it runs. The service starts it only while it holds the lock.
n=0
echo "instance $INSTANCE has the lock and works"
while :; do
  n=$((n + 1))
  "$DYNAST" put --endpoints "$DYNAST_ENDPOINTS" jobs/last "job $n of instance $INSTANCE" >/dev/null || exit 1
  echo "job $n"
  sleep 1
done
