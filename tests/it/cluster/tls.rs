//! Nodes with certificates talk to each other over TLS, and to nobody else.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;

use tests::resp::Reply;
use tests::{Cluster, Node, Starter, arg, eventually, run, text, tree};

use super::{DISK, MEMORY, get_everywhere, insist, set_and_get_everywhere};

/// Makes certificates in a directory: one for any node, or one for each of these.
fn certify(dir: &Path, nodes: &[&str]) {
    let mut words = vec!["tls", "dev", arg(&dir)];
    words.extend(nodes.iter().flat_map(|node| ["--node", node]));
    let output = run(&words);
    assert!(output.status.success(), "{}", text(&output));
}

#[test]
fn three_nodes_with_certificates_serve_lose_one_and_grow() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    certify(dir, &[]);
    let flags = [DISK, &["--tls-dir", arg(&dir)]].concat();
    let mut cluster = Cluster::of(3, &flags);
    set_and_get_everywhere(&cluster, "before", 100);
    cluster.seated();
    cluster.kill(2);
    let mut client = cluster.node(1).client();
    for n in 0..100 {
        let set = format!("SET without{n} v{n}");
        assert_eq!(insist(&mut client, &set), Reply::ok());
    }
    cluster.restart(2);
    cluster.agree();
    get_everywhere(&cluster, "without", 100);
    let fourth = cluster.add(&[]);
    cluster.join(fourth);
    cluster.commit();
    let ring = cluster.node(1).json("/v1/cluster");
    let shares = super::shares(&ring);
    assert!(shares.iter().all(|(_, owned)| *owned > 0), "{shares:?}");
    get_everywhere(&cluster, "before", 100);
    get_everywhere(&cluster, "without", 100);
}

/// A node in memory of that name, with these flags besides.
fn node(name: &str, more: &[&str]) -> Node {
    let args = [MEMORY, more].concat();
    Starter::three(&args).named(name).start()
}

/// One node cannot join another: whoever asked is told so, and so is whoever reads the log of the other.
fn turned_away(who: Node, to: Node, told: &[&str], logged: &[&str]) {
    let address = to.peer.to_string();
    who.refuses(
        &["cluster", "join", &address],
        &[&[&*address], told].concat(),
    );
    who.terminate();
    let printed = to.terminate().printed;
    for words in logged {
        assert!(printed.contains(words), "{words:?} is not in {printed}");
    }
}

#[test]
fn a_node_without_certificates_and_one_with_them_turn_each_other_away() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    certify(dir, &[]);
    let flags = ["--tls-dir", arg(&dir)];
    let advice = "start every node of the cluster with --tls-dir, or none";
    turned_away(
        node("plain@test", &[]),
        node("secure@test", &flags),
        &[
            "refused this node: secure@test takes nodes over TLS only",
            advice,
        ],
        &[
            "a connection was not let in",
            "secure@test takes nodes over TLS only",
        ],
    );
    turned_away(
        node("secure@test", &flags),
        node("plain@test", &[]),
        &["does not speak TLS, and this node does", advice],
        &[
            "a connection was not let in",
            "plain@test does not speak TLS, and you do",
        ],
    );
}

#[test]
fn a_node_of_another_ca_is_turned_away() {
    let folder = tempfile::tempdir().unwrap();
    let (ours, theirs) = (folder.path().join("ours"), folder.path().join("theirs"));
    certify(&ours, &[]);
    certify(&theirs, &[]);
    let ca = theirs.join("ca.pem");
    let advice = "give all nodes of the cluster certificates of one CA";
    let flags = |dir| ["--tls-dir", arg(dir)];
    turned_away(
        node("stranger@test", &flags(&theirs)),
        node("secure@test", &flags(&ours)),
        &[
            &format!("its certificate is signed by no CA of {}", ca.display()),
            advice,
        ],
        &["a connection was not let in", "no TLS: it does not trust"],
    );
    // Who trusts both CAs, and has a certificate of the other one, hears it from the node that he asks.
    let both = [ours.join("ca.pem"), ca.clone()].map(|path| std::fs::read_to_string(path).unwrap());
    std::fs::write(&ca, both.concat()).unwrap();
    let own = theirs.join("node.pem");
    turned_away(
        node("stranger@test", &flags(&theirs)),
        node("secure@test", &flags(&ours)),
        &[&format!("it does not trust {}", own.display()), advice],
        &["no TLS: its certificate is signed by no CA of", advice],
    );
}

#[test]
fn a_certificate_of_another_node_refuses_the_start() {
    let folder = tempfile::tempdir().unwrap();
    certify(folder.path(), &["a@test", "b@test"]);
    let own = folder.path().join("a@test");
    let good = node("a@test", &["--tls-dir", arg(&own)]);
    assert!(good.terminate().status.success());
    let said = refused(&own, "b@test");
    assert!(
        said.contains("it is for a@test, and this node is b@test"),
        "{said}"
    );
}

