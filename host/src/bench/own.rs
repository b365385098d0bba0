//! What one worker has seen of keys, and whether an answer fits that.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use super::draw::{Dice, mix};
use super::reply::Reply;
use super::values::{LOADER, Origin, Values};
use super::workload::Check;

/// What a worker may rely on when it asks about a key. Fixed as it asks: what is acknowledged later may come too late.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// Nothing; any value, or none, is right.
    Nothing,
    /// The key was filled before the run.
    Loaded,
    /// This worker's put of that turn was acknowledged; for counters, it has seen this number.
    Seen(u64),
}

/// An answer that cannot be right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lie {
    /// An acknowledged key is not there.
    Missing,
    /// A value that nobody of this run put there.
    Wrong,
    /// A value from before what this worker knows.
    Stale,
    /// Not what such a command answers.
    Unexpected,
}

impl Lie {
    /// Its name in reports.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Wrong => "wrong",
            Self::Stale => "stale",
            Self::Unexpected => "unexpected",
        }
    }
}

/// Judges an answer that is no error. Gives the number to remember of the key, if there is one.
pub(super) fn judge(
    check: Check,
    known: Known,
    asker: &Asker<'_>,
    reply: Reply<'_>,
) -> Result<Option<u64>, Lie> {
    match (check, reply) {
        (Check::Put, Reply::Simple(b"OK")) => Ok(Some(asker.turn)),
        (Check::Get | Check::GetOwnPut, Reply::Nil) if known == Known::Nothing => Ok(None),
        (Check::Get | Check::GetOwnPut, Reply::Nil) => Err(Lie::Missing),
        (Check::Get | Check::GetOwnPut, Reply::Bulk(value)) => {
            value_fits(known, asker, value).map(|()| None)
        }
        (Check::Increment | Check::Count, Reply::Int(number)) => {
            let number = u64::try_from(number).map_err(|_| Lie::Wrong)?;
            let grown = u64::from(check == Check::Increment);
            match known {
                Known::Seen(before) if number < before.saturating_add(grown) => Err(Lie::Stale),
                _ => Ok(Some(number)),
            }
        }
        (Check::Scan, Reply::Array(_)) => Ok(None),
        (Check::Any, _) => Ok(None),
        _ => Err(Lie::Unexpected),
    }
}

/// Who asked.
pub(super) struct Asker<'a> {
    pub(super) worker: u16,
    /// The turn that a put carries.
    pub(super) turn: u64,
    pub(super) key: u64,
    pub(super) values: &'a Values,
}

fn value_fits(known: Known, asker: &Asker<'_>, value: &[u8]) -> Result<(), Lie> {
    if known == Known::Nothing {
        // It may be from before the run.
        return Ok(());
    }
    match (asker.values.origin(asker.key, value), known) {
        (Origin::Foreign, _) => Err(Lie::Wrong),
        (Origin::Written(stamp), Known::Seen(turn)) => {
            // Of others' puts nobody here knows the order; own ones and what was there before all of them have one.
            let older = stamp.worker == asker.worker && stamp.turn < turn;
            match older || stamp.worker == LOADER {
                true => Err(Lie::Stale),
                false => Ok(()),
            }
        }
        _ => Ok(()),
    }
}

/// The keys that a worker knows something of, at most so many; one more takes the place of any.
#[derive(Debug)]
pub(super) struct Own {
    places: HashMap<u64, usize, BuildHasherDefault<Mixed>>,
    seen: Vec<(u64, u64)>,
    most: usize,
}

impl Own {
    /// Nothing yet.
    pub(super) fn new(most: usize) -> Self {
        Self {
            places: HashMap::default(),
            seen: Vec::new(),
            most: most.max(1),
        }
    }

    /// The number seen of a key.
    pub(super) fn of(&self, key: u64) -> Option<u64> {
        let place = self.places.get(&key)?;
        self.seen.get(*place).map(|(_, number)| *number)
    }

    /// Any of the keys; each is as likely.
    pub(super) fn any(&self, dice: &mut Dice) -> Option<u64> {
        let place = usize::try_from(dice.below(self.seen.len() as u64)).ok()?;
        self.seen.get(place).map(|(key, _)| *key)
    }

    /// Learns a number of a key; one that is not larger is nothing new.
    pub(super) fn learn(&mut self, key: u64, number: u64, dice: &mut Dice) {
        if let Some(place) = self.places.get(&key) {
            if let Some((_, seen)) = self.seen.get_mut(*place) {
                *seen = number.max(*seen);
            }
            return;
        }
        if self.seen.len() < self.most {
            self.places.insert(key, self.seen.len());
            self.seen.push((key, number));
            return;
        }
        let place = usize::try_from(dice.below(self.seen.len() as u64)).unwrap_or_default();
        if let Some(slot) = self.seen.get_mut(place) {
            self.places.remove(&slot.0);
            *slot = (key, number);
            self.places.insert(key, place);
        }
    }
}

/// Keys are numbers that nobody chooses to collide, so two multiplications do.
#[derive(Default)]
struct Mixed(u64);

