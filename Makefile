# Every verb works on a bare machine: .venv is made where it is missing.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/ready
DEMO_STORE := sqlite:///mlflow.db

.PHONY: demo test test-lowest test-newest check bench notebooks clean

demo: $(READY)
	@if [ -d lrsearch-runs/demo ]; then $(BIN)/lrsearch resume demo; \
	else $(BIN)/lrsearch search digits --name demo --tracking-uri $(DEMO_STORE); fi

test: check
	$(BIN)/python -m pytest --numprocesses auto

# The two ends of what pyproject.toml admits, also a part of the tests: make test-lowest ARGS="tests/core -x"
test-lowest: WARNINGS := -W ignore::DeprecationWarning  # old releases call what newer ones below them deprecate
test-lowest test-newest: test-%: .venv-%/ready
	.venv-$*/bin/python -m pytest --numprocesses auto $(WARNINGS) $(ARGS)

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

bench: $(READY)
	$(BIN)/pip install --quiet --constraint .ci/constraints.txt --no-build-isolation --editable '.[dev,bench]'
	$(BIN)/pip install --quiet --constraint .ci/constraints.txt --no-deps fastai  # its requirements hold torchvision
	$(BIN)/python -m tests.bench overhead
	$(BIN)/python -m tests.bench rules
	$(BIN)/python -m tests.bench regret
	$(BIN)/python -m tests.bench faults
	$(BIN)/python -m tests.bench storage
	$(BIN)/python -m tests.readme

notebooks: $(READY)
	$(BIN)/python -m pytest tests/test_notebooks.py

clean:
	rm -rf .venv .venv-lowest .venv-newest .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache mlflow.db mlflow.db.lock mlruns lrsearch-runs
	find . -name __pycache__ -prune -exec rm -rf {} +

.venv-%/ready: pyproject.toml .ci/constraints.txt .ci/bounds.py
	$(PYTHON) -m venv --clear .venv-$*
	$(PYTHON) .ci/bounds.py $* >.venv-$*/constraints.txt
	.venv-$*/bin/pip install --quiet --constraint .venv-$*/constraints.txt hatchling editables
	.venv-$*/bin/pip install --quiet --constraint .venv-$*/constraints.txt --no-build-isolation --editable '.[test]'
	touch $@

$(READY): pyproject.toml .ci/constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "lrsearch needs Python 3.11 or newer")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint .ci/constraints.txt hatchling editables
	$(BIN)/pip install --quiet --constraint .ci/constraints.txt --no-build-isolation --editable '.[dev]'
	touch $(READY)
