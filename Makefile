# fleetd: `make demo` and `make test` need nothing done before them.
SHELL := /bin/sh
VENV := .venv
BIN := $(VENV)/bin
export PATH := $(CURDIR)/$(BIN):$(HOME)/.cargo/bin:$(CURDIR)/build/peers/usr/bin:$(PATH)
export MATURIN_NO_INSTALL_RUST := 1
SEEDS ?= 200
ROUNDS ?= 10
SEED ?= 1
SECONDS ?= 1800
SOAK ?=

.PHONY: help setup native demo test test-on-etcd bench curves soak-store lint lint-python lint-rust format sim sim-bugs soak wheel clean

help: ## say what there is
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*##/\t/' | expand -t 15

setup: $(VENV)/.installed ## install what is missing, build, and make .venv (root, Debian 12)

$(VENV)/.installed: pyproject.toml Cargo.lock .ci/setup-debian
	@.ci/setup-debian
	@echo "==> installing fleetd and its tools into $(VENV)"
	@$(BIN)/pip install -q --upgrade pip
	@$(BIN)/pip install -q -e '.[dev]'
	@touch $@

native: $(VENV)/.installed ## rebuild stubs and native programs after a change
	@$(BIN)/python proto/native.py

demo: native ## three machines, the paper's unit, a failover; cleans up
	@$(BIN)/python examples/demo.py

test: native ## every test: Rust, Python, real machines
	@echo "==> cargo test"
	@cargo test --release --locked --workspace -q
	@echo "==> pytest: one machine, four files at a time, since they wait for a third of it"
	@$(BIN)/pytest -q --durations=10 -n 4 --dist loadfile tests/unit tests/conformance
	@echo "==> pytest: labs, two at a time, since they mostly wait"
	@$(BIN)/pytest -q --durations=20 -n 2 --dist loadfile tests/cluster tests/faults

ON_ETCD := tests/cluster/test_existing_etcd.py tests/cluster/test_docker_through_a_shell.py \
	$(addprefix tests/faults/test_,failover.py registrations.py daemon_dead.py reboots.py)

test-on-etcd: native ## the lab tests that are not about the store, on a real etcd
	@LAB_STORE=etcd $(BIN)/pytest -q --durations=5 $(ON_ETCD)

bench: native ## measure beside etcd and runc: make bench BENCH='--quick --json'
	@$(BIN)/python -m benchmarks $(BENCH)

curves: native ## measure over keys, clients ..., plot into docs: make curves BENCH='--quick'
	@$(BIN)/python -m benchmarks.curves $(BENCH)

soak-store: native ## half the top load for SECONDS, beside etcd: make soak-store SECONDS=1800
	@$(BIN)/python -m benchmarks.soak --seconds $(SECONDS) $(BENCH)

lint: native ## ruff, mypy --strict, rustfmt, clippy
	@$(MAKE) --no-print-directory -j2 -O lint-python lint-rust

lint-python:
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

lint-rust:
	@cargo fmt --all --check
	@cargo clippy --release --locked --workspace --all-targets -q -- -D warnings

format: ## rewrite the sources the way lint wants them
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .
	@cargo fmt --all

sim: native ## simulate the store with fresh seeds: make sim SEEDS=10000
	@SIM_FRESH=1 SIM_SEEDS=$(SEEDS) cargo test --release --locked -p kvstore --test sim clients_see -- --nocapture

sim-bugs: native ## prove that the simulation finds every planted bug, and at which seed
	@cargo test --release --locked -p kvstore --features planted-bugs --test sim planted -- --nocapture

soak: native ## campaigns of faults: make soak ROUNDS=10 SEED=1 SOAK=linearizable (default: all of tests/soak)
	@ROUNDS=$(ROUNDS) SEED=$(SEED) $(BIN)/pytest -q -s -m soak tests/soak -k '$(SOAK)'

wheel: setup ## build the wheel that ships into dist/
	@FLEETD_CARGO_PROFILE=dist $(BIN)/pip wheel -q --no-deps -w dist .
	@ls -l dist/*.whl

clean: ## remove what was built (not .venv)
	@rm -rf target build/wheel-data dist agent/pb kvstore/_core.abi3.so
	@echo "removed target/ build/wheel-data/ dist/ agent/pb/"
