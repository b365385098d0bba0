//! One wasmtime engine for a node: its settings, its limits, and the clock that ends guests that run too long.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How often a running guest is looked at. A deadline is a number of these.
const TICK: Duration = Duration::from_millis(5);

/// What one instance may use. Each is a setting; past it the call ends with an error, and nothing else suffers.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Linear memory of an instance, bytes.
    pub memory_bytes_max: usize,
    /// Elements of its tables.
    pub table_elements_max: usize,
    /// Stack of a call, bytes.
    pub stack_bytes_max: usize,
    /// Time for one command.
    pub command_budget: Duration,
    /// Calls of one command back into the host.
    pub host_calls_max: u32,
    /// Bytes of one reply.
    pub reply_bytes_max: usize,
    /// Bytes of a component.
    pub component_bytes_max: usize,
    /// Bytes of a key in the store.
    pub key_bytes_max: usize,
    /// Bytes of a value in the store.
    pub value_bytes_max: usize,
}

/// A wasmtime engine with its ticker. Cheap to clone; the ticker ends with the last clone.
#[derive(Clone)]
pub struct Engine {
    wasmtime: wasmtime::Engine,
    limits: Arc<Limits>,
    _ticker: Arc<Ticker>,
}

impl Engine {
    /// An engine whose instances stay inside `limits`. Fails when the machine cannot run compiled guests.
    pub fn new(limits: Limits) -> wasmtime::Result<Engine> {
        let mut config = wasmtime::Config::new();
        config
            .epoch_interruption(true)
            .max_wasm_stack(limits.stack_bytes_max)
            // The address space of an instance is as large as its memory may grow, not wasmtime's 4 GiB: thousands of
            // vnodes fit, and no call was seen to get slower.
            .memory_reservation(limits.memory_bytes_max as u64)
            .memory_guard_size(64 * 1024)
            .memory_may_move(false)
            // Files and lines of a failure, for a component that brings them along.
            .wasm_backtrace_details(wasmtime::WasmBacktraceDetails::Enable)
            .wasm_relaxed_simd(false)
            .wasm_memory64(false)
            .cranelift_nan_canonicalization(true)
            .concurrency_support(false);
        let wasmtime = wasmtime::Engine::new(&config)?;
        let ticker = Ticker::start(&wasmtime)?;
        Ok(Engine {
            wasmtime,
            limits: Arc::new(limits),
            _ticker: Arc::new(ticker),
        })
    }

    /// What its instances may use.
    pub fn limits(&self) -> &Arc<Limits> {
        &self.limits
    }

    pub(super) fn wasmtime(&self) -> &wasmtime::Engine {
        &self.wasmtime
    }
}

/// Ticks of the engine's clock that make up `budget`, at least one; a call gets up to one tick more.
pub(super) fn ticks(budget: Duration) -> u64 {
    let ticks = budget.as_nanos().div_ceil(TICK.as_nanos());
    u64::try_from(ticks).unwrap_or(u64::MAX / 2).max(1)
}

/// The thread that advances the engine's epoch. It holds the engine weakly, so that it cannot keep it alive.
struct Ticker {
    stop: Arc<AtomicBool>,
}

impl Ticker {
    fn start(engine: &wasmtime::Engine) -> std::io::Result<Ticker> {
        let stop = Arc::new(AtomicBool::new(false));
        if cfg!(feature = "sim") {
            // A run of the simulator is a function of its seed, and how long a guest takes is not.
            return Ok(Ticker { stop });
        }
        let weak = engine.weak();
        let stopped = Arc::clone(&stop);
        std::thread::Builder::new()
            .name("guest-clock".into())
            .spawn(move || {
                while !stopped.load(Ordering::Relaxed) {
                    std::thread::sleep(TICK);
                    let Some(engine) = weak.upgrade() else { return };
                    engine.increment_epoch();
                }
            })?;
        Ok(Ticker { stop })
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}
