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
# Without the files whose tests take longest.
FAST := tests/unit/fan_out tests/unit/task_service tests/unit/test_documents.py tests/contract/test_[^e]*.py \
	$(addprefix --ignore=tests/unit/task_service/test_,write_tasks.py list_tasks.py)

.PHONY: help setup demo test check format lint types tests coverage test-fast fix soak soak-one lock bench deploy aws-test clean

help:  ## What can be done here
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## /make \1\t/' | expand -t 17

setup: .venv/.ready  ## Make .venv, with everything that the project needs

.venv/.ready: pyproject.toml uv.lock
	@$(PYTHON) -c 'import sys; sys.exit("Fan Out needs Python 3.11 or newer, this is " + sys.version.split()[0]) if sys.version_info < (3, 11) else None'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	@$(BIN)/uv sync --frozen --quiet --python $(BIN)/python
	@touch $@

demo: setup  ## Set up, start an embedded AWS, plan 10,000 tasks, see a job fail in part and retry it
	@$(BIN)/python -m fanout.demo

test: check  ## Set up and run the whole gate

check: setup format lint types tests  ## The gate: format, lint, types, every test

format: setup  ## Is the code formatted? (`make fix` does it)
	$(BIN)/ruff format --check .

lint: setup  ## ruff
	$(BIN)/ruff check .

types: setup  ## mypy, strict, over code and tests
	$(BIN)/mypy

tests: setup  ## Every test but the long ones
	$(BIN)/pytest -n 3 --dist loadfile -m "not soak"

# Measured, the unit tests take twice their time; whole jobs, which repeat what they cover, are left out.
coverage: setup  ## The branch coverage of lambdas/ by the unit tests, at least 95%
	$(BIN)/pytest -n 3 --dist loadfile -m "not soak" tests/unit --ignore-glob '*/test_damaged_objects.py' \
		--ignore-glob '*/test_hostile_catalogue.py' --cov --cov-report=term

test-fast: setup  ## The tests that need no embedded AWS and no synthesis; half a minute
	$(BIN)/pytest -n 3 --dist worksteal -m "not soak" $(FAST)

fix: setup  ## Format the code and repair what ruff can repair
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

soak: setup  ## Long fault-injection runs, bounded in time
	$(BIN)/pytest -n 2 --dist loadgroup -m soak --timeout 3600

lock: setup  ## Write uv.lock and infra/pylock.toml, the packages of the functions' layer
	$(BIN)/uv lock
	$(BIN)/uv export --quiet --frozen --only-group functions --no-emit-project --prune botocore --no-header \
		--format pylock.toml --output-file infra/pylock.toml

soak-one: setup  ## The long runs whose name contains NAME: make soak-one NAME=...
	@test -n "$(NAME)" || { echo 'NAME is missing: make soak-one NAME=part_of_a_name' >&2; exit 2; }
	$(BIN)/pytest -n 0 -m soak --timeout 3600 -k "$(NAME)"

bench: setup  ## Speed and memory, as ratios and scaling tables
	$(BIN)/python -m bench

deploy: setup  ## Deploy to the AWS account of the current credentials
	$(BIN)/python -m infra.cdk deploy

aws-test: setup  ## Try it on the AWS account of the current credentials, for less than $0.10, and remove it; asks first
	@$(BIN)/python -m tests.aws

clean:  ## Remove what this project leaves in its folder
	@test ! -x $(BIN)/fanout || $(BIN)/fanout down
	rm -rf .venv .fanout .coverage cdk.out dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
