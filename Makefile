# The project's commands. `make demo` shows what the project does, `make test` is what the CI runs.
#
# Both need PostgreSQL's server programs; tests/support/postgres.sh finds them, or installs the system's package. The tests need
# two Python drivers as well; tests/support/python.sh installs them once into an environment below target/.
# A target that cannot run for lack of something ends with exit status 3 and a line "NOT RUN: ..." for each thing that is missing
# (make itself shows 2).

CARGO ?= cargo
ARGS ?=
SECONDS ?= 60

.PHONY: help demo test bench lint fuzz

help: ## Show the targets
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' Makefile

# Each recipe is one shell, so that the directory that was found reaches the commands after it. What is missing is noted, and
# COMPLETE ends the recipe when all has been looked for.
POSTGRES = missing=; bin=$$(sh tests/support/postgres.sh) || missing=$$?; export PGLADDER_POSTGRES_BIN="$$bin"
PYTHON = python=$$(sh tests/support/python.sh) || missing=$$?
COMPONENTS = for part in fmt clippy; do $(CARGO) $$part --version >/dev/null 2>&1 || \
	{ echo "NOT RUN: cargo $$part is not there; run: rustup component add rustfmt clippy" >&2; missing=3; }; done
COMPLETE = [ -z "$$missing" ] || exit $$missing

demo: ## A throw-away cluster with the proxy in front, and a walk through what it does (ARGS=--check ends after it)
	@$(POSTGRES); $(COMPLETE); exec $(CARGO) run --release --locked -- demo $(ARGS)

test: ## Format check, clippy, the whole test suite, documentation
	@$(POSTGRES); $(PYTHON); $(COMPONENTS); $(COMPLETE); set -e; \
	echo "PostgreSQL: $$bin"; \
	echo "Python drivers: $$python"; \
	$(MAKE) --no-print-directory lint; \
	$(CARGO) test --locked; \
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --no-deps; \
	if docker compose version >/dev/null 2>&1; then docker compose -f docker/compose.yaml config --quiet; fi

# The harness itself is built by another profile: together with what tests need of the dependencies, it would take the place of
# the release build that is measured.
bench: ## Speed beside PgBouncer and Pgpool-II on one cluster, as tables (ARGS=--quick only shows that it works)
	@$(POSTGRES); $(COMPLETE); set -e; \
	$(CARGO) build --release --locked; \
	exec $(CARGO) bench --locked --profile dev --bench macro -- $(ARGS)

fuzz: ## Drive the fuzz targets under libFuzzer, SECONDS each (needs a nightly toolchain and cargo-fuzz)
	@cargo fuzz --version >/dev/null 2>&1 || { echo "NOT RUN: fuzz: cargo install cargo-fuzz, and rustup toolchain install nightly"; exit 3; }
	@for target in frames startup classifier replication; do \
	  cargo +nightly fuzz run $$target fuzz/corpus/$$target -- -max_total_time=$(SECONDS) -max_len=4096 || exit $$?; \
	done

lint: ## Format check and clippy only
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings
