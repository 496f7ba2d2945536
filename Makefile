# Everything runs in an environment of its own, .venv, which is made on the first call and brought up to
# date when pyproject.toml or constraints.txt change. Needed beforehand: Python >= 3.11 with pip, and make.

PYTHON ?= python3
VENV ?= .venv
RIVALS ?= .venv-rivals
WORKERS ?= 2

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt

.DEFAULT_GOAL := help
.PHONY: help demo test test-pyod check repeats docs bench bench-detection clean
.DELETE_ON_ERROR:

help:
	@echo "make demo    train five kinds on the digits: a table, and a report in demo-output/"
	@echo "make test    the test suite (WORKERS=2 processes)"
	@echo "make test-pyod   the adapter for PyOD beside PyOD's own detectors, in the environment of the benchmarks"
	@echo "make check   style, types, direction of imports, repeated code"
	@echo "make docs    write the generated pages of docs/ anew"
	@echo "make bench   run benchmarks/ and write benchmarks/results/"
	@echo "make bench-detection   anomaly detection beside PyOD, in the environment of benchmarks/rivals.txt"
	@echo "make clean   remove the environment and everything that was generated"

demo: $(VENV)/installed-all
	$(BIN)/diabolo demo --output demo-output

test: $(VENV)/installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

# PyOD brings numba and LLVM, 200 MB: too much for everybody who runs the tests.
test-pyod: $(RIVALS)/installed
	$(RIVALS)/bin/python -m pip install -q -c constraints.txt pytest
	OMP_NUM_THREADS=1 $(RIVALS)/bin/python -m pytest tests/applications/test_pyod.py

check: $(VENV)/installed-dev repeats
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

# pylint's symilar finds runs of equal lines, counting neither comments, docstrings nor imports. It says how
# many per cent of the lines are copies, and succeeds whatever it finds; so awk decides.
SOURCE ?= src
repeats: $(VENV)/installed-dev
	@find $(SOURCE) -name '*.py' -exec $(BIN)/symilar -d 6 -i --ignore-docstrings --ignore-imports {} + | \
	  awk -F 'percent=' '{ text = text $$0 "\n" } NF > 1 { share = $$2; found = 1 } \
	  END { if (found && share < 3) { print "Repeated code: " share " %"; exit 0 } \
	  printf "%s", text; print "Repeated code must be less than 3 %; got " share " %. Write it once."; exit 1 }'

docs: $(VENV)/installed-all
	$(BIN)/python docs/generate.py

bench: $(VENV)/installed-all $(RIVALS)/installed
	$(BIN)/python benchmarks/kinds.py
	$(BIN)/python benchmarks/kills.py
	$(BIN)/python benchmarks/growth.py
	$(BIN)/python benchmarks/penalties.py
	$(RIVALS)/bin/python benchmarks/workers.py
	$(RIVALS)/bin/python benchmarks/speed.py
	$(RIVALS)/bin/python benchmarks/inference.py
	$(RIVALS)/bin/python benchmarks/cold.py

bench-detection: $(VENV)/installed-all $(RIVALS)/installed
	$(RIVALS)/bin/python benchmarks/detection_ablations.py
	$(RIVALS)/bin/python benchmarks/detection.py --jobs 2
	$(RIVALS)/bin/python benchmarks/detection.py --coverage
	$(BIN)/python benchmarks/maps.py
	$(BIN)/python benchmarks/medical.py

clean:
	rm -rf $(VENV) $(RIVALS) demo-output build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

# The stamps lie inside the environment: whoever deletes it deletes them too.
$(VENV)/installed-%: $(VENV)/pyvenv.cfg pyproject.toml constraints.txt
	$(PIP) -e ".[$*]"
	@touch $@

$(VENV)/pyvenv.cfg:
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else \
	  "Python must be 3.11 or later; got %d.%d. Run: make PYTHON=python3.12 ..." % sys.version_info[:2])'
	$(PYTHON) -m venv $(VENV)

# What benchmarks/speed.py, inference.py and cold.py compare with; two of them ask for less than they need, hence --no-deps.
$(RIVALS)/installed: benchmarks/rivals.txt pyproject.toml constraints.txt
	$(PYTHON) -m venv $(RIVALS)
	$(RIVALS)/bin/python -m pip install -q -c constraints.txt -r benchmarks/rivals.txt -e ".[all]"
	$(RIVALS)/bin/python -m pip install -q --no-deps pythae==0.1.2
	$(RIVALS)/bin/python -m pip install -q --no-deps --ignore-requires-python encdr==1.2.0
	@touch $@
