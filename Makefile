# Everything runs inside .venv; python3 (3.11 or newer) and make are all that the machine must have.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
PYTHON ?= python3
UV_VERSION := 0.13.9
BIN := .venv/bin
# A machine that forbids .pyc files would compile the CDK anew at every start.
unexport PYTHONDONTWRITEBYTECODE
# uv must work on this checkout's environment, whatever the caller's shell has active.
unexport VIRTUAL_ENV
export UV_PROJECT_ENVIRONMENT := .venv

.PHONY: help setup demo test check format lint types tests soak bench deploy clean

help:  ## What can be done here
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):[^#]*## /make \1\t/' | expand -t 14

setup: .venv/.ready

.venv/.ready: pyproject.toml uv.lock
	@$(PYTHON) -c 'import sys; sys.exit("Fan Out needs Python 3.11 or newer, this is " + sys.version.split()[0]) if sys.version_info < (3, 11) else None'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	@$(BIN)/uv sync --frozen --quiet --python $(BIN)/python
	@touch $@

demo: setup  ## Set up, start an embedded AWS, import 10,000 tasks, run the daily plan
	@$(BIN)/python -m fanout.demo

test: check  ## Set up and run the whole gate

check: setup format lint types tests  ## The gate: format, lint, types, every test

format: setup
	$(BIN)/ruff format --check .

lint: setup
	$(BIN)/ruff check .

types: setup
	$(BIN)/mypy

tests: setup
	$(BIN)/pytest -n 3 --dist loadfile -m "not aws and not soak"

soak: setup  ## Long fault-injection runs, bounded in time
	$(BIN)/pytest -n 2 --dist loadgroup -m soak --timeout 3600

lock: setup  ## Write uv.lock and infra/pylock.toml, the packages of the functions' layer
	$(BIN)/uv lock
	$(BIN)/uv export --quiet --frozen --only-group functions --no-emit-project --prune botocore --no-header \
		--format pylock.toml --output-file infra/pylock.toml

bench: setup  ## Speed and memory, as ratios and scaling tables
	$(BIN)/python -m bench

deploy: setup  ## Deploy to the AWS account of the current credentials
	$(BIN)/python -m infra.cdk deploy

clean:  ## Remove what this project leaves in its folder
	@test ! -x $(BIN)/fanout || $(BIN)/fanout down
	rm -rf .venv .fanout cdk.out .pytest_cache .mypy_cache .ruff_cache .hypothesis
