# Needs nothing but python3 (3.11 or newer) with venv, and make.

PYTHON ?= python3
PORT ?= 8080
BOOTSTRAP := .bootstrap
UV = $(shell command -v uv 2>/dev/null || echo $(BOOTSTRAP)/bin/uv)

# Containers often set it. Then every process that a test starts compiles all its modules again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo demo-cluster recording test check format bench bench-micro docs soak clean test-main test-browsers test-alone check-text check-types check-imports

demo: .venv/ready ## Serve the demo on http://127.0.0.1:8080; `make demo PORT=9000 PROCESSES=2` takes another port, and two processes
	.venv/bin/symphony run examples/demo/app.py --port $(PORT) $(if $(PROCESSES),--workers $(PROCESSES))

demo-cluster: .venv/ready ## Serve the demo with two servers, Redis and HAProxy, on http://127.0.0.1:8080; `PORT=9000` takes another port
	@PORT=$(PORT) .venv/bin/python examples/ws/scaling/cluster.py

# Tests that are marked `alone` have the machine to themselves. What starts browsers and Node is
# kept together by file, so that a worker shares one Chromium among its tests.
ALONE := tests/load tests/faults
BROWSERS := tests/browser tests/javascript
CORES := $(shell nproc 2>/dev/null || echo 2)
# Many of the other tests wait: for processes that start, or for a time limit.
WORKERS ?= $(shell expr $(CORES) \* 2)
SOAK_ROUNDS ?= 5

test: test-main test-browsers test-alone ## Run the tests

test-main: .venv/ready
	.venv/bin/pytest -n $(WORKERS) --dist worksteal -m "not alone" $(addprefix --ignore=,$(BROWSERS))

test-browsers: .venv/ready
	.venv/bin/pytest -n $(shell expr $(CORES) + 1) --dist loadfile $(BROWSERS)

test-alone: .venv/ready
	.venv/bin/pytest -m alone $(ALONE)

soak: .venv/ready ## Run load, fault and property tests at full size, again and again
	for round in $$(seq $(SOAK_ROUNDS)); do \
		echo "== round $$round of $(SOAK_ROUNDS)"; \
		SOAK=true .venv/bin/pytest -o timeout=300 tests/load tests/faults tests/properties \
			tests/unit tests/integration/native/test_cuts.py || exit 1; \
	done

# At the same time: pyright alone takes one core longer than all others. Each prints what it
# has to say when it ends, and all run to their end.
check: .venv/ready ## Format, lint, types, import contracts, spelling
	@$(MAKE) --no-print-directory --keep-going --jobs 3 --output-sync=target check-types check-imports check-text

check-text:
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/codespell README.md CHANGELOG.md ARCHITECTURE.md CONTRIBUTING.md docs src tests examples benchmarks protocol clients/javascript/symphony.js clients/javascript/msgpack.js clients/javascript/README.md

check-types:
	.venv/bin/pyright

check-imports:
	.venv/bin/lint-imports

format: .venv/ready ## Format the code and mend what lint can
	.venv/bin/ruff format .
	.venv/bin/ruff check --fix .

bench: .venv/ready ## Measure Symphony and its peers, and write docs/performance.md
	$(UV) run --group bench python benchmarks/run.py --write

recording: .venv/ready ## Record the demo in Chromium for the README, docs/assets/demo.webp
	$(UV) run --group recording python docs/assets/record.py

bench-micro: .venv/ready ## Measure the hot path in process; AGAINST=path compares with another tree
	.venv/bin/python benchmarks/micro.py $(if $(AGAINST),--against $(AGAINST))

clean: ## Remove everything that was installed or built
	rm -rf .venv .bootstrap .pytest_cache .ruff_cache .hypothesis benchmarks/.build

.venv/ready: pyproject.toml uv.lock
	@command -v uv >/dev/null 2>&1 || test -x $(BOOTSTRAP)/bin/uv || \
		{ $(PYTHON) -m venv $(BOOTSTRAP) && $(BOOTSTRAP)/bin/pip install --quiet --disable-pip-version-check uv; }
	$(UV) sync --locked --quiet
	@touch $@
