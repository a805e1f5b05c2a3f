# Every target makes what it needs. PYTHON picks the interpreter the environment is made with (3.11 or newer).
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3 python3.14; do \
	$$p -c 'import sys, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
PIP := $(BIN)/python -m pip install -q --disable-pip-version-check
COMPILE := build/tools/bin/uv pip compile --quiet --upgrade --all-extras --no-annotate --no-emit-index-url pyproject.toml
LOCK := $(COMPILE) --universal --python-version 3.11 --generate-hashes --custom-compile-command 'make lock'

.PHONY: run test oldest chaos lint types lock audit bench bench-query slo docs
run: .venv/run            ## install and run the daemon on an embedded PostgreSQL
	$(BIN)/logagg serve

test: .venv/dev           ## the whole suite, against a real PostgreSQL
	$(BIN)/pytest -n 3 --dist worksteal -m "not alone"
	$(BIN)/pytest -n 2 --dist worksteal -m alone

oldest: build/tools/made  ## the suite with the lowest versions that pyproject.toml allows; wants python3.11, the lowest of all
	python3.11 -m venv --clear build/oldest
	$(COMPILE) --resolution lowest-direct --python build/oldest/bin/python --output-file build/oldest/lowest.txt
	build/tools/bin/uv pip install --quiet --python build/oldest/bin/python -r build/oldest/lowest.txt -e . --group dev
	build/oldest/bin/pytest -n 3 --dist worksteal -m "not alone"

chaos: .venv/dev          ## faults under load, and what was acknowledged compared with what is there (some 20 minutes)
	$(BIN)/python -m tests.chaos

lint: .venv/dev
	$(BIN)/ruff check . && $(BIN)/ruff format --check .

types: .venv/dev
	mkdir -p .venv/typing && ln -sfn ../.. .venv/typing/logagg && $(BIN)/mypy

lock: build/tools/made    ## the newest versions into .ci/lock-dev.txt, and those of them that logagg runs with into .ci/lock.txt
	$(LOCK) --group dev --output-file .ci/lock-dev.txt
	$(LOCK) --group build --constraint .ci/lock-dev.txt --output-file .ci/lock.txt

audit: build/tools/made   ## known vulnerabilities of what .ci/lock.txt pins; asks pypi.org, and fails where that does not answer
	@build/tools/bin/pip-audit --strict --progress-spinner off --disable-pip --require-hashes -r .ci/lock.txt || { \
	echo "make audit failed: a table above names what is vulnerable. Without one pypi.org could not be asked, and nothing is known."; \
	exit 1; }

bench: .venv/dev          ## benchmarks/README.md says what is measured
	$(BIN)/python -m benchmarks

bench-query: .venv/dev    ## search in ten million records
	$(BIN)/python -m benchmarks.query

slo: .venv/dev            ## service levels: a mixed load from real senders for ten minutes
	$(BIN)/python -m benchmarks.slo

docs: .venv/dev           ## the documentation as a site in build/site, every warning an error, and its own tests
	$(BIN)/python -m mkdocs build --strict --quiet
	$(BIN)/pytest tests/test_docs.py tests/test_tutorial.py

.venv/bin/python:
	@test -n "$(PYTHON)" || { echo "logagg needs Python 3.11 or newer with ensurepip (Debian: apt install python3-venv)"; exit 1; }
	$(PYTHON) -m venv .venv

.venv/run: pyproject.toml .ci/lock.txt | .venv/bin/python
	$(PIP) --require-hashes -r .ci/lock.txt && $(PIP) --no-deps --no-build-isolation -e . && touch $@

.venv/dev: pyproject.toml .ci/lock-dev.txt | .venv/bin/python
	$(PIP) --require-hashes -r .ci/lock-dev.txt && $(PIP) --no-deps --no-build-isolation -e . && touch $@ .venv/run

# uv and pip-audit, from pypi.org.
build/tools/made:
	$(PYTHON) -m venv build/tools && build/tools/bin/pip install -q --disable-pip-version-check uv pip-audit && touch $@
