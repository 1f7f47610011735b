#!/usr/bin/env bash
# Regenerates the protocol code from shared/member/wire/wire.proto.
# Needs protoc, protoc-gen-go and protoc-gen-go-grpc on the PATH.
set -euo pipefail
cd "$(dirname "$0")/../shared/member/wire"
protoc --go_out=. --go_opt=paths=source_relative --go-grpc_out=. --go-grpc_opt=paths=source_relative wire.proto
