# Every target sets up what it needs. Python, pip and make are enough to begin with.
PYTHON ?= python3
EXTRAS ?= dev
PYTEST_ARGS ?=
BIN := .venv/bin
INSTALLED := .venv/.installed-

.DEFAULT_GOAL := help
.PHONY: help install demo test coverage lint format types bench docs clean
.DELETE_ON_ERROR:

help:  ## list the targets
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1	\2/p' $(MAKEFILE_LIST) | expand -t 18

install: $(INSTALLED)$(EXTRAS)  ## create .venv and install the package (EXTRAS=dev,l2f,ray for more)

demo: $(INSTALLED)$(EXTRAS)  ## train, evaluate and export a policy, then write runs/demo/report.html
	$(BIN)/raptor quickstart --output runs/demo --overwrite

test: $(INSTALLED)$(EXTRAS)  ## run the tests
	$(BIN)/python -m pytest -n 2 --dist worksteal $(PYTEST_ARGS)

coverage: $(INSTALLED)$(EXTRAS)  ## run the tests and say what they cover, which takes a third longer
	$(MAKE) test PYTEST_ARGS='--cov=raptor --cov-report=term --cov-fail-under=90 $(PYTEST_ARGS)'

lint: $(INSTALLED)$(EXTRAS)  ## check style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(INSTALLED)$(EXTRAS)  ## mend style and formatting
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(INSTALLED)$(EXTRAS)  ## check the types
	$(BIN)/mypy

bench: $(INSTALLED)$(EXTRAS)  ## run every benchmark
	@set -e; for script in benchmarks/*.py; do echo "== $$script"; $(BIN)/python "$$script"; done

docs: $(INSTALLED)$(EXTRAS) $(INSTALLED)docs  ## build the documentation into site/
	$(BIN)/python -m mkdocs build --strict

clean:  ## remove everything that make produced, except runs/
	rm -rf .venv .cache .coverage* .hypothesis .mypy_cache .pytest_cache .ruff_cache build dist site

$(INSTALLED)%: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[$*]'
	@touch '$@'

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
		{ echo 'raptor needs Python 3.10 or newer as $(PYTHON); name another one: make install PYTHON=python3.12' >&2; exit 1; }
	@$(PYTHON) -m venv .venv || $(PYTHON) -m virtualenv --quiet .venv || { rm -rf .venv; \
		echo '$(PYTHON) cannot create a virtual environment: install its venv module (Debian, Ubuntu: apt install python3-venv) or run $(PYTHON) -m pip install virtualenv' >&2; exit 1; }
