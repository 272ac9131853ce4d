# Verbs of the project. `make demo` and `make test` do all set-up by themselves: they make .venv
# with the first Python of 3.11 or later found on the path (or PYTHON=...), and install into it.

PYTHON ?= $(shell for p in python3 python python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV ?= .venv
JOBS ?= 2
MODEL ?= examples/mnist_cnn.onnx
RECIPE ?= recipes/inr_mnist.yaml
RUN := $(VENV)/bin

.PHONY: help setup demo prove test check golden bench clean

help: ## list the verbs
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/make \1	\2/p' $(MAKEFILE_LIST)

setup: $(VENV)/.installed ## make .venv and install ngc into it

demo: $(VENV)/.installed ## train NG-GNN to read small networks (RECIPE=...)
	$(RUN)/ngc run $(RECIPE)

prove: $(VENV)/.installed ## compile, prove and show MODEL (a small MNIST classifier)
	@mkdir -p build
	$(RUN)/ngc compile $(MODEL) -o build/graph.pt
	$(RUN)/ngc verify $(MODEL)
	$(RUN)/ngc show $(MODEL)

test: $(VENV)/.installed-test ## run the tests
	$(RUN)/python -m pytest -n $(JOBS) $(ARGS)

check: $(VENV)/.installed-dev ## ruff and mypy
	$(RUN)/ruff check .
	$(RUN)/mypy
	$(RUN)/mypy models

golden: $(VENV)/.installed-test ## rewrite the golden texts of tests/golden (then read the diff)
	NGC_GOLDEN=rewrite $(RUN)/python -m pytest tests/test_golden.py

bench: $(VENV)/.installed-test ## run every script of benchmarks/
	@for script in $$(grep -l __main__ benchmarks/*.py); do \
	  name=$$(basename $$script .py); echo "== $$name"; \
	  $(RUN)/python -m benchmarks.$$name || exit 1; done

clean: ## remove .venv and what was built
	rm -rf $(VENV) build *.egg-info

$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { echo "no Python of 3.11 or later found; name one: make PYTHON=..."; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml | $(VENV)/bin/python
	$(RUN)/python -m pip install --quiet -e .
	@touch $@

$(VENV)/.installed-test: pyproject.toml | $(VENV)/bin/python
	$(RUN)/python -m pip install --quiet -e '.[test]'
	@touch $@ $(VENV)/.installed

$(VENV)/.installed-dev: pyproject.toml | $(VENV)/bin/python
	$(RUN)/python -m pip install --quiet -e '.[dev]'
	@touch $@ $(VENV)/.installed $(VENV)/.installed-test
