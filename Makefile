# What CI runs is what you run: `make ci`. Everything lands in the target folder.
SHELL := /bin/sh
CARGO ?= cargo
STEP := scripts/step.sh
TARGET := $(or $(CARGO_TARGET_DIR),target)

# One version for everyone, so that a new release cannot turn a check red.
CARGO_DENY := 0.20.2

.PHONY: help build dist test simulate test-cql-tls test-tools lint deny fuzz-short fuzz ci bench cql-engine clean

help:
	@echo 'make build        the binary, target/release/limpet'
	@echo 'make dist         the binary to install, target/dist/limpet: takes twice as long, and costs less to run'
	@echo 'make test         every test; as root on Debian it first installs what they need'
	@echo 'make test-cql-tls TLS to the database, which ordinary builds are without: needs cmake'
	@echo 'make simulate     the simulation with other seeds: SEEDS=0..1000'
	@echo 'make lint         format, clippy, documentation, licences'
	@echo 'make fuzz-short   20 s of fuzzing per target, if there is a nightly compiler'
	@echo 'make ci           test, lint and fuzz-short: what must pass before a change lands; with LIMPET_FULL=1 also test-cql-tls'
	@echo 'make bench        what Limpet costs here, as tables: some 6 minutes; PART=uplinks, overload, passing or idle, LIMPET_FULL=1 for more'
	@echo 'make cql-engine   a CQL store to develop against: one Cassandra or ScyllaDB node on 127.0.0.1'
	@echo 'make clean        removes everything that was built'

build:
	@$(STEP) 'build limpet (release)' $(CARGO) build --release --locked

dist:
	@$(STEP) 'build limpet (to install)' $(CARGO) build --profile dist --locked --package limpet

test-tools:
	@$(STEP) 'get what the tests need besides Rust' scripts/test-tools.sh

test: test-tools
	@$(STEP) 'build everything and run all tests' scripts/tests.sh

# A target folder of its own: the feature would rebuild half of the other each time. Needs cmake.
test-cql-tls: test-tools
	@$(STEP) 'TLS to a CQL engine' $(CARGO) test --target-dir $(TARGET)/tls --package limpet-store --features cql-tls --locked --test store -- tls

# Optimised, with the assertions of debug builds; a seed that breaks a promise is printed with what happened.
SEEDS ?= 0..1000
simulate:
	@SEEDS=$(SEEDS) $(STEP) 'simulate $(SEEDS)' env CARGO_PROFILE_RELEASE_DEBUG_ASSERTIONS=true $(CARGO) test --release --locked --target-dir $(TARGET)/simulate --package limpet-simulation --test seeds -- no_promise --nocapture

lint:
	@$(STEP) 'format' $(CARGO) fmt --all --check
	@$(STEP) 'clippy' $(CARGO) clippy --workspace --all-targets --locked --quiet -- -D warnings
	@RUSTDOCFLAGS='-D warnings' $(STEP) 'documentation' $(CARGO) doc --workspace --no-deps --locked --quiet
	@$(MAKE) --no-print-directory deny

deny:
	@$(STEP) 'get cargo-deny' scripts/cargo-tool.sh cargo-deny $(CARGO_DENY)
	@$(STEP) 'licences, bans, sources' $(TARGET)/tools/bin/cargo-deny --log-level error --locked check licenses bans sources

fuzz-short:
	@$(STEP) 'fuzz, briefly' scripts/fuzz-short.sh 20

fuzz:
	@$(STEP) 'fuzz, an hour in all' scripts/fuzz-short.sh 900

# In this order and one after the other: a failing test is told first, and two builds at once help nobody. TLS to the
# database is a build of its own, of three to four minutes on two cores: only with LIMPET_FULL=1.
ci:
	@$(MAKE) --no-print-directory test
	@$(MAKE) --no-print-directory lint
	@$(MAKE) --no-print-directory fuzz-short
	@[ "$${LIMPET_FULL:-}" != 1 ] || $(MAKE) --no-print-directory test-cql-tls

bench:
	@$(STEP) 'build limpet and what measures it (release)' $(CARGO) build --release --locked --package limpet --package limpet-bench
	@$(STEP) 'measure' $(TARGET)/release/limpet-cost $(TARGET)/release/limpet $(PART)

# Three nodes, faults, an end: scripts/cql-engine.sh says how.
cql-engine:
	@scripts/cql-engine.sh fetch
	@scripts/cql-engine.sh start

clean:
	$(CARGO) clean
	rm -rf fuzz/target
