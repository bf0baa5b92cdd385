# Two commands do all on a fresh machine: `make demo` and `make test`. Each makes its own environment on first use.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

# Which tests `make test` runs.
MARKED ?= not slow
# Two files of tests at a time, each with one thread: more would wait for one another. A thread that
# waits sleeps.
WORKERS ?= 2
PYTEST := OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE $(BIN)/pytest -n $(WORKERS) --dist loadfile

.PHONY: demo serve test check format slow clean

demo: $(READY)
	$(BIN)/looklisten demo demo

# The page; after the demo over its network, with an index of every tenth of its videos.
serve: $(READY) $(if $(wildcard demo/run),demo/index/index.json)
	$(BIN)/looklisten serve $(if $(wildcard demo/run),--db demo/index,--checkpoint start)

demo/index/index.json:
	$(BIN)/looklisten index 'demo/videos/*0.mp4' --db demo/index --checkpoint demo/run

test: $(READY)
	$(PYTEST) -m '$(MARKED)'

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(MAKE) --no-print-directory test

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

slow: $(READY)
	$(MAKE) --no-print-directory test MARKED=slow

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "looklisten needs Python 3.11 or newer; name one: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) demo runs .pytest_cache .mypy_cache .ruff_cache
