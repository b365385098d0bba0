//! What a node prints when it is ready: who it is, what it serves, where, and what to try.

use std::fmt::Write;

use super::Node;
use crate::config::{StorageKind, SyncMode};
use crate::descriptor::CommandSpec;
use crate::resp::catalog::{Catalog, GuestCommand};
use crate::vnode::service::Service;

/// The banner, which ends with the `ready` line.
pub(super) fn banner(node: &Node) -> String {
    let shared = node.shared();
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = write(&mut out, node, shared);
    out
}

fn write(out: &mut String, node: &Node, shared: &super::Shared) -> std::fmt::Result {
    let data = shared.config.data_dir(shared.name.as_str());
    let new = if node.is_new_directory() {
        "new data directory "
    } else {
        ""
    };
    writeln!(out, "node      {}   ({new}{})", shared.name, data.display())?;
    for (position, service) in shared.coordinator.services().iter().enumerate() {
        let front = shared.coordinator.front();
        let Some(edition) = front.edition(position) else {
            continue;
        };
        let descriptor = edition.guest.descriptor();
        let digest = edition.guest.digest().get(..12).unwrap_or_default();
        let names = callable(front.catalog(), service);
        writeln!(
            out,
            "guest     {} {}  sha256 {digest}  {}  {} commands: {}",
            descriptor.name,
            descriptor.version,
            crate::wasm::interface::NAME,
            names.len(),
            names.join(" "),
        )?;
        let settings = shared.config.services.get(&descriptor.name);
        if settings.is_some_and(|settings| settings.last_write_wins) {
            writeln!(
                out,
                "          note: last write wins for {}: of concurrent writes all but one are lost",
                descriptor.name
            )?;
        }
    }
    let view = shared.coordinator.view();
    let ring = view.ring();
    writeln!(
        out,
        "ring      {} partitions, hash {}, {}",
        ring.size().get(),
        ring.hash(),
        match view.nodes().len() {
            1 => "1 member   note: all replicas of a key are on this node".to_owned(),
            members => format!("{members} members"),
        }
    )?;
    writeln!(out, "storage   {}", storage(shared))?;
    let resp = shared.addresses.resp;
    writeln!(
        out,
        "resp      {resp}     try: redis-cli -p {} {}",
        resp.port(),
        try_it(shared)
    )?;
    writeln!(
        out,
        "http      http://{}   dashboard, /metrics, /v1",
        shared.addresses.http
    )?;
    writeln!(out, "peer      {}", shared.addresses.peer)?;
    let coordinator = &shared.coordinator;
    let seats = coordinator.seats().views(coordinator.ring_size());
    let (mut own, mut down) = (0, 0);
    for seat in seats.filter(|seat| seat.owned) {
        own += 1;
        down += usize::from(seat.figures.down.is_some());
    }
    writeln!(
        out,
        "ready     {}/{} vnodes in {} ms{}",
        own - down,
        own,
        node.started_in().as_millis(),
        if down > 0 {
            "   note: the others do not start; `host status` says why"
        } else {
            ""
        }
    )
}

/// Its commands by the shortest names that reach them: another one may have the short name.
fn callable(catalog: &Catalog, service: &Service) -> Vec<String> {
    let commands = service.commands().into_iter().enumerate();
    let name = |(command, spec): (usize, CommandSpec)| {
        let guest = GuestCommand {
            service: service.index.into(),
            command,
        };
        let full = format!("{}.{}", service.name(), spec.name).to_ascii_uppercase();
        match catalog.has_short_name(guest) {
            true => Some(spec.name),
            false => catalog.find(full.as_bytes()).map(|_| full),
        }
    };
    commands.filter_map(name).collect()
}

fn storage(shared: &super::Shared) -> String {
    match (shared.config.storage, shared.config.sync) {
        (StorageKind::Memory, _) => "memory: everything is gone when the node ends".into(),
        (StorageKind::Disk, SyncMode::Always) => {
            "disk, sync always: acknowledged is on disk".into()
        }
        (StorageKind::Disk, SyncMode::Interval) => format!(
            "disk, sync interval: a crash loses at most the last {}",
            humantime::format_duration(shared.config.sync_interval)
        ),
        (StorageKind::Disk, SyncMode::Never) => {
            "disk, sync never: the operating system decides when".into()
        }
    }
}

/// A first command that the guests of this node understand.
fn try_it(shared: &super::Shared) -> &'static str {
    let names = |name: &str| shared.coordinator.service(name).is_some();
    if names("kv") {
        "set hello world"
    } else if names("counter") {
        "incr hits"
    } else if names("ping") {
        "ping.ping"
    } else {
        "vnode.help"
    }
}
