//! What a guest may ask of its host while it runs: `store` and `log` of the contract, and memory.

use std::time::Duration;

use vnode_ring::Context;
use wasmtime::Trap;
use wasmtime::component::{HasSelf, Linker};

use super::bindings::vnode::host as contract;
use super::bindings::vnode::host::log::Level;
use super::bindings::vnode::host::store::{Error, Object, Page, Projection, Row};
use super::engine::{Engine, Limits};
use super::refusal::Refusal;
use super::state::VnodeState;
use super::wasi::Stderr;

/// Bytes of one line in the log.
const LINE_BYTES_MAX: usize = 4096;
/// Lines of one command that reach the log.
const LINES_MAX: u32 = 64;
/// Rows of one page, whatever the guest asks for.
const PAGE_ROWS_MAX: u32 = 10_000;

pub(super) fn add_to_linker(linker: &mut Linker<VnodeState>) -> wasmtime::Result<()> {
    contract::log::add_to_linker::<_, HasSelf<VnodeState>>(linker, |state| state)?;
    contract::store::add_to_linker::<_, HasSelf<VnodeState>>(linker, |state| state)
}

pub(super) fn add_scratch_to_linker(linker: &mut Linker<Scratch>) -> wasmtime::Result<()> {
    contract::log::add_to_linker::<_, HasSelf<Scratch>>(linker, |state| state)
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Error {
        Error {
            code: refusal.code().to_owned(),
            message: super::one_line(&refusal.to_string()),
        }
    }
}

type Answer<T> = wasmtime::Result<Result<T, Error>>;

impl VnodeState {
    /// Runs one request of the guest; too many of them in one command end it, and so does one for which there was no time left.
    fn answer<T>(
        &mut self,
        request: impl FnOnce(&mut VnodeState) -> Result<T, Refusal>,
    ) -> Answer<T> {
        self.count_call()
            .map_err(|refusal| wasmtime::Error::msg(refusal.to_string()))?;
        let answer = request(self);
        if answer.as_ref().is_err_and(Refusal::is_overrun) {
            return Err(Trap::Interrupt.into());
        }
        Ok(answer.map_err(Error::from))
    }
}

impl contract::types::Host for VnodeState {}

impl contract::store::Host for VnodeState {
    fn get(&mut self, key: Vec<u8>) -> Answer<Option<Vec<u8>>> {
        self.answer(|state| state.get(&key))
    }

    fn put(&mut self, key: Vec<u8>, value: Vec<u8>) -> Answer<()> {
        self.answer(|state| state.put(&key, Some(&value)).map(drop))
    }

    fn delete(&mut self, key: Vec<u8>) -> Answer<bool> {
        self.answer(|state| state.put(&key, None))
    }

    fn scan(
        &mut self,
        cursor: Option<Vec<u8>>,
        limit: u32,
        projection: Projection,
    ) -> Answer<Page> {
        self.answer(|state| {
            let mut rows = Vec::new();
            let limit = limit.clamp(1, PAGE_ROWS_MAX) as usize;
            let values = projection == Projection::Rows;
            let next = state.scan(cursor.as_deref(), limit, values, |key, value| {
                rows.push(Row {
                    key: key.to_vec(),
                    value: value.to_vec(),
                });
            })?;
            Ok(Page { rows, next })
        })
    }

    fn count(&mut self) -> Answer<u64> {
        self.answer(VnodeState::count)
    }

    fn get_object(&mut self, key: Vec<u8>) -> Answer<Object> {
        self.answer(|state| {
            let (context, values) = state.get_object(&key)?;
            let context = match context.is_empty() {
                true => Vec::new(),
                false => context.to_token(),
            };
            Ok(Object { context, values })
        })
    }

    fn put_object(&mut self, key: Vec<u8>, value: Vec<u8>, context: Vec<u8>) -> Answer<Vec<u8>> {
        self.answer(|state| {
            let seen = if context.is_empty() {
                Context::default()
            } else {
                Context::from_token(&context)?
            };
            Ok(state.put_object(&key, &value, &seen)?.to_token())
        })
    }
}

impl contract::log::Host for VnodeState {
    fn write(&mut self, level: Level, message: String) -> wasmtime::Result<()> {
        if self.rehearses() {
            return Ok(());
        }
        let service = self.placement().service.clone();
        let partition = self.scope().range;
        let version = self.guest().descriptor().version.clone();
        self.said.line(level, &message, || {
            [service.to_string(), partition.to_string(), version]
        });
        Ok(())
    }
}

impl Stderr for VnodeState {
    fn said(&mut self, text: &[u8]) {
        self.said.stderr(text);
    }

    fn now_ms(&self) -> u64 {
        self.scope().now_ms
    }

    fn random(&mut self) -> u64 {
        VnodeState::random(self)
    }
}

/// What the guest wrote: its lines go to the log, its stderr is kept until the call ends, because after a trap it is the
/// best explanation there is.
#[derive(Default)]
pub(super) struct Said {
    stderr: Vec<u8>,
    lines: u32,
}

