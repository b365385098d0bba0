# `make run` and `make test` are all that a fresh machine needs: rustup (or cargo with clippy and rustfmt), make and a
# C compiler. Each target says what it does, and is quick when there is nothing to do.

CARGO  ?= cargo
GUESTS := kv ping counter
WASM   := wasm32-wasip2
PURE   := wasm32-unknown-unknown
OUT    := target/guests
# How crates are built whose tests run.
TESTED := --release --config .cargo/tested.toml
# Tests of whole nodes wait more than they compute: half as many again as there are cores.
WAITING := $(shell echo $$(($$(getconf _NPROCESSORS_ONLN) * 3 / 2)))
RUN    ?= --vnode kv --vnode ping --vnode counter

.PHONY: run build guests host faults test lint check-pure unit simulate conformance-guests integration docs bench clean

run: build
	@echo "== starting a node with kv, ping and counter (Ctrl-C ends it)"
	@target/release/host $(RUN)

build: guests host
	@echo "== built target/release/host and $(OUT)/*.wasm"

guests: target/.wasm-targets
	@echo "== guests: $(GUESTS)"
	@$(CARGO) build --locked --profile guest --target $(WASM) $(addprefix -p ,$(GUESTS))
	@mkdir -p $(OUT)
	@for guest in $(GUESTS); do \
	  cmp -s target/$(WASM)/guest/$$guest.wasm $(OUT)/$$guest.wasm || cp target/$(WASM)/guest/$$guest.wasm $(OUT)/$$guest.wasm; \
	done

host: guests
	@echo "== host (the first build takes some minutes: it compiles a WebAssembly compiler)"
	@$(CARGO) build --locked --release -p host --bin host

# Everything that has to hold before a change lands.
test: lint check-pure unit simulate build integration docs
	@echo "== all good"

lint: guests
	@echo "== format and lints"
	@$(CARGO) fmt --all --check
	@$(CARGO) fmt --manifest-path tests/guests/Cargo.toml --all --check
	@$(CARGO) clippy --locked --release --workspace --all-targets -- -D warnings
	@$(CARGO) clippy --locked --profile guest --target $(WASM) $(addprefix -p ,$(GUESTS)) -- -D warnings

# The pure core compiles for a target that has no operating system: it cannot do I/O.
check-pure: target/.wasm-targets
	@echo "== the pure core, without an operating system"
	@$(CARGO) check --locked --release -p vnode-ring --target $(PURE)

unit:
	@echo "== tests of the pure core, the SDK and the guests"
	@$(CARGO) test --locked $(TESTED) -p vnode-ring -p guest-sdk $(addprefix -p ,$(GUESTS))

# Whole clusters in one process, over a network and a clock that a seed decides; SIM_SEEDS=1000 runs more of them.
simulate: guests
	@echo "== simulation of control planes, and of whole nodes and their clients, with faults"
	@$(CARGO) test --locked $(TESTED) -p vnode-cluster -p tests --features sim --test sim

conformance-guests: guests
	@echo "== guests in Python and JavaScript"
	@tests/conformance/build-guests.sh

# The program that ends where a test wants it to.
faults: host
	@echo "== host-faults"
	@$(CARGO) build --locked --release -p host --bin host-faults

integration: build faults conformance-guests
	@echo "== tests of the control plane and the host"
	@$(CARGO) test --locked $(TESTED) -p vnode-cluster -p host
	@echo "== tests of whole nodes"
	@RUST_TEST_THREADS=$(WAITING) $(CARGO) test --locked --release -p tests

docs:
	@echo "== documentation"
	@RUSTDOCFLAGS="-D warnings -A rustdoc::private_intra_doc_links" $(CARGO) doc --locked --release --no-deps --workspace --document-private-items

bench: build
	@$(CARGO) bench --locked -p host --bench micro
	@$(CARGO) bench --locked -p host --bench micro -- tax
	@$(CARGO) bench --locked -p host --bench micro -- moves
	@host/benches/start.sh
	@host/benches/redis.sh

# The targets are installed once; the stamp spares asking rustup each time.
target/.wasm-targets:
	@echo "== Rust targets $(WASM) and $(PURE)"
	@rustup target add $(WASM) $(PURE)
	@mkdir -p target && touch $@

clean:
	$(CARGO) clean
