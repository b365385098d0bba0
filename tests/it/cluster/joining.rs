//! By which addresses a cluster is found, and what a node is told that was given another.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::thread::JoinHandle;

use tests::resp::Reply;
use tests::{Cluster, eventually};

use super::{DISK, MEMORY};

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
    let started = tests::run(&[
        "--vnode",
        "kv",
        "--port",
        "0",
        "--data",
        tests::arg(&data),
        "--join",
        &resp,
    ]);
    assert_eq!(started.status.code(), Some(1));
    let said = tests::text(&started);
    assert!(said.contains(words[0]), "{said}");
    assert!(!data.exists(), "nothing is left behind");
}

#[test]
fn a_node_that_ended_before_its_join_was_committed_commits_it_when_it_is_back() {
    let mut cluster = Cluster::apart(1, DISK);
    let first = cluster.node(1).http.to_string();
    let second = cluster.add(&["--join", &first]);
    let staged = |cluster: &Cluster| cluster.node(1).json("/v1/cluster")["staged"].clone();
    eventually("the join to be staged", || {
        (staged(&cluster) != serde_json::json!([])).then_some(())
    });
    cluster.kill(second);
    cluster.restart_with(second, &["--join", &first, "--auto-commit"]);
    eventually("the node to be let in", || {
        let view = cluster.node(second).json("/v1/cluster");
        let all = view["members"].as_array()?.iter();
        let valid = all.filter(|member| member["status"] == "valid");
        (valid.count() == 2).then_some(())
    });
    cluster.agree();
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

#[test]
fn a_join_that_nobody_has_committed_is_taken_back() {
    let mut cluster = Cluster::apart(3, DISK);
    let mut own = cluster.node(2).client();
    assert_eq!(own.run("SET k v"), Reply::ok());
    cluster.join(2);
    cluster.join(3);
    // By itself, and by a member.
    cluster.node(2).must(&["cluster", "leave"]);
    cluster.node(1).must(&["cluster", "leave", "node3@test"]);
    for number in [2, 3] {
        eventually("the node to end", || {
            cluster.node_mut(number).has_ended().then_some(())
        });
        cluster.restart(number);
        let view = cluster.node(number).json("/v1/cluster");
        assert_eq!(view["members"].as_array().map(Vec::len), Some(1), "{view}");
    }
    let view = cluster.node(1).json("/v1/cluster");
    assert_eq!(view["members"].as_array().map(Vec::len), Some(1), "{view}");
    assert_eq!(cluster.node(2).client().run("GET k"), "v".into());
}

#[test]
fn a_join_is_given_up_when_the_cluster_is_gone() {
    let mut cluster = Cluster::apart(2, DISK);
    let mut own = cluster.node(2).client();
    assert_eq!(own.run("SET k v"), Reply::ok());
    cluster.join(2);
    cluster.kill(1);
    let said = cluster.node(2).must(&["cluster", "leave"]);
    assert!(said.contains("gives up joining and ends"), "{said}");
    assert!(
        said.contains("No member of that cluster answered"),
        "{said}"
    );
    eventually("the node to end", || {
        cluster.node_mut(2).has_ended().then_some(())
    });
    cluster.restart(2);
    assert_eq!(cluster.node(2).client().run("GET k"), "v".into());
    assert_eq!(cluster.node(2).json("/v1/status")["verdict"], "ok");
}

#[test]
fn a_member_that_lacks_a_service_of_others_is_named_by_each_of_them() {
    let mut cluster = Cluster::apart(1, MEMORY);
    let first = cluster.node(1).http.to_string();
    let clerk = tests::guest("clerk").display().to_string();
    cluster.add(&["--join", &first, "--auto-commit", "--vnode", &clerk]);
    for node in cluster.nodes() {
        eventually("the service to be missed", || {
            let status = node.json("/v1/status");
            let mut problems = status["problems"].as_array()?.iter();
            let missing = problems.find(|problem| problem["code"] == "service_missing")?;
            let text = missing["text"].as_str()?;
            assert!(
                text.starts_with("node1@test does not serve clerk"),
                "{text}"
            );
            Some(())
        });
    }
}
