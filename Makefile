# Needs nothing but python3 (3.11 or newer) with venv, and make.

PYTHON ?= python3
PORT ?= 8080
BOOTSTRAP := .bootstrap
UV = $(shell command -v uv 2>/dev/null || echo $(BOOTSTRAP)/bin/uv)

.PHONY: demo recording test check format bench docs clean

demo: .venv/ready ## Serve the demo on http://127.0.0.1:8080; `make demo PORT=9000` takes another port
	.venv/bin/symphony run examples/demo/app.py --port $(PORT)

# What loads the machine, kills servers or drives a browser runs by itself.
ALONE := tests/load tests/faults tests/browser tests/javascript

test: .venv/ready ## Run the tests
	.venv/bin/pytest -n 4 $(addprefix --ignore=,$(ALONE))
	.venv/bin/pytest $(wildcard $(ALONE))

check: .venv/ready ## Format, lint, types, import contracts, spelling
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/pyright
	.venv/bin/lint-imports
	.venv/bin/codespell README.md CHANGELOG.md ARCHITECTURE.md CONTRIBUTING.md docs src tests examples benchmarks protocol clients/javascript/symphony.js clients/javascript/README.md

format: .venv/ready ## Format the code and mend what lint can
	.venv/bin/ruff format .
	.venv/bin/ruff check --fix .

bench: .venv/ready ## Measure Symphony and its peers, and write docs/performance.md
	$(UV) run --group bench python benchmarks/run.py --write

recording: .venv/ready ## Record the demo in Chromium for the README, docs/assets/demo.webp
	$(UV) run --group recording python docs/assets/record.py

clean: ## Remove everything that was installed or built
	rm -rf .venv .bootstrap .pytest_cache .ruff_cache .hypothesis benchmarks/.build

.venv/ready: pyproject.toml uv.lock
	@command -v uv >/dev/null 2>&1 || test -x $(BOOTSTRAP)/bin/uv || \
		{ $(PYTHON) -m venv $(BOOTSTRAP) && $(BOOTSTRAP)/bin/pip install --quiet --disable-pip-version-check uv; }
	$(UV) sync --locked --quiet
	@touch $@
