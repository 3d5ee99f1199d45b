# Every command a person needs. `make help` lists them.
SHELL := /bin/bash
PY := .venv/bin/python
DATA ?=
OUT ?= out/demo
STRATEGY ?= easy-first
SEED ?= 0
PRESET ?=
SEED_CT ?=
STATE ?= var/rekindle
TESTS ?= -n 2 --dist loadfile

.DEFAULT_GOAL := help
.PHONY: help setup servers demo demo-real up test test-unit test-integration test-e2e check fmt lint types proto proto-check compat-check bench helm-lint images clean

help: ## list these commands
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-18s %s\n", $$1, $$2}'

setup: ## make the environment in .venv from nothing; quick when nothing changed
	@tools/setup

demo: setup ## run a whole campaign and write a report: [DATA=dir] [OUT=dir] [STRATEGY=..] [SEED=n] [PRESET=..] [SEED_CT=n]
	@$(PY) -m rekindle_local demo --out "$(OUT)" --strategy "$(STRATEGY)" --seed "$(SEED)" \
	  $(if $(DATA),--data "$(DATA)") $(if $(PRESET),--preset "$(PRESET)") $(if $(SEED_CT),--seed-ct "$(SEED_CT)")

demo-real: servers ## the same on PostgreSQL, MinIO and Triton, compared with out/demo: [OUT=dir], [DATA=dir] and so on
	@tools/install-triton
	@$(PY) tools/demo-real --out "$(if $(filter out/demo,$(OUT)),out/demo-real,$(OUT))" --strategy "$(STRATEGY)" \
	  --seed "$(SEED)" $(if $(DATA),--data "$(DATA)") $(if $(PRESET),--preset "$(PRESET)") \
	  $(if $(SEED_CT),--seed-ct "$(SEED_CT)")

up: setup ## start the three services on loopback, state in $(STATE); Ctrl-C stops them
	@$(PY) -m rekindle_local up --state "$(STATE)"

servers: setup
	@tools/install-servers postgresql minio

test: servers ## unit, contract, integration and quick end-to-end tests (under 15 minutes on 2 cores)
	@$(PY) -m pytest $(TESTS) tests --ignore tests/real

test-unit: servers ## unit and contract tests only, PostgreSQL and MinIO among them
	@$(PY) -m pytest $(TESTS) tests/unit tests/contract

test-integration: servers ## services against each other, on real servers, with faults
	@tools/install-servers && tools/install-triton
	@$(PY) -m pytest $(TESTS) tests/integration tests/real

test-e2e: setup ## services as processes: campaigns, kills, the command line
	@$(PY) -m pytest tests/e2e

check: lint types proto-check compat-check setup ## what CI runs besides the tests
	@tools/check-installs

fmt: setup ## format the code
	@.venv/bin/ruff format . && .venv/bin/ruff check --fix --quiet .

lint: setup ## ruff, layers, protos
	@.venv/bin/ruff format --check . && .venv/bin/ruff check . && .venv/bin/lint-imports && .venv/bin/buf lint

types: setup ## strict type checker
	@.venv/bin/basedpyright --level error

proto: setup ## generate the Python API from protos/
	@tools/generate-api

proto-check: setup ## fail when the generated API differs from the protos
	@tools/check-api

compat-check: setup ## fail when the protos break a version of the API that was kept (compat/)
	@tools/check-compat

bench: setup ## measure speed and memory beside what a user would take instead
	@$(PY) -m bench

helm-lint: setup ## the chart by Helm's lint, Kubernetes' schemas and checkov's rules
	@tools/helm-lint

images: ## build the three images, where docker can: [VERSION=..] [BUILD_ARGS="--build-arg .."]
	@VERSION="$(VERSION)" tools/build-images $(BUILD_ARGS)

clean: ## remove the environment and everything generated; labels and models in $(STATE) stay
	@rm -rf .venv .tools .setup out build .pytest_cache .ruff_cache .hypothesis .import_linter_cache
