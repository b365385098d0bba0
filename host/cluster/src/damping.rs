//! Keeps the set of nodes that are up calm. Pure: the time is handed in.
//!
//! That a node is down is shown at once, so that fallbacks stand in for it. That it is up again is shown at once the first time;
//! a node that keeps going down must stay up for longer and longer before it is shown.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use tokio::time::Instant;
use vnode_ring::NodeName;

use super::peers::Verdict;

/// Downs that are older do not count.
pub const FLAP_WINDOW: Duration = Duration::from_secs(30);

/// How long a node must stay up after its second down within the window. Each further down doubles it.
pub const STAY_UP_FIRST: Duration = Duration::from_millis(500);

/// The longest time that a node must stay up.
pub const STAY_UP_MAX: Duration = Duration::from_secs(8);

/// Downs that are remembered of one node; more would change nothing.
const DOWNS_MAX: usize = 8;

/// For how long a member counts as up that has become known and was not heard of yet. A live one is heard of in less unless its
/// machine is very busy, and a dead one is known to be dead by its link long before. Without this a node that starts again would
/// take itself for the only one, and answer from nothing for all the others.
pub const UNHEARD_UP_FOR: Duration = Duration::from_secs(2);

/// Who is up as seen here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sight {
    /// The nodes that are up, with the one that looks.
    pub up: BTreeSet<NodeName>,
    /// Since when each node is what it is, up or down. A node that was never seen up is missing.
    pub since: BTreeMap<NodeName, Instant>,
}

/// The members of which nothing was heard yet, and since when they are known.
#[derive(Debug, Default)]
pub struct Unheard {
    known: BTreeMap<NodeName, Instant>,
}

impl Unheard {
    /// Those of these members that count as up without having been heard of: known for less than [`UNHEARD_UP_FOR`].
    pub fn among<'a>(
        &mut self,
        members: impl IntoIterator<Item = &'a NodeName>,
        sight: &Sight,
        now: Instant,
    ) -> BTreeSet<NodeName> {
        let before = std::mem::take(&mut self.known);
        let since = |node: &NodeName| before.get(node).copied().unwrap_or(now);
        self.known = members
            .into_iter()
            .map(|node| (node.clone(), since(node)))
            .collect();
        let unheard = self.known.iter().filter(|(node, since)| {
            !sight.since.contains_key(*node) && now.duration_since(**since) < UNHEARD_UP_FOR
        });
        unheard.map(|(node, _)| node.clone()).collect()
    }
}

/// What was seen of each node, and what is shown.
#[derive(Debug, Default)]
pub struct Damping {
    nodes: BTreeMap<NodeName, Track>,
}

#[derive(Debug)]
struct Track {
    seen: Verdict,
    shown: Verdict,
    shown_since: Instant,
    /// When it will be shown up, if it stays up.
    up_at: Option<Instant>,
    downs: VecDeque<Instant>,
}

impl Damping {
    /// Takes in what was seen of a node. The same verdict again changes nothing.
    pub fn saw(&mut self, node: &NodeName, verdict: Verdict, now: Instant) {
        let track = self.nodes.entry(node.clone()).or_insert_with(|| Track {
            seen: Verdict::Down,
            shown: Verdict::Down,
            shown_since: now,
            up_at: None,
            downs: VecDeque::new(),
        });
        if track.seen == verdict {
            return;
        }
        track.seen = verdict;
        match verdict {
            Verdict::Down => track.down(now),
            Verdict::Up => track.up_at = Some(now + track.must_stay_up(now)),
        }
        self.settle(now);
    }

    /// Takes in that a node which was up has started anew, so fast that nobody saw it down.
    pub fn restarted(&mut self, node: &NodeName, now: Instant) {
        if let Some(track) = self.nodes.get_mut(node) {
            track.shown_since = now;
        }
    }

    /// Shows what has become due.
    pub fn settle(&mut self, now: Instant) {
        for track in self.nodes.values_mut() {
            if track.up_at.is_some_and(|at| at <= now) {
                track.up_at = None;
                track.shown = Verdict::Up;
                track.shown_since = now;
            }
        }
    }

    /// When something becomes due next.
    #[must_use]
    pub fn due(&self) -> Option<Instant> {
        self.nodes.values().filter_map(|track| track.up_at).min()
    }

    /// What was seen of a node last, without damping. None: it was never seen.
    #[must_use]
    pub fn seen(&self, node: &NodeName) -> Option<Verdict> {
        self.nodes.get(node).map(|track| track.seen)
    }

