//! By which addresses a cluster is found, and what a node is told that was given another.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::thread::JoinHandle;

use tests::Cluster;

use super::MEMORY;

#[test]
fn a_cluster_is_found_by_the_peer_address_and_by_the_http_address_of_a_member() {
    let cluster = Cluster::apart(4, MEMORY);
    let (peer, http) = (cluster.node(1).peer, cluster.node(1).http);
    let addresses = [
        peer.to_string(),
        http.to_string(),
        format!("http://{http}/"),
    ];
    for (number, address) in (2..).zip(&addresses) {
        cluster.node(number).must(&["cluster", "join", address]);
    }
    cluster.commit();
}

#[test]
fn an_address_for_redis_clients_is_refused_by_name() {
    let cluster = Cluster::apart(2, MEMORY);
    let resp = cluster.node(1).resp.to_string();
    let words = [
        &*format!("{resp} is for Redis clients"),
        "give the address that a member's banner calls peer or http",
    ];
    cluster.node(2).refuses(&["cluster", "join", &resp], &words);
    let data = cluster.folder().join("third");
    let data = tests::arg(&data);
    let started = tests::run(&[
        "--vnode", "kv", "--port", "0", "--data", data, "--join", &resp,
    ]);
    assert_eq!(started.status.code(), Some(1));
    let said = tests::text(&started);
    assert!(said.contains(words[0]), "{said}");
}

/// A program at a free port that answers whoever says something, and hangs up.
fn stranger(answer: &'static [u8], visitors: usize) -> (SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let serving = std::thread::spawn(move || {
        for stream in listener.incoming().take(visitors) {
            let mut stream = stream.expect("a connection");
            // Some hang up first.
            drop(stream.read(&mut [0; 1024]));
            drop(stream.write_all(answer));
        }
    });
    (address, serving)
}

#[test]
fn the_port_of_another_program_is_refused_for_what_it_is() {
    let cluster = Cluster::apart(1, MEMORY);
    let page: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello";
    // Each is asked by HTTP, then as a node, and one that does not answer as a node also as Redis.
    for (answer, visitors, words) in [
        (page, 2, "speaks HTTP, and did not say where its node"),
        (
            b"SSH-2.0-OpenSSH_9.2\r\n",
            2,
            "is that of another program than a node",
        ),
        (b"", 3, "gave no answer to a hello"),
    ] {
        let (address, serving) = stranger(answer, visitors);
        let address = address.to_string();
        let join = ["cluster", "join", &address];
        cluster.node(1).refuses(&join, &[&address, words]);
        serving.join().expect("it does not panic");
    }
}
