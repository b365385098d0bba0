use proptest::prelude::*;
use rand::SeedableRng;

use super::objections::OBJECT_EVERY;
use super::*;
use crate::hello::Me;

fn name(text: &str) -> NodeName {
    text.parse().unwrap()
}

fn looker(me: &str) -> Looker {
    let (peers, _) = Peers::new(
        Arc::new(Me::new(name(me), None, None)),
        SmallRng::seed_from_u64(1),
    );
    let identity = Identity {
        node: name(me),
        incarnation: 1,
    };
    let foca = Foca::new(identity, config(), SmallRng::seed_from_u64(2), PacketCodec);
    let damping = Damping::default();
    let outside = Outside {
        peers,
        damping,
        objections: Objections::default(),
        agenda: BTreeMap::new(),
        agenda_last: 0,
        changed: false,
    };
    let (show, _) = watch::channel(Sight {
        up: BTreeSet::new(),
        since: BTreeMap::new(),
    });
    Looker {
        foca,
        outside,
        show,
    }
}

/// Keeps what a node sends.
#[derive(Default)]
struct Sent(Vec<Vec<u8>>);

impl foca::Runtime<Identity> for &mut Sent {
    fn notify(&mut self, _: Notification<'_, Identity>) {}
    fn send_to(&mut self, _: Identity, data: &[u8]) {
        self.0.push(data.to_vec());
    }
    fn submit_after(&mut self, _: Timer<Identity>, _: Duration) {}
}

/// Packets as node b sends them to a, with news of c.
fn packets() -> Vec<Vec<u8>> {
    let mut b = looker("b");
    let mut sent = Sent::default();
    let others = ["a", "c"].map(|node| {
        Member::alive(Identity {
            node: name(node),
            incarnation: 1,
        })
    });
    b.foca
        .apply_many(others.into_iter(), true, &mut sent)
        .unwrap();
    b.foca
        .announce(
            Identity {
                node: name("a"),
                incarnation: 0,
            },
            &mut sent,
        )
        .unwrap();
    for _ in 0..8 {
        b.foca.gossip(&mut sent).unwrap();
    }
    sent.0
}

proptest! {
    #[test]
    fn packets_with_changed_bytes_harm_nothing(
        which in any::<prop::sample::Index>(),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        length in any::<prop::sample::Index>(),
    ) {
        let packets = packets();
        let mut packet = packets[which.index(packets.len())].clone();
        for (at, byte) in changes {
            let at = at.index(packet.len());
            packet[at] = byte;
        }
        let mut a = looker("a");
        for length in [packet.len(), length.index(packet.len())] {
            let _ = a.foca.handle_data(&packet[..length], &mut a.outside);
        }
    }
}

#[test]
fn a_full_packet_holds_64_members_with_the_longest_names() {
    let mut packet = Vec::new();
    for number in 0..64 {
        let node = name(&format!("{number:0>width$}", width = NodeName::CHARS_MAX));
        let member = Member::new(
            Identity {
                node,
                incarnation: u64::MAX,
            },
            u16::MAX,
            State::Suspect,
        );
        foca::Codec::encode_member(&mut PacketCodec, &member, &mut packet).unwrap();
    }
    assert!(packet.len() + 1024 < LIVENESS_BYTES_MAX, "{}", packet.len());
}

/// What a node says to an identity of a.
fn packet(from: &str, dst: &Identity, message: foca::Message<Identity>) -> Vec<u8> {
    let src = Identity {
        node: name(from),
        incarnation: 1,
    };
    let header = foca::Header {
        src,
        src_incarnation: 0,
        dst: dst.clone(),
        message,
    };
    let mut packet = Vec::new();
    foca::Codec::encode_header(&mut PacketCodec, &header, &mut packet).unwrap();
    packet
}

/// Has b call a down, and a do what is due then. Returns whether it objected.
fn is_called_down(a: &mut Looker) -> bool {
    let before = a.foca.identity().clone();
    a.take(&packet("b", &before, foca::Message::TurnUndead));
    while let Some(due) = a.outside.take_due(Instant::now()) {
        a.act(due);
    }
    *a.foca.identity() != before
}

#[test]
fn a_node_that_is_called_down_without_end_objects_at_its_pace() {
    let (mut a, start) = (looker("a"), Instant::now());
    let mut objections = 0;
    while start.elapsed() < OBJECT_EVERY * 4 {
        objections += u32::from(is_called_down(&mut a));
    }
    // The last one may have been late.
    assert!((2..=5).contains(&objections), "{objections}");
    assert!(a.outside.agenda.len() < 32, "{}", a.outside.agenda.len());
}

#[test]
fn a_node_that_waits_to_object_does_not_listen() {
    let mut a = looker("a");
    assert!(is_called_down(&mut a), "at once");
    assert!(!is_called_down(&mut a), "it waits");
    let hears = |a: &mut Looker| {
        let me = a.foca.identity().clone();
        a.take(&packet("c", &me, foca::Message::Announce));
        a.member(&name("c")).is_some()
    };
    assert!(!hears(&mut a));
    a.object();
    assert!(hears(&mut a));
}
