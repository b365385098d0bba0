//! The data threads of a node: one executor each, with the vnodes that are its share.

use std::sync::Arc;
use std::sync::mpsc::channel;
use std::thread::JoinHandle;

use tokio::runtime::Builder;
use vnode_ring::PartitionId;

use super::turns::take_short_turns;
use super::{NodeError, system};
use crate::coordinator::Coordinator;
use crate::executor::Executor;
use crate::executor::about::About;
use crate::executor::slow::Pool;
use crate::store::{Engine, StoreError};
use crate::vital::Vital;
use crate::vnode::service::Service;
use vnode_cluster::Greeter;

/// Starts the executors' threads. Each makes its own vnodes, so that they start in parallel.
pub(super) fn start(
    coordinator: &Arc<Coordinator>,
    about: &Arc<About>,
    engine: &Arc<Engine>,
    greeter: &Arc<Greeter>,
) -> Result<Vec<JoinHandle<()>>, NodeError> {
    let threads = coordinator.inboxes().len();
    let pool = Pool::start(threads + 1).map_err(system("start the slow threads"))?;
    let places = places(coordinator);
    let wanted: Vec<(&str, u16)> = places
        .iter()
        .map(|(service, partition)| (service.name(), partition.id()))
        .collect();
    let stores = engine.open_all(&wanted)?;
    let mut shares: Vec<Vec<_>> = std::iter::repeat_with(Vec::new).take(threads).collect();
    for ((service, partition), store) in places.into_iter().zip(stores) {
        let seat = coordinator.seat(usize::from(service.index), partition);
        if let Some(share) = shares.get_mut(coordinator.executor_of(seat)) {
            share.push((seat, service, partition, store));
        }
    }
    let (started, all_started) = channel();
    let mut handles = Vec::new();
    for (index, share) in shares.into_iter().enumerate() {
        let coordinator = Arc::clone(coordinator);
        let (pool, started) = (pool.clone(), started.clone());
        let engine = Arc::clone(engine);
        let about = Arc::clone(about);
        let greeter = Arc::clone(greeter);
        let thread = std::thread::Builder::new()
            .name(format!("data-{index}"))
            .spawn(move || {
                let _vital = Vital("data");
                take_short_turns();
                let runtime = Builder::new_current_thread().enable_all().build();
                let vnodes: Result<(), StoreError> =
                    share
                        .into_iter()
                        .try_for_each(|(seat, service, partition, store)| {
                            let size = coordinator.ring_size();
                            let vnode = coordinator.vnode(&service, (size, partition), store)?;
                            coordinator.seats().place(seat, vnode);
                            Ok(())
                        });
                let runtime = match (runtime, vnodes) {
                    (Ok(runtime), Ok(())) => runtime,
                    (Err(source), _) => {
                        drop(started.send(Err(system("start an executor")(source))));
                        return;
                    }
                    (_, Err(error)) => {
                        drop(started.send(Err(error.into())));
                        return;
                    }
                };
                drop(started.send(Ok(())));
                let local = tokio::task::LocalSet::new();
                let acknowledge = engine.acknowledge();
                drop(engine);
                local.block_on(
                    &runtime,
                    Executor::run(index, coordinator, about, acknowledge, pool, greeter),
                );
            })
            .map_err(system("start an executor"))?;
        handles.push(thread);
    }
    drop(started);
    // Each executor keeps its end of the channel, so they are counted.
    for outcome in all_started.iter().take(handles.len()) {
        outcome?;
    }
    Ok(handles)
}

/// Each partition of each service.
pub(super) fn places(coordinator: &Coordinator) -> Vec<(Arc<Service>, PartitionId)> {
    let mut places = Vec::new();
    for service in coordinator.services() {
        for partition in coordinator.ring_size().partitions() {
            places.push((Arc::clone(service), partition));
        }
    }
    places
}
