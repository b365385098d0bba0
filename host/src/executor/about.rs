//! What built-in commands tell of the node: plain data, and counters that others keep.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use super::inbox::Inbox;
use crate::coordinator::front::Front;
use crate::metrics::{CommandTotals, resident_bytes};
use crate::resp::facts::{ClusterCounters, CommandCounters, Counters, Facts, GuestCounters};
use crate::resp::session::ClientInfo;
use crate::vnode::service::Service;

/// One node, as its clients may see it.
pub struct About {
    /// Name of the node.
    pub node: String,
    /// Differs with each start.
    pub run_id: String,
    /// The process.
    pub process_id: u32,
    /// Port of the RESP door.
    pub tcp_port: u16,
    /// When the node started.
    pub started: Instant,
    /// Names and values for CONFIG GET.
    pub settings: Vec<(String, String)>,
    /// Most clients at once.
    pub clients_max: usize,
    /// Partitions of the ring.
    pub ring_size: u32,
    /// What is served.
    pub services: Vec<Arc<Service>>,
    /// Clients so far; gives each its id.
    pub clients: AtomicU64,
    /// The executors, which know their clients.
    pub inboxes: Vec<Arc<Inbox>>,
}

impl About {
    /// The id of a new client.
    pub fn next_client(&self) -> u64 {
        self.clients.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Shows the node to a built-in command.
    pub fn with_facts<T>(
        &self,
        front: &Front,
        now_ms: u64,
        clients: &[ClientInfo],
        run: impl FnOnce(&Facts<'_>) -> T,
    ) -> T {
        run(&Facts {
            node: &self.node,
            version: env!("CARGO_PKG_VERSION"),
            run_id: &self.run_id,
            process_id: self.process_id,
            tcp_port: self.tcp_port,
            now_us: now_ms.saturating_mul(1000),
            uptime_seconds: &|| self.started.elapsed().as_secs(),
            catalog: front.catalog(),
            password: None,
            settings: &|| self.settings.clone(),
            clients: &|| clients.to_vec(),
            counters: &|| self.counters(front),
        })
    }

    fn counters(&self, front: &Front) -> Counters {
        let traffic = self.inboxes.iter().map(|inbox| inbox.traffic());
        let (input_bytes_total, output_bytes_total) =
            traffic.fold((0, 0), |all, one| (all.0 + one.0, all.1 + one.1));
        let mut all = Counters {
            clients: self.inboxes.iter().map(|inbox| inbox.connected()).sum(),
            input_bytes_total,
            output_bytes_total,
            clients_max: self.clients_max,
            memory_bytes: resident_bytes(),
            memory_peak_bytes: resident_bytes(),
            connections_total: self.clients.load(Ordering::Relaxed),
            cluster: ClusterCounters {
                ring_ready: true,
                ring_size: self.ring_size,
                epoch: 1,
                members_valid: 1,
                members_up: 1,
                partitions_primary: self.ring_size as usize,
                ..ClusterCounters::default()
            },
            ..Counters::default()
        };
        for (here, service) in self.services.iter().zip(front.catalog().services()) {
            let edition = front.edition(here.index.into()).unwrap_or(here.first());
            let mut guest = GuestCounters {
                name: service.name.clone(),
                version: service.version.clone(),
                digest: edition.digest().to_string(),
                vnodes: self.ring_size as usize,
                ..GuestCounters::default()
            };
            for (command, spec) in (0..).zip(&service.commands) {
                let totals = CommandTotals::of(here, command);
                guest.traps_total += totals.trap + totals.timeout;
                all.commands_total += totals.calls();
                all.errors_total += totals.calls() - totals.ok;
                if totals.calls() > 0 {
                    all.commands.push(CommandCounters {
                        name: format!("{}.{}", service.name, spec.name).to_ascii_lowercase(),
                        calls: totals.calls(),
                        usec: totals.duration_us,
                        rejected: totals.busy,
                        failed: totals.error + totals.trap + totals.timeout,
                    });
                }
            }
            all.guests.push(guest);
        }
        all
    }
}
