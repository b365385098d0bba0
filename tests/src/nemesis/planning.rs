//! Draws troubles one after the other, each with its end, and keeps them from getting in each other's way.

use std::collections::BTreeMap;

use super::{Fault, Limits, Step, Trouble};
use crate::dice::Dice;

/// The steps of this seed.
pub(super) fn steps(seed: u64, limits: &Limits) -> Vec<Step> {
    let mut planning = Planning {
        limits,
        dice: Dice::new(seed),
        now: 0,
        steps: Vec::new(),
        down: BTreeMap::new(),
        clocks: BTreeMap::new(),
        links: BTreeMap::new(),
        cuts: Vec::new(),
    };
    loop {
        // Without a gap there would be no end of it.
        planning.now += planning.dice.within(&limits.gap_ms).max(1);
        if planning.now + limits.lasts_ms.start().max(&1) > limits.length_ms {
            break;
        }
        planning.trouble();
    }
    // At one time what heals comes first, or limits would be broken for a moment.
    let mut steps = planning.steps;
    steps.sort_by_key(|step| (step.at_ms, !step.heals));
    steps
}

struct Planning<'a> {
    limits: &'a Limits,
    dice: Dice,
    now: u64,
    steps: Vec<Step>,
    /// Until when each node is down that was ever taken down.
    down: BTreeMap<u32, u64>,
    /// The same for clocks that are off, links that are cut, and cuts as a whole.
    clocks: BTreeMap<u32, u64>,
    links: BTreeMap<(u32, u32), u64>,
    cuts: Vec<u64>,
}

impl Planning<'_> {
    /// One trouble of the first kind that is possible now, if any is.
    fn trouble(&mut self) {
        let kinds = self.limits.troubles.len();
        let first = self.dice.index(kinds);
        let end = self.now + self.dice.within(&self.limits.lasts_ms).max(1);
        let end = end.min(self.limits.length_ms);
        let troubles = self.limits.troubles.iter().cycle();
        for trouble in troubles.skip(first).take(kinds) {
            let done = match trouble {
                Trouble::Kill => self.down(end, true),
                Trouble::Pause => self.down(end, false),
                Trouble::Cut => self.cut(end, false),
                Trouble::CutOneWay => self.cut(end, true),
                Trouble::Split => self.split(end),
                Trouble::ClockStep => self.clock(end),
            };
            if done.is_some() {
                return;
            }
        }
    }

    fn down(&mut self, end: u64, kill: bool) -> Option<()> {
        let down = self.down.values().filter(|until| **until > self.now);
        if down.count() >= self.limits.down_max as usize {
            return None;
        }
        let node = self.idle_node(|planning| &planning.down)?;
        self.down.insert(node, end);
        let (worse, better) = match kill {
            true => (Fault::Kill { node }, Fault::Restart { node }),
            false => (Fault::Pause { node }, Fault::Resume { node }),
        };
        self.between(worse, better, end);
        Some(())
    }

    fn clock(&mut self, end: u64) -> Option<()> {
        let node = self.idle_node(|planning| &planning.clocks)?;
        self.clocks.insert(node, end);
        let most = u64::from(self.limits.clock_step_ms_max);
        let by_ms = i64::try_from(self.dice.within(&(1..=most.max(1)))).unwrap_or(1);
        let by_ms = if self.dice.percent(50) { by_ms } else { -by_ms };
        let worse = Fault::ClockStep { node, by_ms };
        let by_ms = -by_ms;
        self.between(worse, Fault::ClockStep { node, by_ms }, end);
        Some(())
    }

    fn cut(&mut self, end: u64, one_way: bool) -> Option<()> {
        self.may_cut()?;
        let nodes = 1..=self.limits.nodes;
        let pairs =
            nodes.flat_map(|one| (one + 1..=self.limits.nodes).map(move |other| (one, other)));
        let whole: Vec<(u32, u32)> = pairs.filter(|pair| self.is_whole(*pair)).collect();
        let (one, other) = *whole.get(self.dice.index(whole.len()))?;
        let worse = match (one_way, self.dice.percent(50)) {
            (false, _) => Fault::Cut { one, other },
            (true, true) => Fault::CutOneWay {
                from: one,
                to: other,
            },
            (true, false) => Fault::CutOneWay {
                from: other,
                to: one,
            },
        };
        self.cuts.push(end);
        self.links.insert((one, other), end);
        self.between(worse, Fault::Heal { one, other }, end);
        Some(())
    }

    fn split(&mut self, end: u64) -> Option<()> {
        self.may_cut()?;
        let largest = u64::from(self.limits.nodes.saturating_sub(1) / 2);
        if largest == 0 {
            return None;
        }
        let size = self.dice.within(&(1..=largest));
        let mut majority: Vec<u32> = (1..=self.limits.nodes).collect();
        let minority: Vec<u32> = (0..size)
            .map(|_| majority.swap_remove(self.dice.index(majority.len())))
            .collect();
        let mut pairs = Vec::new();
        for one in &minority {
            let with = |other: &u32| (*one.min(other), *one.max(other));
            pairs.extend(majority.iter().map(with));
        }
        // What another cut holds stays with it, and heals with it.
        pairs.retain(|pair| self.is_whole(*pair));
        if pairs.is_empty() {
            return None;
        }
        let at_once = self.dice.percent(50);
        for (one, other) in pairs {
            let half = (self.now + 1).midpoint(end);
            let heals = if at_once {
                end
            } else {
                self.dice.within(&(half..=end))
            };
            self.links.insert((one, other), heals);
            self.between(Fault::Cut { one, other }, Fault::Heal { one, other }, heals);
        }
        self.cuts.push(end);
        Some(())
    }

    fn may_cut(&self) -> Option<()> {
        let cuts = self.cuts.iter().filter(|until| **until > self.now);
        (cuts.count() < self.limits.cuts_max).then_some(())
    }

    fn is_whole(&self, pair: (u32, u32)) -> bool {
        self.links.get(&pair).is_none_or(|until| *until <= self.now)
    }

    /// A node that is not in that kind of trouble.
    fn idle_node(&mut self, busy: fn(&Self) -> &BTreeMap<u32, u64>) -> Option<u32> {
        let idle = |node: &u32| busy(self).get(node).is_none_or(|until| *until <= self.now);
        let nodes: Vec<u32> = (1..=self.limits.nodes).filter(idle).collect();
        nodes.get(self.dice.index(nodes.len())).copied()
    }

    fn between(&mut self, worse: Fault, better: Fault, end: u64) {
        self.steps.push(Step {
            at_ms: self.now,
            heals: false,
            fault: worse,
        });
        self.steps.push(Step {
            at_ms: end,
            heals: true,
            fault: better,
        });
    }
}
