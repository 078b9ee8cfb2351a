# The project's entry points; each first sees to what it needs of the system (`.ci/prepare` says what it installs).

CARGO ?= cargo
# Options of the programs, such as `make demo ARGS='--dir /tmp/demo'` or `make bench ARGS='--quick --json'`.
ARGS ?=
# How long `make fuzz` spends on each target.
SECONDS_PER_TARGET ?= 60

.PHONY: demo test check format-check lint deny doc bench regress suites fuzz prepare help

help:
	@echo 'make demo     a real cluster on this machine with sample data, and a router in front of it'
	@echo 'make test     everything that must hold: make check, then every test'
	@echo 'make check    format, lints, licences and dependencies, documentation'
	@echo 'make bench    throughput, CPU, system calls and memory against PostgreSQL and PgBouncer, and TPC-H'
	@echo 'make regress  PostgreSQL 15'"'"'s own regression files through the router, compared with a plain server'
	@echo 'make suites   the test suites of drivers through the router, compared with a plain server; PgBouncer'"'"'s by ARGS=pgbouncer'
	@echo 'make fuzz     every fuzz target for SECONDS_PER_TARGET=$(SECONDS_PER_TARGET)'
	@echo 'make prepare  install what all of these need and the system lacks'

demo:
	@.ci/prepare compiler postgresql
	$(CARGO) run --locked --release --package switchyard-router --bin switchyard -- demo $(ARGS)

# Most tests wait for servers: three times as many at a time as there are processors.
test: check
	@.ci/prepare compiler postgresql clients
	TMPDIR=$$(.ci/scratch) RUST_TEST_THREADS=$$((3 * $$(nproc))) $(CARGO) test --locked --workspace

check: format-check lint deny doc

format-check:
	$(CARGO) fmt --all --check

lint:
	@.ci/prepare compiler
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings

# The advisory database lives on the network: where it cannot be had, the other checks still count.
deny:
	@.ci/prepare compiler deny
	$(CARGO) deny --locked check licenses bans sources
	@if $(CARGO) deny fetch db >/dev/null 2>&1; \
	then echo '$(CARGO) deny --locked check advisories'; $(CARGO) deny --locked check advisories; \
	else echo 'The advisory database cannot be reached: advisories are NOT checked.'; fi

doc:
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --locked --workspace --no-deps

bench:
	@.ci/prepare compiler postgresql pgbouncer strace
	$(CARGO) build --locked --release --package switchyard-router --bin switchyard --package switchyard-migrate --bin switchyard-migrate --package switchyard-bench --bin switchyard-bench
	$(CARGO) run --locked --release --quiet --package switchyard-bench -- $(ARGS)

# SOURCE: src/test/regress of PostgreSQL 15's source, if it is not to be fetched from Debian.
regress:
	@.ci/prepare compiler postgresql
	@$(if $(SOURCE),,.ci/regress-source)
	$(CARGO) build --locked --package switchyard-tests --bins
	$(CARGO) run --locked --quiet --package switchyard-tests --bin regress -- $(if $(SOURCE),--source $(SOURCE)) $(ARGS)

# The suites come from where their packages do (tests/suites).
suites:
	@.ci/prepare compiler postgresql clients $(if $(findstring pgbouncer,$(ARGS)),pgbouncer)
	$(CARGO) build --locked --package switchyard-tests --bins
	$(CARGO) run --locked --quiet --package switchyard-tests --bin suites -- $(ARGS)

fuzz:
	@.ci/prepare compiler fuzz
	@cd fuzz && for target in $$(RUSTC_BOOTSTRAP=1 $(CARGO) fuzz list); do \
	    echo "fuzzing $$target"; \
	    RUSTC_BOOTSTRAP=1 $(CARGO) fuzz run "$$target" -- -max_total_time=$(SECONDS_PER_TARGET) || exit 1; \
	done

prepare:
	@.ci/prepare compiler postgresql pgbouncer strace clients deny
