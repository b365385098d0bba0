//! Which links carry what, whatever several faults do to the same ones.

use std::collections::BTreeMap;

use turmoil::Sim;

/// What happens to a message from one machine to another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum State {
    /// It arrives.
    #[default]
    Open,
    /// It is gone, and with it the connection.
    Lost,
    /// It arrives when the link is open again, as TCP sends again what was not acknowledged. Both ways.
    Held,
}

/// All links, from and to.
#[derive(Default)]
pub(crate) struct Links {
    now: BTreeMap<(&'static str, &'static str), State>,
}

impl Links {
    /// Makes the links what `wanted` says of each.
    pub(crate) fn set(
        &mut self,
        sim: &Sim<'_>,
        machines: &[&'static str],
        wanted: impl Fn(&'static str, &'static str) -> State,
    ) {
        for (nth, one) in machines.iter().copied().enumerate() {
            for other in machines[..nth].iter().copied() {
                let (there, back) = (wanted(one, other), wanted(other, one));
                let held = there == State::Held || back == State::Held;
                self.set_pair(sim, (one, other), (there, back), held);
            }
        }
    }

    fn set_pair(
        &mut self,
        sim: &Sim<'_>,
        (one, other): (&'static str, &'static str),
        (there, back): (State, State),
        held: bool,
    ) {
        let is = |links: &Links, from, to| links.now.get(&(from, to)).copied().unwrap_or_default();
        let was_held = is(self, one, other) == State::Held;
        if held {
            if !was_held {
                sim.hold(one, other);
            }
            self.now.insert((one, other), State::Held);
            self.now.insert((other, one), State::Held);
            return;
        }
        if was_held {
            sim.release(one, other);
            self.now.insert((one, other), State::Open);
            self.now.insert((other, one), State::Open);
        }
        for (from, to, wanted) in [(one, other, there), (other, one, back)] {
            match (is(self, from, to), wanted) {
                (State::Open, State::Lost) => sim.partition_oneway(from, to),
                (State::Lost, State::Open) => sim.repair_oneway(from, to),
                _ => {}
            }
            self.now.insert((from, to), wanted);
        }
    }
}
