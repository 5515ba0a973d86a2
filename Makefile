# Each target installs what it needs into .venv, once. PYTHON=/path/to/python uses an environment of yours.

ifdef PYTHON
BIN := $(dir $(PYTHON))
with = yours-with-$(1)
else
PYTHON := .venv/bin/python
BIN := .venv/bin/
with = .venv/with-$(1)
endif

PYTEST = $(PYTHON) -m pytest --numprocesses auto --dist worksteal

.PHONY: run test test-fast test-all check docs unpacked clean

run: $(call with,product)
	$(BIN)dsmi-zoo run $(ARGS)

test: $(call with,test)
	$(PYTEST) -m 'not slow' $(ARGS)

# Those that are quick and start no process, for while one works.
test-fast: $(call with,test)
	$(PYTEST) -m 'not slow and not long and not processes' --quiet $(ARGS)

# Also those on a real Slurm, in a browser, and of the docs' quick starts.
test-all: $(call with,test)
	$(PYTEST) $(ARGS)

# The package as it is installed, which mypy, import-linter and the docs look at, for they go by folders.
unpacked: $(call with,product)
	rm -rf build/wheel build/unpacked
	$(PYTHON) -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir build/wheel .
	$(PYTHON) -m zipfile --extract build/wheel/*.whl build/unpacked

check: $(call with,check) unpacked
	$(PYTHON) -m ruff check
	$(PYTHON) -m ruff format --check
	cd build/unpacked && $(abspath $(BIN))/mypy --config-file $(CURDIR)/pyproject.toml
	cd build/unpacked && $(abspath $(BIN))/lint-imports --no-cache --config $(CURDIR)/pyproject.toml

# The site, with the published boards in it; one of them is verified as a stranger would.
docs: $(call with,docs) unpacked
	$(BIN)mkdocs build --strict
	$(BIN)dsmi-zoo verify build/site/boards/digits

# Importing compiles the modules that are used; pip would compile 24,000, which takes a minute. Where an image forbids
# imports to keep what they compile, each process would take 6 seconds to do it again.
unexport PYTHONDONTWRITEBYTECODE
PIP := -m pip install --disable-pip-version-check --no-compile
extras = --editable '.$(if $(filter product,$(1)),,[$(1)])'

.venv/bin/python:
	@python3 -c 'import sys; sys.exit(sys.version_info < (3, 11) and "dsmi-zoo needs Python 3.11 or newer; try make PYTHON=...")'
	@echo 'Setting up .venv with the versions of constraints.txt; torch is a large download.'
	python3 -m venv .venv

.venv/with-%: pyproject.toml constraints.txt | .venv/bin/python
	.venv/bin/python $(PIP) --constraint constraints.txt $(call extras,$*)
	@touch $@

# Nothing is pinned here: the environment's own torch, made for its own driver, stays as it is.
yours-with-%:
	$(PYTHON) -m pip install --disable-pip-version-check --quiet $(call extras,$*)

clean:
	rm -rf .venv
