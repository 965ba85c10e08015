# The set-up is one stamped step: a second call starts at once.
PYTHON ?= python3
VENV := .venv
STAMP := $(VENV)/.installed
BIN := $(VENV)/bin
PYTEST := $(BIN)/pytest --quiet --durations=5 -n 2 --dist loadgroup --no-loadscope-reorder

# No telemetry, for every command started from here.
export DO_NOT_TRACK = 1
export PREFECT_SERVER_ANALYTICS_ENABLED = false

.PHONY: setup demo study test test-slow test-long check clean

demo: $(STAMP) ## the main job: ingest, train, score and report over the embedded, simulated survey
	@$(BIN)/galstore run demo

study: $(STAMP) ## train and evaluate at each resolution over a simulated sky of 6,000 galaxies (20 minutes)
	@$(BIN)/python benchmarks/simulated_study.py

test: check ## every check, the tests of every module, and one end-to-end run (7 minutes)
	@$(PYTEST) -m "not slow"

test-slow: $(STAMP) ## servers, browsers, kills, S3, documents that run flows, benchmarks in small (30 minutes)
	@$(PYTEST) -m slow

test-long: $(STAMP) ## every test, in its long version (some hours)
	@$(BIN)/pytest --long --timeout=3600

check: $(STAMP) ## formatting, lint, types and the one-way imports
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo

setup: $(STAMP) ## create .venv and install everything

clean: ## remove what the demo made
	rm -rf demo runs

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("galstore needs Python 3.11 or newer, got " + sys.version) if sys.version_info < (3, 11) else 0'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt uv
	@echo "installing galstore and its libraries into $(VENV) (about 5 GB on Linux, most of it torch)"
	@VIRTUAL_ENV=$(CURDIR)/$(VENV) $(BIN)/uv pip install --quiet -c constraints.txt -e '.[emulator,dev]'
	@touch $(STAMP)
