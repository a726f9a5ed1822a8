# Each target sets itself up: it makes a virtual environment where there is none, and installs what it
# needs there whenever pyproject.toml has changed. All it takes is make and Python 3.11 or newer.

PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)
VENV := .venv
# torch and the peers are heavy, and belong to the benchmark alone.
BENCH_VENV := .venv-bench
JOBS ?= 2
# Options of `make bench`, for example BENCH="--models resnet50 --threads 1".
BENCH ?=

.PHONY: demo test test-all bench lint clean

demo: $(VENV)/.installed-demo
	$(VENV)/bin/python demo/digits.py

test: $(VENV)/.installed-test
	$(VENV)/bin/python -m pytest -n $(JOBS) -m "not slow"

test-all: $(VENV)/.installed-test
	$(VENV)/bin/python -m pytest -n $(JOBS)

bench: $(BENCH_VENV)/.installed-bench
	$(BENCH_VENV)/bin/python -m bench.zoo
	$(BENCH_VENV)/bin/python -m bench.run $(BENCH)

lint: $(VENV)/.installed-lint
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy

clean:
	rm -rf $(VENV) $(BENCH_VENV) build

$(VENV)/.installed-%: pyproject.toml | $(VENV)/bin/python
	$(VENV)/bin/python -m pip install --quiet --editable '.[$*]'
	@touch $@

$(BENCH_VENV)/.installed-%: pyproject.toml | $(BENCH_VENV)/bin/python
	$(BENCH_VENV)/bin/python -m pip install --quiet --editable '.[$*]'
	@touch $@

$(VENV)/bin/python $(BENCH_VENV)/bin/python:
	@test -n "$(PYTHON)" || { echo "make: no Python 3.11 or newer found; name one with PYTHON=..." >&2; exit 1; }
	$(PYTHON) -m venv $(@D:/bin=)
