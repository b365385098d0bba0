# `make run` and `make test` are all that a fresh machine needs: rustup, make and a C compiler.

CARGO   ?= cargo
GUESTS  := kv ping counter
WASM    := wasm32-wasip2
OUT     := target/guests
RUN     ?= --vnode kv --vnode ping --vnode counter

.PHONY: run build guests host test check fmt clean bench

run: build
	@echo "== starting a node with kv, ping and counter (Ctrl-C ends it)"
	target/release/host $(RUN)

build: guests host
	@echo "== built target/release/host and $(OUT)/{$(shell echo $(GUESTS) | tr ' ' ',')}.wasm"

guests: target/.wasm-target
	@echo "== guests"
	$(CARGO) build --locked --profile guest --target $(WASM) $(addprefix -p ,$(GUESTS))
	@mkdir -p $(OUT)
	@for guest in $(GUESTS); do \
	  cmp -s target/$(WASM)/guest/$$guest.wasm $(OUT)/$$guest.wasm || cp target/$(WASM)/guest/$$guest.wasm $(OUT)/$$guest.wasm; \
	done

host: guests
	@echo "== host (a first build takes some minutes: it compiles a WebAssembly compiler)"
	$(CARGO) build --locked --release -p host

# The target is installed once; the stamp spares asking rustup each time.
target/.wasm-target:
	@echo "== Rust target $(WASM)"
	rustup target add $(WASM)
	@mkdir -p target && touch $@
