//! A node in this process, where its executors can be looked at.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::mpsc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::flights::Purpose;
use super::{Executor, Message};
use crate::config::{Config, GuestSource, StorageKind};
use crate::node::Node;
use crate::vnode::request::ReplyTo;

/// Two executors and the counters that are built in.
fn node(folder: &std::path::Path) -> Node {
    let any = "127.0.0.1:0".parse().expect("an address");
    let mut config = Config::default();
    config.vnodes = vec![GuestSource::parse("counter")];
    config.name = Some("node@test".into());
    (config.resp, config.http, config.peer) = (any, any, any);
    config.ring_size = 8;
    config.data = Some(folder.to_owned());
    config.storage = StorageKind::Memory;
    config.executors = 2;
    Node::start(config).expect("the node starts")
}

/// Looks at an executor on its thread.
fn look<T: Send + 'static>(
    node: &Node,
    executor: usize,
    look: impl FnOnce(&mut Executor) -> T + Send + 'static,
) -> T {
    let (seen, saw) = mpsc::channel();
    let inbox = &node.shared().coordinator.inboxes()[executor];
    inbox.send(Message::Inspect(Box::new(move |executor| {
        drop(seen.send(look(executor)));
    })));
    saw.recv().expect("the executor answers")
}

fn clients_of(node: &Node, executor: usize) -> Vec<u64> {
    look(node, executor, |executor| {
        let mut clients = Vec::new();
        executor
            .connections()
            .sessions(|session| clients.push(session.client.id));
        clients
    })
}

#[test]
fn a_client_that_moves_between_executors_loses_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let node = node(folder.path());
    let address = node.shared().addresses.resp;
    let other = TcpStream::connect(address).expect("a connection");
    let mut client = TcpStream::connect(address).expect("a connection");
    client
        .set_read_timeout(Some(Duration::from_secs(20)))
        .expect("a timeout");
    client
        .write_all(b"CLIENT SETNAME wanderer\r\n")
        .expect("sends");
    read_exactly(&mut client, "+OK\r\n");
    let mut expected = String::new();
    for round in 0..50 {
        let burst: String = (0..20).map(|_| "*2\r\n$4\r\nINCR\r\n$1\r\nk\r\n").collect();
        // The last request of a burst comes in two parts, with the move in between.
        let (first, rest) = burst.split_at(burst.len() - 7);
        client.write_all(first.as_bytes()).expect("sends");
        let (from, to) = (round % 2, (round + 1) % 2);
        look(&node, from, move |executor| {
            executor.connections().move_to(to, usize::MAX)
        });
        client.write_all(rest.as_bytes()).expect("sends");
        expected.clear();
        (0..20).for_each(|nth| expected += &format!(":{}\r\n", round * 20 + nth + 1));
        read_exactly(&mut client, &expected);
        while clients_of(&node, to).len() < 2 {
            std::thread::yield_now();
        }
    }
    client.write_all(b"CLIENT GETNAME\r\n").expect("sends");
    read_exactly(&mut client, "$8\r\nwanderer\r\n");
    drop((client, other));
    node.drain().expect("the node ends");
}

#[test]
fn whoever_waits_for_several_vnodes_is_answered_when_the_time_is_over() {
    let folder = tempfile::tempdir().expect("a folder");
    let node = node(folder.path());
    let (to, mut answer) = oneshot::channel();
    let nobody_waits = look(&node, 0, |executor| {
        let to = ReplyTo::Task(to);
        executor.begin_alone(Instant::now(), Purpose::Parts { to, left: 2 });
        executor.refuse_overdue();
        executor.flights.is_empty()
    });
    assert!(nobody_waits, "else the node does not drain");
    let answer = answer.try_recv().expect("an answer");
    assert!(answer.starts_with(b"-NOREPLICAS "), "{answer:?}");
    node.drain().expect("the node ends");
}

fn read_exactly(client: &mut TcpStream, expected: &str) {
    let mut reply = vec![0; expected.len()];
    client.read_exact(&mut reply).expect("replies");
    assert_eq!(String::from_utf8_lossy(&reply), expected);
}
