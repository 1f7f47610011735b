#!/usr/bin/env bash
# Checks what needs no test to run: formatting, vet, staticcheck, the syntax of shell scripts.
set -euo pipefail
cd "$(dirname "$0")/.."

echo "== gofmt"
unformatted=$(gofmt -l $(git ls-files '*.go'))
[ -z "$unformatted" ] || { echo "not formatted: $unformatted"; exit 1; }

echo "== go vet"
go vet ./...

echo "== staticcheck"
go run honnef.co/go/tools/cmd/staticcheck@v0.8.2 ./...

echo "== shell scripts"
for f in scripts/*.sh scripts/package/*.sh .ci/run; do
  case $(head -n1 "$f") in
  *bash) bash -n "$f" ;;
  *) sh -n "$f" ;;
  esac
done
