# A thin front door: every target is a task of `cargo xtask`, which does the work.
# Variables: NODES=2 (cluster-up, e2e, demo), KEEP=1 (leave the cluster up), FILTER=name (e2e),
# SUITE=clock|nodes|wave|scale|leader|metrics|upgrade|large|recovery (e2e: these run only when asked for),
# FROM=revision (upgrade: where from; by default the one before), PERCENT=100 RUNS=3 (bench: size of
# the trees and turns).

CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/tidelock
export CARGO_TARGET_DIR ?= $(CACHE)/target
export NODES ?= 1
export KEEP
export SUITE
export FROM
export PERCENT ?= 100
export RUNS ?= 3

XTASK := cargo xtask

.DEFAULT_GOAL := help
.PHONY: help demo test check gate e2e cluster-up cluster-down image generate bench cargo

help: ## Show this list
	@echo "Tidelock: proven backups of PersistentVolumeClaims"
	@echo
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 24
	@echo
	@echo "  NODES=2 for a second node, KEEP=1 to leave the cluster up, FILTER=name for one e2e test"

demo: cargo ## See it work on a real Kubernetes on this machine
	@$(XTASK) demo

test: cargo ## check, gate, then e2e; the long suites run by SUITE= alone
	@$(XTASK) test

check: cargo ## Format, lints, unit tests, generated files, the chart, alerts, licences
	@$(XTASK) check

gate: cargo ## Compare the mover's processor time and memory with fixed bounds
	@$(XTASK) gate

e2e: cargo ## The stories, on a real cluster; one suite, also a long one, by SUITE=
	@$(XTASK) e2e $(FILTER)

cluster-up: cargo ## Start the test cluster, or find it running
	@$(XTASK) cluster up

cluster-down: cargo ## End the test cluster; nothing of it stays
	@$(XTASK) cluster down

image: cargo ## Write the OCI images, without Docker
	@$(XTASK) image

generate: cargo ## Write deploy/ and docs/reference/ anew from the code
	@$(XTASK) generate

bench: cargo ## Measure the mover, beside other tools, and the operator: some hours
	@$(XTASK) bench

cargo:
	@command -v cargo >/dev/null || { echo "Rust is missing: install it from https://rustup.rs (the toolchain is pinned in rust-toolchain.toml)" >&2; exit 1; }
