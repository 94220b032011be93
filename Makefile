# Every target makes .venv by itself; nothing but Python 3.11 and pip is needed.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.PHONY: demo test slow torture bench docs lint types layers fast format clean

demo: $(READY)
	$(BIN)/ebomlc demo --out demo --overwrite

test: lint types layers fast

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/pyright

layers: $(READY)
	$(BIN)/lint-imports

fast: $(READY)
	$(BIN)/pytest -m "not slow and not torture"

slow: $(READY)
	$(BIN)/pytest -m slow

torture: $(READY)
	$(BIN)/pytest -m torture

bench: $(READY)
	$(BIN)/python benchmarks/real_data.py

docs: $(READY)
	$(BIN)/sphinx-build -W --keep-going -b html docs docs/_build

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv demo docs/_build

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt torch==2.13.0
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $(READY)
