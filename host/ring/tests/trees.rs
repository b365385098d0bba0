//! Hash trees on random rows: kept up to date, or built by a scan amid writes, they equal a tree built at once.
#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "what goes wrong here fails the test, as it should"
)]

use std::collections::{BTreeMap, VecDeque};

use proptest::prelude::*;
use vnode_ring::{LEAVES, Leaves, PartitionId, RingSize, Tree, TreeRow};

/// Hash prefix and key.
type Position = (u64, Vec<u8>);
type Rows = BTreeMap<Position, TreeRow>;

const RANGE: PartitionId = PartitionId::from_id(3);

fn size() -> RingSize {
    RingSize::new(8).unwrap()
}

/// One of a few positions, so that rows are met again: in few leaves, some with one hash for several keys, as hash tags make
/// them, and at both ends of the range.
fn position() -> impl Strategy<Value = Position> {
    let (first, last) = size().hash_range(RANGE);
    let hash = prop_oneof![
        Just(first),
        Just(last),
        (0..4_u64).prop_map(move |at| first + (at << 52)),
        first..=last
    ];
    let key = prop_oneof![
        Just(vec![]),
        (0..3_u8).prop_map(|key| vec![key]),
        (0..2_u8).prop_map(|key| vec![0, key])
    ];
    (hash, key)
}

fn row() -> impl Strategy<Value = TreeRow> {
    (0..6_u64, any::<bool>()).prop_map(|(digest, live)| TreeRow { digest, live })
}

/// What happens while a tree is built.
#[derive(Clone, Debug)]
enum Step {
    /// A row is written, or dropped.
    Write(Position, Option<TreeRow>),
    /// The scan reads so many rows, and hands them over at once.
    Page(usize),
    /// The scan goes on through the end of a leaf and takes a snapshot, to be read later.
    Snapshot(u16),
    /// So many rows of the snapshots are handed over.
    Deliver(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (position(), proptest::option::weighted(0.8, row())).prop_map(|(at, row)| Step::Write(at, row)),
        1 => (1..4_usize).prop_map(Step::Page),
        1 => prop_oneof![0..9_u16, 0..LEAVES].prop_map(Step::Snapshot),
        1 => (1..4_usize).prop_map(Step::Deliver),
    ]
}

/// A vnode with a tree under construction.
struct Scan {
    rows: Rows,
    tree: Tree,
    /// The first position that the scan has not reached.
    next: Position,
    undelivered: VecDeque<(Position, TreeRow)>,
}

impl Scan {
    fn play(&mut self, step: &Step) {
        match step {
            Step::Write(at, new) => {
                let old = match new {
                    Some(row) => self.rows.insert(at.clone(), *row),
                    None => self.rows.remove(at),
                };
                self.tree.update(at.0, &at.1, old, *new);
            }
            Step::Page(count) => {
                let page: Vec<(Position, TreeRow)> = self.ahead().take(*count).collect();
                if let Some((last, _)) = page.last() {
                    self.tree.advance(last.0, Some(&last.1));
                    self.next = (last.0, [&last.1[..], &[0]].concat());
                }
                for (at, row) in page {
                    self.tree.scanned(at.0, &at.1, row);
                }
            }
            Step::Snapshot(leaf) => {
                let (_, to) = self.tree.leaf_range(*leaf).unwrap();
                if to >= self.next.0 {
                    self.tree.advance(to, None);
                    let snapshot: Vec<_> = self.ahead().take_while(|(at, _)| at.0 <= to).collect();
                    self.undelivered.extend(snapshot);
                    self.next = (to + 1, Vec::new());
                }
            }
            Step::Deliver(count) => {
                let count = self.undelivered.len().min(*count);
                for (at, row) in self.undelivered.drain(..count) {
                    self.tree.scanned(at.0, &at.1, row);
                }
            }
        }
    }

    /// The rows that the scan has not reached.
    fn ahead(&self) -> impl Iterator<Item = (Position, TreeRow)> {
        let rows = self.rows.range(self.next.clone()..);
        rows.map(|(at, row)| (at.clone(), *row))
    }
}

fn at_once(rows: &Rows) -> Tree {
    let mut tree = Tree::new(size(), RANGE);
    for ((hash, key), row) in rows {
        tree.update(*hash, key, None, Some(*row));
    }
    tree
}

fn rows() -> impl Strategy<Value = Rows> {
    proptest::collection::btree_map(position(), row(), 0..20)
}

proptest! {
    #[test]
    fn a_scan_amid_writes_gives_the_tree_built_at_once(
        rows in rows(),
        steps in proptest::collection::vec(step(), 0..60),
    ) {
        let (first, _) = size().hash_range(RANGE);
        let tree = Tree::building(size(), RANGE);
        let next = (first, Vec::new());
        let mut scan = Scan { rows, tree, next, undelivered: VecDeque::new() };
        for step in &steps {
            scan.play(step);
            prop_assert_eq!(scan.tree.root(), None, "not before it is complete");
        }
        for step in [Step::Page(usize::MAX), Step::Deliver(usize::MAX)] {
            scan.play(&step);
        }
        scan.tree.finish();
        prop_assert_eq!(&scan.tree, &at_once(&scan.rows));
        for step in steps.iter().filter(|step| matches!(step, Step::Write(..))) {
            scan.play(step);
        }
        prop_assert_eq!(&scan.tree, &at_once(&scan.rows), "writes go on after it");
        let live = scan.rows.values().filter(|row| row.live).count();
        prop_assert_eq!(scan.tree.live(), Some(live as u64));
    }

    #[test]
    fn replicas_differ_exactly_in_the_leaves_of_rows_that_differ(ours in rows(), theirs in rows()) {
        let (our_tree, their_tree) = (at_once(&ours), at_once(&theirs));
        let mut bytes = Vec::new();
        their_tree.leaves().unwrap().encode(&mut bytes);
        let received = Leaves::decode(&bytes).unwrap();
        prop_assert_eq!(Some(received.root()), their_tree.root());
        let differs = |leaf: &u16| {
            let (from, to) = our_tree.leaf_range(*leaf).unwrap();
            let part = |rows: &Rows| {
                let rows = rows.iter().filter(|((hash, _), _)| (from..=to).contains(hash));
                rows.map(|(at, row)| (at.clone(), row.digest)).collect::<Vec<_>>()
            };
            part(&ours) != part(&theirs)
        };
        let expected: Vec<u16> = (0..LEAVES).filter(differs).collect();
        let found = our_tree.leaves().unwrap().differing(&received);
        prop_assert_eq!(our_tree.root() == their_tree.root(), expected.is_empty());
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn random_bytes_are_no_leaves(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
        prop_assert!(Leaves::decode(&bytes).is_err());
    }
}
