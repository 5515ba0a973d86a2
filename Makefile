# `make run` and `make test` set everything up by themselves. PYTHON=/path/to/python uses an environment of yours.

ifdef PYTHON
BIN := $(dir $(PYTHON))
READY := install-into-yours
else
PYTHON := .venv/bin/python
BIN := .venv/bin/
READY := .venv/ready
endif

.PHONY: run test test-fast check docs unpacked install-into-yours clean

run: $(READY)
	$(BIN)dsmi-zoo run $(ARGS)

test: $(READY)
	$(PYTHON) -m pytest --numprocesses auto --dist loadfile --no-loadscope-reorder $(ARGS)

# What starts no processes and is quick: half of the tests, for while one works.
test-fast: $(READY)
	$(PYTHON) -m pytest --numprocesses auto --dist loadfile --quiet $(shell cat tests/fast.txt) $(ARGS)

# The package as it is installed, which mypy, import-linter and the docs look at, for they go by folders.
unpacked: $(READY)
	rm -rf build/wheel build/unpacked
	$(PYTHON) -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir build/wheel .
	$(PYTHON) -m zipfile --extract build/wheel/*.whl build/unpacked

check: $(READY) unpacked
	$(PYTHON) -m ruff check
	$(PYTHON) -m ruff format --check
	cd build/unpacked && $(abspath $(BIN))/mypy --config-file $(CURDIR)/pyproject.toml
	cd build/unpacked && $(abspath $(BIN))/lint-imports --no-cache --config $(CURDIR)/pyproject.toml

# The site, with the published boards in it; one of them is verified as a stranger would.
docs: $(READY) unpacked
	$(BIN)mkdocs build --strict
	$(BIN)dsmi-zoo verify build/site/boards/digits

.venv/ready: pyproject.toml constraints.txt
	@python3 -c 'import sys; sys.exit(sys.version_info < (3, 11) and "dsmi-zoo needs Python 3.11 or newer; try make PYTHON=...")'
	@echo 'Setting up .venv with the versions of constraints.txt; torch is a large download.'
	python3 -m venv .venv
	.venv/bin/pip install --disable-pip-version-check --constraint constraints.txt --editable '.[test]'
	touch $@

# Nothing is pinned here: the environment's own torch, made for its own driver, stays as it is.
install-into-yours:
	@$(PYTHON) -c 'import dse_dsmi, dsmi_zoo.jobs, pytorch_metric_learning, tensorboard' 2>/dev/null || $(PYTHON) -m pip install --disable-pip-version-check --editable '.[test]'

clean:
	rm -rf .venv
