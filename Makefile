# The usual tasks. 'make' alone lists them. Each one is a command that you can also run by hand.

GORELEASER = go run github.com/goreleaser/goreleaser/v2@v2.15.2
SYFT       = github.com/anchore/syft/cmd/syft@v1.57.1
VERSION   ?= $(shell git describe --tags --always --dirty)
IMAGE     ?= ghcr.io/dynast-io/dynast
BUILD_ARGS = --build-arg VERSION=$(VERSION) --build-arg COMMIT=$(shell git rev-parse HEAD) --build-arg DATE=$(shell git log -1 --format=%cI)

.DEFAULT_GOAL := help
.PHONY: help build install test race lint ci sim chaos bench profile generate packages release image push-image clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## Build ./dynast, statically linked
	CGO_ENABLED=0 go build -trimpath -ldflags "-X main.version=$(VERSION)" -o dynast .

install: ## Install the program with 'go install'
	go install .

test: ## Run all tests (about 10 minutes on 2 cores)
	go test -timeout 20m ./...

race: ## Run the tests with the race detector
	go test -race -short -timeout 20m ./shared/... ./supervisor/... ./worker/...

lint: ## Check formatting, vet, staticcheck, shell scripts
	scripts/lint.sh

ci: ## Run everything that a change must pass
	.ci/run

sim: ## Simulate clusters and services under faults for two minutes
	go run . sim --seeds 0 --budget 60s
	go run . sim --services --seeds 0 --budget 60s

chaos: ## Kill, stop and damage real processes under load
	scripts/chaos.sh

bench: ## Measure dynast beside etcd, and print the results
	scripts/bench.sh

profile: ## Measure default.pgo, the profile for the compiler
	scripts/profile.sh

generate: ## Generate the protocol code again (needs protoc)
	scripts/generate.sh

packages: build/tools/syft ## Build archives, packages, checksums and SBOMs into dist/
	PATH="$(CURDIR)/build/tools:$$PATH" $(GORELEASER) release --snapshot --clean

release: build/tools/syft ## Publish a release for the tag of this commit (needs GITHUB_TOKEN)
	scripts/package/notes.sh "$$(git describe --exact-match --tags)" >build/notes.md
	PATH="$(CURDIR)/build/tools:$$PATH" $(GORELEASER) release --clean --release-notes build/notes.md

build/tools/syft:
	GOBIN="$(CURDIR)/build/tools" go install $(SYFT)

image: ## Build the container image dynast
	docker buildx build -f scripts/Dockerfile $(BUILD_ARGS) --tag dynast --load .

push-image: ## Publish the image of a release for both architectures (needs a login to the registry)
	docker buildx create --use
	docker buildx build -f scripts/Dockerfile $(BUILD_ARGS) --platform linux/amd64,linux/arm64 --provenance mode=max --sbom true \
	  --tag "$(IMAGE):$(VERSION)" $(if $(findstring -,$(VERSION)),,--tag "$(IMAGE):latest") --push .

clean: ## Remove what was built here
	rm -rf dynast build dist
