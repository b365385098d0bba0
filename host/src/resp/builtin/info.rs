//! INFO and CLUSTER INFO.

use super::{After, Call};
use crate::resp::facts::{CommandCounters, Counters, Facts};

/// Version of Redis whose commands and replies this module follows; clients decide by it what they may send.
const REDIS_VERSION: &str = "7.0.0";

type Section = fn(&mut String, &Facts<'_>, &Counters);

const SECTIONS: &[(&str, Section)] = &[
    ("Server", server),
    ("Clients", clients),
    ("Memory", memory),
    ("Stats", stats),
    ("Commandstats", commandstats),
    ("Cluster", cluster_section),
    ("Guests", guests),
    ("Keyspace", keyspace),
];

pub(super) fn info(call: &mut Call<'_>) -> After {
    let asked = call.words.skip(1);
    let wanted = |name: &str| {
        // As in Redis, a plain INFO leaves out what grows with the number of commands.
        let by_default = name != "Commandstats";
        if asked.is_empty() {
            return by_default;
        }
        asked.iter().any(|word| {
            let is = |text: &str| word.eq_ignore_ascii_case(text.as_bytes());
            let guest = name == "Guests" && is("guest");
            guest || is(name) || is("all") || is("everything") || (by_default && is("default"))
        })
    };
    let sections: Vec<_> = SECTIONS.iter().filter(|(name, _)| wanted(name)).collect();
    let mut text = String::new();
    if !sections.is_empty() {
        let counters = (call.facts.counters)();
        for (name, section) in sections {
            if !text.is_empty() {
                text.push_str("\r\n");
            }
            line(&mut text, format_args!("# {name}"));
            section(&mut text, call.facts, &counters);
        }
    }
    call.text(&text)
}

pub(super) fn cluster(call: &mut Call<'_>) -> After {
    call.text("cluster_enabled:0\r\n")
}

/// Appends a line. Guests write some of the content, so it is kept to one.
fn line(text: &mut String, content: std::fmt::Arguments<'_>) {
    text.extend(content.to_string().chars().filter(|c| !c.is_control()));
    text.push_str("\r\n");
}

fn server(text: &mut String, facts: &Facts<'_>, _: &Counters) {
    line(text, format_args!("redis_version:{REDIS_VERSION}"));
    line(text, format_args!("redis_mode:standalone"));
    line(text, format_args!("vnode_host_version:{}", facts.version));
    line(text, format_args!("node:{}", facts.node));
    line(text, format_args!("os:{}", std::env::consts::OS));
    line(text, format_args!("arch_bits:{}", usize::BITS));
    line(text, format_args!("process_id:{}", facts.process_id));
    line(text, format_args!("run_id:{}", facts.run_id));
    line(text, format_args!("tcp_port:{}", facts.tcp_port));
    line(text, format_args!("server_time_usec:{}", facts.now_us));
    line(
        text,
        format_args!("uptime_in_seconds:{}", (facts.uptime_seconds)()),
    );
    line(
        text,
        format_args!("uptime_in_days:{}", (facts.uptime_seconds)() / 86_400),
    );
}

fn clients(text: &mut String, _: &Facts<'_>, counters: &Counters) {
    line(text, format_args!("connected_clients:{}", counters.clients));
    line(text, format_args!("maxclients:{}", counters.clients_max));
}

fn memory(text: &mut String, _: &Facts<'_>, counters: &Counters) {
    let (used, peak) = (counters.memory_bytes, counters.memory_peak_bytes);
    line(text, format_args!("used_memory:{used}"));
    line(text, format_args!("used_memory_human:{}", human(used)));
    line(text, format_args!("used_memory_rss:{used}"));
    line(text, format_args!("used_memory_peak:{peak}"));
    line(text, format_args!("used_memory_peak_human:{}", human(peak)));
    line(text, format_args!("maxmemory:0"));
    line(text, format_args!("maxmemory_policy:noeviction"));
}

/// Bytes as Redis prints them for people.
fn human(bytes: u64) -> String {
    let units = [("T", 40), ("G", 30), ("M", 20), ("K", 10)];
    match units.iter().find(|(_, bits)| bytes >> bits > 0) {
        None => format!("{bytes}B"),
        Some((unit, bits)) => {
            let hundredths = (u128::from(bytes) * 100) >> bits;
            format!("{}.{:02}{unit}", hundredths / 100, hundredths % 100)
        }
    }
}

fn stats(text: &mut String, _: &Facts<'_>, counters: &Counters) {
    let rows = [
        ("total_connections_received", counters.connections_total),
        ("total_commands_processed", counters.commands_total),
        ("instantaneous_ops_per_sec", counters.commands_per_second),
        ("total_net_input_bytes", counters.input_bytes_total),
        ("total_net_output_bytes", counters.output_bytes_total),
        ("rejected_connections", counters.connections_rejected_total),
        ("total_error_replies", counters.errors_total),
    ];
    for (name, value) in rows {
        line(text, format_args!("{name}:{value}"));
    }
}

fn commandstats(text: &mut String, _: &Facts<'_>, counters: &Counters) {
    for CommandCounters {
        name,
        calls,
        usec,
        rejected,
        failed,
    } in &counters.commands
    {
        let hundredths = (u128::from(*usec) * 100)
            .checked_div(u128::from(*calls))
            .unwrap_or(0);
        let (whole, rest) = (hundredths / 100, hundredths % 100);
        line(
            text,
            format_args!(
                "cmdstat_{name}:calls={calls},usec={usec},usec_per_call={whole}.{rest:02},\
                 rejected_calls={rejected},failed_calls={failed}"
            ),
        );
    }
}

fn cluster_section(text: &mut String, _: &Facts<'_>, counters: &Counters) {
    let cluster = &counters.cluster;
    line(text, format_args!("cluster_enabled:0"));
    line(
        text,
        format_args!("ring_ready:{}", u8::from(cluster.ring_ready)),
    );
    line(text, format_args!("ring_size:{}", cluster.ring_size));
    line(text, format_args!("ring_epoch:{}", cluster.epoch));
    line(
        text,
        format_args!("members_valid:{}", cluster.members_valid),
    );
    line(text, format_args!("members_up:{}", cluster.members_up));
    line(
        text,
        format_args!("partitions_primary:{}", cluster.partitions_primary),
    );
    line(
        text,
        format_args!("partitions_fallback:{}", cluster.partitions_fallback),
    );
    line(
        text,
        format_args!("transfers_running:{}", cluster.transfers_running),
    );
}

fn guests(text: &mut String, _: &Facts<'_>, counters: &Counters) {
    let sum = |count: fn(&_) -> u64| counters.guests.iter().map(count).sum::<u64>();
    line(text, format_args!("guests:{}", counters.guests.len()));
    line(
        text,
        format_args!("traps_total:{}", sum(|guest| guest.traps_total)),
    );
    line(
        text,
        format_args!("restarts:{}", sum(|guest| guest.restarts_total)),
    );
    for guest in &counters.guests {
        line(
            text,
            format_args!(
                "guest_{}:version={},digest={},vnodes={},traps_total={},restarts={}",
                guest.name,
                guest.version,
                guest.digest,
                guest.vnodes,
                guest.traps_total,
                guest.restarts_total
            ),
        );
    }
}

/// The sum as Redis' only database, for tools that look there, and each service by itself.
fn keyspace(text: &mut String, _: &Facts<'_>, counters: &Counters) {
    let known = || {
        counters
            .guests
            .iter()
            .filter_map(|guest| Some((&guest.name, guest.keys?)))
    };
    let sum: u64 = known().map(|(_, keys)| keys).sum();
    if sum > 0 {
        line(text, format_args!("db0:keys={sum},expires=0,avg_ttl=0"));
    }
    for (name, keys) in known() {
        line(text, format_args!("service_{name}:keys={keys}"));
    }
}
