//! How safe a plan is: which replicas share a node or a location, whether that can be helped, and how.

use serde::Deserialize;

use super::output::Session;
use super::table::count;

/// As many partitions are named one by one.
const NAMED: usize = 12;

/// How the replicas are spread once everything has moved.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Safety {
    n: usize,
    nodes: Spread,
    locations: Spread,
    cures: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Spread {
    wanted: usize,
    bad: Vec<u32>,
    unavoidable: usize,
}

impl Safety {
    /// The lines about replicas, for a ring of so many partitions.
    pub(super) fn text(&self, session: &Session<'_>, all: usize) -> String {
        let good = all.saturating_sub(self.nodes.bad.len());
        let mut text = format!(
            "  Replicas:  n={} on distinct nodes for {good} of {all} partitions\n",
            self.n
        );
        text.push_str(&bad(session, &self.nodes, "on one node", all, &self.cures));
        if self.locations_matter() {
            let spread = &self.locations;
            let good = all.saturating_sub(spread.bad.len());
            text.push_str(&format!(
                "             in {} distinct locations for {good} of {all} partitions\n",
                spread.wanted
            ));
            let told = !self.nodes.bad.is_empty();
            let cures = if told { &[][..] } else { &self.cures };
            text.push_str(&bad(session, spread, "in one location", all, cures));
        }
        text
    }

    /// A node without a location counts as one, so that what is said of nodes is mostly all that there is to say.
    fn locations_matter(&self) -> bool {
        let Spread { wanted, bad, .. } = &self.locations;
        let fewer = (2..self.nodes.wanted).contains(wanted);
        let worse = bad.iter().any(|p| !self.nodes.bad.contains(p));
        worse || (fewer && self.nodes.bad.is_empty())
    }
}

/// A line about the partitions that are not spread well, if there are any.
fn bad(
    session: &Session<'_>,
    spread: &Spread,
    place: &str,
    all: usize,
    cures: &[String],
) -> String {
    let found = spread.bad.len();
    if found == 0 {
        return String::new();
    }
    let unavoidable = match spread.unavoidable {
        0 => String::new(),
        some if some >= found => ", unavoidable with these members".into(),
        some => format!(", unavoidable with these members for {some} of them"),
    };
    let cures = match cures {
        [] => String::new(),
        cures => format!("; {} would fix this", cures.join(" or ")),
    };
    let keep = if found == 1 { "keeps" } else { "keep" };
    format!(
        "  {} {} {keep} two or more replicas {place}{unavoidable}{cures}\n",
        session.bad("!"),
        partitions(&spread.bad, all),
    )
}

/// `partition 3`, `partitions 62, 63`, `all 64 partitions`, and only how many when naming them would be long.
fn partitions(bad: &[u32], all: usize) -> String {
    if bad.len() == all && all > 1 {
        return format!("all {all} partitions");
    }
    if bad.len() > NAMED {
        return count(bad.len(), "partition");
    }
    let names: Vec<String> = bad.iter().map(u32::to_string).collect();
    let plural = if bad.len() == 1 { "" } else { "s" };
    format!("partition{plural} {}", names.join(", "))
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use serde_json::json;

    use super::super::Cli;
    use super::*;

    /// The lines for 64 partitions where at least one list has to be bad.
    fn text(nodes: (usize, Vec<u32>), locations: (usize, Vec<u32>)) -> String {
        let spread = |(wanted, bad)| Spread {
            wanted,
            bad,
            unavoidable: 1,
        };
        let safety = Safety {
            n: 3,
            nodes: spread(nodes),
            locations: spread(locations),
            cures: vec!["1 more node".into(), "n=2".into()],
        };
        let cli = Cli::parse_from(["host", "--color", "never"]);
        safety.text(&Session::new(&cli.global, &mut Vec::new()), 64)
    }

    #[test]
    fn unsafe_partitions_are_named_or_counted() {
        assert_eq!(
            text((3, (0..64).collect()), (1, vec![])),
            "  Replicas:  n=3 on distinct nodes for 0 of 64 partitions
  ! all 64 partitions keep two or more replicas on one node, unavoidable with these members for 1 of them; 1 more node or n=2 would fix this
"
        );
        assert_eq!(
            text((3, vec![63]), (3, vec![63])),
            "  Replicas:  n=3 on distinct nodes for 63 of 64 partitions
  ! partition 63 keeps two or more replicas on one node, unavoidable with these members; 1 more node or n=2 would fix this
"
        );
        let many = text((3, (0..20).collect()), (3, vec![]));
        assert!(many.contains("  ! 20 partitions keep two"), "{many}");
    }

    #[test]
    fn locations_are_told_where_they_say_more_than_nodes() {
        let safe = "  Replicas:  n=3 on distinct nodes for 64 of 64 partitions\n";
        assert_eq!(text((3, vec![]), (3, vec![])), safe);
        assert_eq!(text((3, vec![]), (1, vec![])), safe);
        assert_eq!(
            text((3, vec![]), (2, vec![])),
            format!("{safe}             in 2 distinct locations for 64 of 64 partitions\n")
        );
        assert_eq!(
            text((3, vec![]), (3, vec![4, 5])),
            format!(
                "{safe}             in 3 distinct locations for 62 of 64 partitions
  ! partitions 4, 5 keep two or more replicas in one location, unavoidable with these members for 1 of them; 1 more node or n=2 would fix this
"
            )
        );
    }

    #[test]
    fn what_can_be_helped_is_not_called_unavoidable() {
        let safety: Safety = serde_json::from_value(
            json!({"n": 3, "nodes": {"wanted": 3, "bad": [1], "unavoidable": 0}}),
        )
        .unwrap();
        let cli = Cli::parse_from(["host", "--color", "never"]);
        let text = safety.text(&Session::new(&cli.global, &mut Vec::new()), 64);
        assert!(
            text.ends_with("\n  ! partition 1 keeps two or more replicas on one node\n"),
            "{text}"
        );
    }
}
