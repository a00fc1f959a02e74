# Two targets do all the set-up on a fresh machine with Python 3.10 or newer, pip and Node 20 or newer:
#   make lab     JupyterLab with the extension, on the GPUs of this machine or on simulated ones
#   make test    everything the tests need, the browser included, and all the tests
# And for developers:
#   make lint    what CI checks; make format mends what can be mended
#   make docs    writes docs/reference.md anew from the sources
#   make bench   the benchmarks, as one table that is kept in tests/benchmarks/RESULTS.md; make wheel builds the wheel

SHELL := /bin/bash
VENV := .venv
BIN := $(VENV)/bin
UV := .cache/uv/bin/uv
# Without this uv warns of file systems that know no hard links.
export UV_LINK_MODE := copy
# The scripts of labextension/package.json call jlpm by its name.
export PATH := $(CURDIR)/$(BIN):$(PATH)
# uv fetches no Python of its own: the one that is there has to do.
export UV_PYTHON_DOWNLOADS := never
export UV_PROJECT_ENVIRONMENT := $(VENV)
PYTHON ?= python3
PYTEST_ARGS ?=
BENCH_ARGS ?=
SOURCES := pyproject.toml labextension/package.json labextension/yarn.lock \
	$(shell find labextension/src labextension/style labextension/schema -type f 2>/dev/null)

.PHONY: lab test lint format docs bench wheel clean set-up

lab: $(VENV)/.lab
	@binder/lab.sh

test: set-up
	cd labextension && ../$(BIN)/jlpm test
	$(BIN)/python -m pytest $(PYTEST_ARGS)

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	cd labextension && ../$(BIN)/jlpm lint:check

format: $(VENV)/.test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	cd labextension && ../$(BIN)/jlpm lint

docs: $(VENV)/.test
	$(BIN)/python docs/reference.py

bench: set-up
	@$(BIN)/python tests/benchmarks/run.py $(BENCH_ARGS)

wheel: $(UV)
	$(UV) build --wheel

set-up: $(VENV)/.test
	@tests/set_up.sh
	@$(BIN)/python tests/native/cuda_packages.py
	@$(BIN)/python tests/support/kernel_environments.py

$(UV):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "Python 3.10 or newer is needed; set PYTHON to one."; exit 1; }
	@$(PYTHON) -m pip --version >/dev/null || { echo "pip is needed: apt-get install python3-pip"; exit 1; }
	@$(PYTHON) -m pip install --quiet --target .cache/uv --upgrade uv

$(BIN)/python: $(UV)
	@$(UV) venv --quiet --allow-existing --python $$($(PYTHON) -c 'import sys; print(sys.executable)') $(VENV)

$(VENV)/.lab: $(BIN)/python $(SOURCES)
	@command -v node >/dev/null || { echo "Node 20 or newer is needed to build from source: apt-get install nodejs npm"; exit 1; }
	$(UV) pip install --quiet --python $(BIN)/python --editable '.[lab]'
	@touch $@

$(VENV)/.test: $(VENV)/.lab
	$(UV) pip install --quiet --python $(BIN)/python --editable '.[lab,test,lint]'
	@touch $@

clean:
	rm -rf $(VENV) .cache dist labextension/lib labextension/node_modules jupyter_gpu/labextension tests/native/build
