//! A node ends, as by `kill -9`, at each place of a transfer in turn. Whichever of sender, receiver or claimant it is: once it is
//! back the transfer ends, no partition has two owners, and nothing is lost or counted twice.

use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};

use tests::resp::Reply;
use tests::{Cluster, Node, eventually};

use super::insist;

const KEYS: usize = 600;
/// Two pages for each partition of a ring of eight.
const VALUE: usize = 6 * 1024;
const FLAGS: &[&str] = &[
    "--sync",
    "always",
    "--n",
    "1",
    "--ring-size",
    "8",
    "--transfers-retention",
    "300ms",
];
const COUNTERS: usize = 16;

/// Which node ends.
#[derive(Clone, Copy)]
enum Who {
    /// The member that is not the claimant, and hands partitions over.
    Sender,
    /// The node that joins.
    Receiver,
    /// The one that decides, and hands partitions over as well.
    Claimant,
}

fn value(n: usize) -> String {
    format!("{n:06}").repeat(VALUE / 6)
}

/// What a client knows of a counter that it alone counts.
#[derive(Clone, Copy, Default)]
struct Count {
    /// So often it was told that it counted.
    sure: i64,
    /// So often it was not told.
    unsure: i64,
}

/// Counts until it is told to stop.
fn count_on(node: &Node, stop: &AtomicBool) -> Vec<Count> {
    let mut client = node.client();
    let mut counts = vec![Count::default(); COUNTERS];
    while !stop.load(Ordering::Relaxed) {
        for (n, count) in counts.iter_mut().enumerate() {
            match client.run(&format!("INCR counter-{n}")) {
                Reply::Int(_) => count.sure += 1,
                Reply::Error(_) => count.unsure += 1,
                other => panic!("{other:?}"),
            }
        }
    }
    counts
}

/// Asserts that each partition of each service is served by its owner and by nobody else.
fn one_owner_each(cluster: &Cluster) {
    let ring = cluster.node(1).json("/v1/ring");
    let mut serving = 0;
    for node in cluster.nodes() {
        let view = node.json("/v1/vnodes");
        let vnodes = view["vnodes"].as_array().expect("vnodes").iter();
        for vnode in vnodes.filter(|vnode| vnode["kind"] == "primary") {
            let partition = vnode["partition"].as_u64().expect("a number");
            let owner = &ring["owners"][usize::try_from(partition).expect("small")];
            assert_eq!(*owner, *node.name, "of partition {partition}");
            serving += 1;
        }
    }
    assert_eq!(serving, 8 * 3);
}

fn a_node_ends(who: Who, place: &str, passes: usize) {
    let mut cluster = Cluster::faulty(2, FLAGS);
    cluster.join(2);
    cluster.commit();
    cluster.seated();
    cluster.add(&[]);
    let mut client = cluster.node(1).client();
    for n in 0..KEYS {
        assert_eq!(client.run(&format!("SET k{n} {}", value(n))), Reply::ok());
    }
    let claimant = cluster.claimant();
    let number = match who {
        Who::Sender => 3 - claimant,
        Who::Receiver => 3,
        Who::Claimant => claimant,
    };
    let stays = 3 - number.min(2);
    cluster.join(3);
    cluster.node(1).must(&["cluster", "plan"]);
    cluster.end_at(number, place, passes);
    let stop = AtomicBool::new(false);
    let counts = std::thread::scope(|scope| {
        let (cluster, stop) = (&cluster, &stop);
        let counting = scope.spawn(move || count_on(cluster.node(stays), stop));
        // It may be the one that ends, and then does not answer.
        cluster.node(1).cli(&["cluster", "commit"]);
        eventually(&format!("the node to end at {place}"), || {
            let answers = TcpStream::connect(cluster.node(number).resp);
            answers.is_err().then_some(())
        });
        stop.store(true, Ordering::Relaxed);
        counting.join().expect("a client")
    });
    eventually("its end", || {
        cluster.node_mut(number).has_ended().then_some(())
    });
    cluster.restart(number);
    cluster.agree();
    cluster
        .node(1)
        .must(&["cluster", "wait", "--for", "settled", "--timeout", "60s"]);
    eventually("nothing to be on its way", || {
        let none = |node: &Node| {
            let view = node.json("/v1/transfers");
            view["transfers"] == serde_json::json!([]) && view["retained"] == serde_json::json!([])
        };
        cluster.nodes().all(none).then_some(())
    });
    one_owner_each(&cluster);
    for node in cluster.nodes() {
        let mut client = node.client();
        assert_eq!(insist(&mut client, "DBSIZE").int(), 600, "{}", node.name);
        for n in 0..KEYS {
            let held = insist(&mut client, &format!("GET k{n}"));
            assert_eq!(held, value(n).as_str().into(), "{} k{n}", node.name);
        }
        for (n, count) in counts.iter().enumerate() {
            let sum = insist(&mut client, &format!("COUNT counter-{n}")).int();
            let most = count.sure + count.unsure;
            assert!(
                (count.sure..=most).contains(&sum),
                "counter-{n} is {sum} and was counted {} to {most} times",
                count.sure
            );
        }
    }
}

macro_rules! failpoints {
    ($($test:ident: $who:ident $place:literal $passes:literal)*) => {
        $(
            #[test]
            fn $test() {
                a_node_ends(Who::$who, $place, $passes);
            }
        )*
    };
}

failpoints! {
    the_sender_ends_before_the_first_page: Sender "copy-begins" 0
    the_sender_ends_after_a_page: Sender "page-sent" 1
    the_sender_ends_after_the_last_page: Sender "copy-ends" 0
    the_sender_ends_when_both_have_all: Sender "trees-equal" 0
    the_sender_ends_when_commands_wait: Sender "frozen" 0
    the_sender_ends_when_the_rest_is_sent: Sender "rest-sent" 0
    the_sender_ends_when_its_offer_is_kept: Sender "offer-kept" 0
    the_sender_ends_when_the_flip_is_agreed: Sender "flip-agreed" 0
    the_sender_ends_when_it_has_given_up: Sender "given-up" 0
    the_sender_ends_before_it_removes_rows: Sender "owner-confirmed" 0
    the_sender_ends_after_it_removed_rows: Sender "rows-removed" 0
    the_receiver_ends_when_it_gives_a_place: Receiver "place-given" 0
    the_receiver_ends_when_a_page_arrives: Receiver "page-arrived" 1
    the_receiver_ends_when_a_page_is_merged: Receiver "page-merged" 0
    the_receiver_ends_when_it_takes_over: Receiver "taken-over" 0
    the_claimant_ends_when_it_is_asked: Claimant "claimant-asked" 0
    the_claimant_ends_when_it_has_agreed: Claimant "claimant-agreed" 0
    the_claimant_ends_while_it_sends: Claimant "page-sent" 0
}
