//! GET and SET of kv in batches: through the guest, and in Rust on the same kind of rows.

use std::sync::Arc;

use divan::Bencher;
use divan::counter::ItemsCount;
use vnode_host::vnode::request::Replies;
use vnode_host::vnode::{Call, Vnode};

use crate::native::{Guested, Native};
use crate::rig::{Backend, Load, Runner, Storage, kv, state};

const SIZES: [usize; 3] = [1, 16, 64];

#[divan::bench(args = SIZES)]
fn memory_get_guest(bencher: Bencher, batch: usize) {
    guest(bencher, Backend::Memory, "GET", batch);
}

#[divan::bench(args = SIZES)]
fn memory_get_native(bencher: Bencher, batch: usize) {
    native(bencher, Backend::Memory, "GET", batch);
}

#[divan::bench(args = SIZES)]
fn memory_set_guest(bencher: Bencher, batch: usize) {
    guest(bencher, Backend::Memory, "SET", batch);
}

#[divan::bench(args = SIZES)]
fn memory_set_native(bencher: Bencher, batch: usize) {
    native(bencher, Backend::Memory, "SET", batch);
}

#[divan::bench(args = SIZES)]
fn disk_get_guest(bencher: Bencher, batch: usize) {
    guest(bencher, Backend::Disk, "GET", batch);
}

#[divan::bench(args = SIZES)]
fn disk_get_native(bencher: Bencher, batch: usize) {
    native(bencher, Backend::Disk, "GET", batch);
}

#[divan::bench(args = SIZES)]
fn disk_set_guest(bencher: Bencher, batch: usize) {
    guest(bencher, Backend::Disk, "SET", batch);
}

#[divan::bench(args = SIZES)]
fn disk_set_native(bencher: Bencher, batch: usize) {
    native(bencher, Backend::Disk, "SET", batch);
}

fn guest(bencher: Bencher, backend: Backend, command: &str, batch: usize) {
    let (service, storage) = (kv(), Storage::new(backend));
    let load = Load::new(&service);
    let state = state(&service, &storage);
    measure(
        bencher,
        Guested {
            vnode: Vnode::start(Arc::clone(&service), Arc::clone(service.first()), state),
            call: Call::default(),
        },
        load,
        command,
        batch,
    );
}

fn native(bencher: Bencher, backend: Backend, command: &str, batch: usize) {
    let (service, storage) = (kv(), Storage::new(backend));
    let load = Load::new(&service);
    let state = state(&service, &storage);
    measure(
        bencher,
        Native::new(Arc::clone(&service), state),
        load,
        command,
        batch,
    );
}

fn measure(bencher: Bencher, mut runner: impl Runner, mut load: Load, command: &str, batch: usize) {
    load.fill(&mut runner);
    let load = std::cell::RefCell::new(load);
    let mut replies = Replies::default();
    bencher
        .counter(ItemsCount::new(batch))
        .with_inputs(|| load.borrow_mut().batch(command, batch))
        .bench_local_refs(|mailbox| load.borrow().run(&mut runner, mailbox, &mut replies));
}