    /// What is shown of those nodes.
    #[must_use]
    pub fn sight(&self, of: &BTreeSet<NodeName>) -> Sight {
        let mut sight = Sight {
            up: BTreeSet::new(),
            since: BTreeMap::new(),
        };
        for (node, track) in self.nodes.iter().filter(|(node, _)| of.contains(*node)) {
            sight.since.insert(node.clone(), track.shown_since);
            if track.shown == Verdict::Up {
                sight.up.insert(node.clone());
            }
        }
        sight
    }
}

impl Track {
    fn down(&mut self, now: Instant) {
        self.up_at = None;
        self.downs.push_back(now);
        if self.downs.len() > DOWNS_MAX {
            self.downs.pop_front();
        }
        if self.shown == Verdict::Up {
            self.shown = Verdict::Down;
            self.shown_since = now;
        }
    }

    fn must_stay_up(&self, now: Instant) -> Duration {
        let recent = self
            .downs
            .iter()
            .filter(|&&down| now.duration_since(down) < FLAP_WINDOW)
            .count();
        match u32::try_from(recent).unwrap_or(u32::MAX) {
            0 | 1 => Duration::ZERO,
            more => STAY_UP_FIRST
                .saturating_mul(1 << (more - 2).min(16))
                .min(STAY_UP_MAX),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node() -> NodeName {
        "b".parse().unwrap()
    }

    fn is_shown(damping: &Damping) -> bool {
        damping
            .sight(&BTreeSet::from([node()]))
            .up
            .contains(&node())
    }

    /// For how long the node is not shown after it came up at `now`.
    fn hidden_for(damping: &mut Damping, now: Instant) -> Duration {
        damping.saw(&node(), Verdict::Up, now);
        let due = damping.due().unwrap_or(now);
        assert_eq!(is_shown(damping), due == now);
        damping.settle(due);
        assert!(is_shown(damping));
        due - now
    }

    #[test]
    fn a_node_is_shown_at_once_until_it_flaps() {
        let mut damping = Damping::default();
        let mut now = Instant::now();
        let mut hidden = Vec::new();
        for _ in 0..8 {
            hidden.push(hidden_for(&mut damping, now).as_millis());
            now += Duration::from_millis(100);
            damping.saw(&node(), Verdict::Down, now);
            assert!(!is_shown(&damping));
        }
        assert_eq!(hidden, [0, 0, 500, 1000, 2000, 4000, 8000, 8000]);
        now += FLAP_WINDOW;
        assert_eq!(hidden_for(&mut damping, now), Duration::ZERO);
    }

    #[test]
    fn a_node_that_goes_down_while_hidden_stays_down_since_then() {
        let mut damping = Damping::default();
        let start = Instant::now();
        for verdict in [
            Verdict::Up,
            Verdict::Down,
            Verdict::Up,
            Verdict::Down,
            Verdict::Up,
        ] {
            damping.saw(&node(), verdict, start);
        }
        let later = start + Duration::from_millis(100);
        damping.saw(&node(), Verdict::Down, later);
        assert_eq!(damping.due(), None);
        assert_eq!(
            damping.sight(&BTreeSet::from([node()])).since.get(&node()),
            Some(&start)
        );
    }

    #[test]
    fn a_member_counts_as_up_until_it_is_heard_of_or_should_have_been() {
        let (start, mut unheard) = (Instant::now(), Unheard::default());
        let mut damping = Damping::default();
        let members = BTreeSet::from([node(), "c".parse().unwrap()]);
        let mut among = |damping: &Damping, members: &BTreeSet<NodeName>, after: Duration| {
            let unheard = unheard.among(members, &damping.sight(members), start + after);
            unheard.iter().map(NodeName::to_string).collect::<String>()
        };
        let short = UNHEARD_UP_FOR / 2;
        assert_eq!(among(&damping, &members, Duration::ZERO), "bc");
        damping.saw(&node(), Verdict::Down, start);
        assert_eq!(among(&damping, &members, short), "c");
        assert_eq!(among(&damping, &members, UNHEARD_UP_FOR), "");
        // Whoever leaves and comes back is new again.
        among(&damping, &BTreeSet::from([node()]), UNHEARD_UP_FOR);
        assert_eq!(among(&damping, &members, UNHEARD_UP_FOR + short), "c");
    }

    #[test]
    fn only_the_nodes_asked_for_are_shown() {
        let mut damping = Damping::default();
        damping.saw(&node(), Verdict::Up, Instant::now());
        assert!(damping.sight(&BTreeSet::new()).since.is_empty());
    }
}