impl Hasher for Mixed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = mix(self.0 ^ u64::from(*byte));
        }
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = mix(number);
    }
}

#[cfg(test)]
mod tests {
    use super::super::values::Stamp;
    use super::*;

    const KEY: u64 = 7;

    fn judged(check: Check, known: Known, reply: Reply<'_>) -> Result<Option<u64>, Lie> {
        let values = Values::new(1, 40);
        judge(
            check,
            known,
            &Asker {
                worker: 3,
                turn: 20,
                key: KEY,
                values: &values,
            },
            reply,
        )
    }

    fn written(key: u64, worker: u16, turn: u64) -> Vec<u8> {
        let mut value = Vec::new();
        Values::new(1, 40).write(key, Stamp { worker, turn }, &mut value);
        value
    }

    #[test]
    fn a_put_is_acknowledged_by_ok_alone() {
        assert_eq!(
            judged(Check::Put, Known::Nothing, Reply::Simple(b"OK")),
            Ok(Some(20))
        );
        for reply in [
            Reply::Nil,
            Reply::Simple(b"QUEUED"),
            Reply::Int(1),
            Reply::Bulk(b"OK"),
        ] {
            assert_eq!(
                judged(Check::Put, Known::Nothing, reply),
                Err(Lie::Unexpected)
            );
        }
    }

    #[test]
    fn a_read_of_an_acknowledged_put_finds_it_or_something_newer() {
        let known = Known::Seen(9);
        let get = |value: &[u8]| judged(Check::GetOwnPut, known, Reply::Bulk(value));
        assert_eq!(get(&written(KEY, 3, 9)), Ok(None));
        assert_eq!(get(&written(KEY, 3, 10)), Ok(None));
        assert_eq!(
            get(&written(KEY, 4, 1)),
            Ok(None),
            "another worker's put may be newer"
        );
        assert_eq!(get(&written(KEY, 3, 8)), Err(Lie::Stale));
        assert_eq!(get(&written(KEY, LOADER, 0)), Err(Lie::Stale));
        assert_eq!(get(&written(KEY + 1, 3, 9)), Err(Lie::Wrong));
        assert_eq!(get(b"something"), Err(Lie::Wrong));
        assert_eq!(judged(Check::Get, known, Reply::Nil), Err(Lie::Missing));
        assert_eq!(
            judged(Check::Get, known, Reply::Int(1)),
            Err(Lie::Unexpected)
        );
    }

    #[test]
    fn of_a_key_that_nobody_knows_everything_is_right_and_of_a_filled_one_any_value_of_the_run() {
        for reply in [Reply::Nil, Reply::Bulk(b"something")] {
            assert_eq!(judged(Check::Get, Known::Nothing, reply), Ok(None));
        }
        let filled = |value: &[u8]| judged(Check::Get, Known::Loaded, Reply::Bulk(value));
        assert_eq!(filled(&written(KEY, LOADER, 0)), Ok(None));
        assert_eq!(filled(&written(KEY, 3, 1)), Ok(None));
        let nil = judged(Check::Get, Known::Loaded, Reply::Nil);
        assert_eq!(nil, Err(Lie::Missing));
        assert_eq!(filled(b"something"), Err(Lie::Wrong));
    }

    #[test]
    fn counters_never_go_back() {
        let table = [
            (Check::Increment, Known::Nothing, 1, Ok(Some(1))),
            (Check::Increment, Known::Seen(5), 6, Ok(Some(6))),
            (Check::Increment, Known::Seen(5), 5, Err(Lie::Stale)),
            (Check::Count, Known::Seen(5), 5, Ok(Some(5))),
            (Check::Count, Known::Seen(5), 4, Err(Lie::Stale)),
            (Check::Count, Known::Nothing, -1, Err(Lie::Wrong)),
        ];
        for (check, known, number, expected) in table {
            assert_eq!(
                judged(check, known, Reply::Int(number)),
                expected,
                "{check:?} {known:?} {number}"
            );
        }
        assert_eq!(
            judged(Check::Count, Known::Nothing, Reply::Nil),
            Err(Lie::Unexpected)
        );
    }

    #[test]
    fn what_is_remembered_is_the_newest_and_bounded() {
        let mut dice = Dice::of(1, 1);
        let mut own = Own::new(10);
        assert_eq!(own.any(&mut dice), None);
        own.learn(1, 5, &mut dice);
        own.learn(1, 4, &mut dice);
        assert_eq!(own.of(1), Some(5));
        assert_eq!(own.any(&mut dice), Some(1));
        for key in 0..1000 {
            own.learn(key, key, &mut dice);
        }
        assert_eq!((own.seen.len(), own.places.len()), (10, 10));
        for (key, number) in own.seen.clone() {
            assert_eq!((own.of(key), number), (Some(number), number.max(key)));
        }
        let drawn: std::collections::BTreeSet<_> =
            (0..500).filter_map(|_| own.any(&mut dice)).collect();
        assert_eq!(drawn.len(), 10, "each of them is drawn");
    }
}