impl Said {
    /// Starts anew for the next call.
    pub(super) fn clear(&mut self) {
        self.stderr.clear();
        self.lines = 0;
    }

    fn stderr(&mut self, text: &[u8]) {
        let room = LINE_BYTES_MAX.saturating_sub(self.stderr.len());
        self.stderr.extend(text.iter().take(room));
    }

    /// What came through stderr, as one line.
    pub(super) fn take_stderr(&mut self) -> Option<String> {
        let text = std::mem::take(&mut self.stderr);
        let text = super::one_line(&String::from_utf8_lossy(&text));
        // The standard library ends a panic message with a hint for programs that have an environment.
        let text = text
            .split(" note: run with `RUST_BACKTRACE")
            .next()
            .unwrap_or_default()
            .trim();
        (!text.is_empty()).then(|| text.to_owned())
    }

    fn line(&mut self, level: Level, message: &str, from: impl FnOnce() -> [String; 3]) {
        self.lines = self.lines.saturating_add(1);
        if self.lines > LINES_MAX {
            return;
        }
        let mut end = message.len().min(LINE_BYTES_MAX);
        while !message.is_char_boundary(end) {
            end -= 1;
        }
        let message = message.get(..end).unwrap_or_default();
        let [service, partition, version] = from();
        match level {
            Level::Error => {
                tracing::error!(target: "guest", service, partition, version, "{message}")
            }
            Level::Warn => {
                tracing::warn!(target: "guest", service, partition, version, "{message}")
            }
            Level::Info => {
                tracing::info!(target: "guest", service, partition, version, "{message}")
            }
            Level::Debug => {
                tracing::debug!(target: "guest", service, partition, version, "{message}")
            }
            Level::Trace => {
                tracing::trace!(target: "guest", service, partition, version, "{message}")
            }
        }
    }
}

/// Memory and tables that an instance may have. wasmtime asks before each growth.
pub(super) struct Allowance {
    memory_bytes_max: usize,
    table_elements_max: usize,
    memory_bytes: usize,
}

impl Allowance {
    pub(super) fn new(limits: &Limits) -> Allowance {
        Allowance {
            memory_bytes_max: limits.memory_bytes_max,
            table_elements_max: limits.table_elements_max,
            memory_bytes: 0,
        }
    }

    /// Linear memory of the instance, bytes.
    pub(super) fn memory_bytes(&self) -> usize {
        self.memory_bytes
    }

    /// The instance is gone, and its memory with it.
    pub(super) fn reset(&mut self) {
        self.memory_bytes = 0;
    }
}

impl wasmtime::ResourceLimiter for Allowance {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        // A component may have several memories; the allowance is for all of them.
        let total = self
            .memory_bytes
            .saturating_add(desired.saturating_sub(current));
        let granted = total <= self.memory_bytes_max;
        if granted {
            self.memory_bytes = total;
        }
        Ok(granted)
    }

    fn table_growing(
        &mut self,
        _current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        Ok(desired <= self.table_elements_max)
    }

    fn instances(&self) -> usize {
        // A guest in Python is made of 38.
        128
    }

    fn tables(&self) -> usize {
        32
    }

    fn memories(&self) -> usize {
        8
    }
}

/// State of an instance beside a vnode's own: `describe`, `merge` and `migrate` run in one. It has no rows, so its store refuses everything.
pub(super) struct Scratch {
    allowance: Allowance,
    said: Said,
    drawn: u64,
}

impl Scratch {
    /// A wasmtime store around a fresh state, with the memory of one command and so much time.
    pub(super) fn store(engine: &Engine, budget: Duration) -> wasmtime::Store<Scratch> {
        let limits = engine.limits();
        let state = Scratch {
            allowance: Allowance::new(limits),
            said: Said::default(),
            drawn: 0,
        };
        let mut store = wasmtime::Store::new(engine.wasmtime(), state);
        store.limiter(|state| &mut state.allowance);
        store.set_epoch_deadline(super::engine::ticks(budget));
        store
    }

    /// Starts anew for the next call.
    pub(super) fn hear(&mut self) {
        self.said.clear();
    }

    /// What it said last, usually why it trapped.
    pub(super) fn take_said(&mut self) -> Option<String> {
        self.said.take_stderr()
    }

    pub(super) fn into_said(mut self) -> Option<String> {
        self.take_said()
    }
}

impl contract::log::Host for Scratch {
    fn write(&mut self, level: Level, message: String) -> wasmtime::Result<()> {
        self.said
            .line(level, &message, || [const { String::new() }; 3]);
        Ok(())
    }
}

impl Stderr for Scratch {
    fn said(&mut self, text: &[u8]) {
        self.said.stderr(text);
    }

    fn now_ms(&self) -> u64 {
        0
    }

    fn random(&mut self) -> u64 {
        // Nothing that a scratch instance answers may depend on chance, but draws have to differ all the same.
        self.drawn = self.drawn.wrapping_add(1);
        self.drawn
    }
}