#[test]
fn files_that_are_no_good_refuse_the_start_by_name() {
    for (name, words) in [
        ("ca.pem", "there is no certificate in it"),
        ("node.pem", "there is no certificate in it"),
        ("node-key.pem", "there is no key in it"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        certify(folder.path(), &[]);
        let path = folder.path().join(name);
        std::fs::write(&path, "nothing\n").unwrap();
        let expected = format!("error: cannot use {} for TLS: {words}", path.display());
        let said = refused(folder.path(), "a@test");
        assert!(said.contains(&expected), "{expected}: {said}");
        std::fs::remove_file(&path).unwrap();
        let said = refused(folder.path(), "a@test");
        let expected = format!("cannot use {} for TLS: No such file", path.display());
        assert!(said.contains(&expected), "{expected}: {said}");
    }
}

/// A start that fails with one error and leaves nothing behind.
fn refused(certificates: &Path, name: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let output = run(&[
        "--vnode",
        "kv",
        "--port",
        "0",
        "--name",
        name,
        "--data",
        arg(&data),
        "--tls-dir",
        arg(&certificates),
    ]);
    let said = text(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("\n  next: "), "{said}");
    assert!(tree(folder.path()).is_empty(), "{said}");
    said
}

/// Something in the network that passes everything on, and takes it all down.
struct Wiretap {
    address: SocketAddr,
    target: Arc<OnceLock<SocketAddr>>,
    heard: Arc<Mutex<Vec<u8>>>,
}

impl Wiretap {
    fn new() -> Wiretap {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let tap = Wiretap {
            address: listener.local_addr().expect("an address"),
            target: Arc::default(),
            heard: Arc::default(),
        };
        let (target, heard) = (Arc::clone(&tap.target), Arc::clone(&tap.heard));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (Ok(near), Some(target)) = (stream, target.get()) else {
                    continue;
                };
                if let Ok(far) = TcpStream::connect(target) {
                    let copy = |stream: &TcpStream| stream.try_clone().expect("a copy");
                    let (near_too, far_too) = (copy(&near), copy(&far));
                    let (heard, heard_too) = (Arc::clone(&heard), Arc::clone(&heard));
                    thread::spawn(move || pass_on(near, far, &heard));
                    thread::spawn(move || pass_on(far_too, near_too, &heard_too));
                }
            }
        });
        tap
    }

    fn has_heard(&self, words: &str) -> bool {
        let heard = self.heard.lock().expect("nobody panics");
        heard
            .windows(words.len())
            .any(|part| part == words.as_bytes())
    }
}

fn pass_on(mut from: TcpStream, mut to: TcpStream, heard: &Mutex<Vec<u8>>) {
    let mut chunk = [0; 4096];
    while let Ok(count @ 1..) = from.read(&mut chunk) {
        let bytes = &chunk[..count];
        heard
            .lock()
            .expect("nobody panics")
            .extend_from_slice(bytes);
        if to.write_all(bytes).is_err() {
            break;
        }
    }
    // The other side may be gone already.
    drop(to.shutdown(Shutdown::Both));
}

/// Two nodes, with everything that one sends to the other tapped, while a secret is written to both.
fn tapped(more: &[&str]) -> Wiretap {
    let tap = Wiretap::new();
    let address = tap.address.to_string();
    let near = node("near@test", more);
    let far = node("far@test", &[more, &["--advertise", &address]].concat());
    tap.target.set(far.peer).expect("set once");
    far.must(&["cluster", "join", &near.http.to_string()]);
    near.must(&["cluster", "plan"]);
    near.must(&["cluster", "commit", "--wait", "50s"]);
    tests::agree(&[&near, &far]);
    let mut client = near.client();
    for n in 0..20 {
        let set = format!("SET key{n} the-secret-{n}");
        assert_eq!(insist(&mut client, &set), Reply::ok());
    }
    eventually("something to be heard", || {
        (tap.heard.lock().expect("nobody panics").len() > 1000).then_some(())
    });
    tap
}

#[test]
fn what_goes_over_the_wire_can_be_read_without_tls_alone() {
    let words = ["far@test", "the-secret-"];
    let plain = tapped(&[]);
    assert!(words.iter().all(|words| plain.has_heard(words)));
    let folder = tempfile::tempdir().unwrap();
    certify(folder.path(), &[]);
    let sealed = tapped(&["--tls-dir", arg(&folder.path())]);
    assert!(!words.iter().any(|words| sealed.has_heard(words)));
}
