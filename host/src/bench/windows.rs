//! What came of the operations, window by window.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::{CreationError, Histogram};

/// Decimal digits of a latency that are kept: an error of at most one in a thousand.
const DIGITS: u8 = 3;

/// One operation in one window.
#[derive(Clone, Debug)]
pub(crate) struct Cell {
    /// Answers that were right.
    pub(crate) successful: u64,
    /// Answers that were errors or wrong, and answers that did not come.
    pub(crate) failed: u64,
    /// Microseconds of the successful ones. Failed ones are not in it: a refusal that comes at once is not fast.
    pub(super) latency: Histogram<u64>,
}

impl Cell {
    /// Nothing yet; others are clones of it.
    ///
    /// # Errors
    /// Never, as three digits are possible; the library cannot know.
    pub(super) fn empty() -> Result<Self, CreationError> {
        let latency = Histogram::new(DIGITS)?;
        Ok(Self {
            successful: 0,
            failed: 0,
            latency,
        })
    }

    /// The latency that this share of the operations did not exceed, in microseconds.
    pub(crate) fn micros_at(&self, quantile: f64) -> u64 {
        self.latency.value_at_quantile(quantile)
    }

    /// Takes the other's in.
    pub(super) fn add(&mut self, other: &Self) {
        self.successful += other.successful;
        self.failed += other.failed;
        // Histograms that grow take in all others.
        let _ = self.latency.add(&other.latency);
    }
}

/// One window of all operations, as one thread or all of them saw it.
#[derive(Clone, Debug)]
pub(crate) struct Window {
    /// Counted from 0.
    pub(super) number: usize,
    /// From the start of the run.
    pub(super) from: Duration,
    /// From the start of the run.
    pub(super) until: Duration,
    /// In the order of the workload's operations.
    pub(super) cells: Vec<Cell>,
}

impl Window {
    /// When it ended, from the start of the run.
    pub(crate) fn until(&self) -> Duration {
        self.until
    }

    /// How long it was.
    pub(crate) fn length(&self) -> Duration {
        self.until.saturating_sub(self.from)
    }

    /// All operations together; a workload has at least one.
    pub(crate) fn whole(&self) -> Option<Cell> {
        let (first, others) = self.cells.split_first()?;
        let mut all = first.clone();
        others.iter().for_each(|other| all.add(other));
        Some(all)
    }

    /// Takes in what another thread saw of the same window.
    pub(super) fn add(&mut self, other: &Self) {
        self.until = self.until.max(other.until);
        for (own, other) in self.cells.iter_mut().zip(&other.cells) {
            own.add(other);
        }
    }
}

/// The windows of one thread: one is open, those before it have been handed over.
#[derive(Debug)]
pub(super) struct Windows {
    length: Duration,
    /// The last one stays open until the last answer is there.
    last: usize,
    empty: Vec<Cell>,
    open: Window,
}

impl Windows {
    /// Windows of that length for a run of that duration, with an empty cell for each operation.
    pub(super) fn new(empty: Vec<Cell>, length: Duration, duration: Duration) -> Self {
        let count = duration.as_nanos().div_ceil(length.as_nanos().max(1));
        Self {
            length,
            last: usize::try_from(count.saturating_sub(1)).unwrap_or(usize::MAX),
            open: window(0, Duration::ZERO, empty.clone()),
            empty,
        }
    }

    /// Counts an answer that was right.
    pub(super) fn succeed(&mut self, operation: usize, latency: Duration) {
        if let Some(cell) = self.open.cells.get_mut(operation) {
            cell.successful += 1;
            // Less than a microsecond is one: a histogram has no place for less.
            let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
            // It grows with what it is shown, so it takes everything; saturating would clamp to what it has room for now.
            let _ = cell.latency.record(micros.max(1));
        }
    }

    /// Counts one that was not, or did not come.
    pub(super) fn fail(&mut self, operation: usize) {
        if let Some(cell) = self.open.cells.get_mut(operation) {
            cell.failed += 1;
        }
    }

    /// When the open window ends, from the start of the run; never for the last one.
    pub(super) fn ends(&self) -> Option<Duration> {
        (self.open.number < self.last).then(|| self.open.from + self.length)
    }

    /// Hands over the oldest window that is over.
    pub(super) fn next(&mut self, elapsed: Duration) -> Option<Window> {
        let end = self.ends().filter(|end| *end <= elapsed)?;
        let next = window(self.open.number + 1, end, self.empty.clone());
        let mut window = std::mem::replace(&mut self.open, next);
        window.until = end;
        Some(window)
    }

    /// Hands over the open window, which ends now: the last one.
    pub(super) fn end(mut self, elapsed: Duration) -> Window {
        self.open.until = elapsed.max(self.open.from);
        self.open
    }
}

fn window(number: usize, from: Duration, cells: Vec<Cell>) -> Window {
    Window {
        number,
        from,
        until: from,
        cells,
    }
}

/// Why operations failed: by operation and kind, how often, and the words of the first one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Failures(pub(super) BTreeMap<(usize, String), (u64, String)>);

impl Failures {
    /// Counts one.
    pub(super) fn add(&mut self, operation: usize, kind: &str, words: impl FnOnce() -> String) {
        let failures = self.0.entry((operation, kind.to_owned()));
        failures.or_insert_with(|| (0, words())).0 += 1;
    }

    /// Takes in another thread's.
    pub(super) fn merge(&mut self, other: Self) {
        for (place, (count, words)) in other.0 {
            self.0.entry(place).or_insert((0, words)).0 += count;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn cells(count: usize) -> Vec<Cell> {
        vec![Cell::empty().unwrap(); count]
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn idle_seconds_are_windows_too() {
        let mut windows = Windows::new(cells(1), SECOND, ms(5000));
        windows.succeed(0, ms(3));
        assert!(windows.next(ms(999)).is_none());
        let closed: Vec<(usize, u64)> = std::iter::from_fn(|| windows.next(ms(3500)))
            .map(|window| (window.number, window.cells[0].successful))
            .collect();
        assert_eq!(closed, [(0, 1), (1, 0), (2, 0)]);
        assert_eq!(windows.ends(), Some(ms(4000)));
    }

    #[test]
    fn the_last_window_waits_for_the_last_answers() {
        let mut windows = Windows::new(cells(1), SECOND, ms(1500));
        assert_eq!(
            windows.next(ms(1000)).map(|window| window.until),
            Some(SECOND)
        );
        assert_eq!(windows.ends(), None);
        assert!(windows.next(ms(9000)).is_none());
        windows.fail(0);
        let last = windows.end(ms(1700));
        assert_eq!(
            (last.number, last.from, last.until, last.cells[0].failed),
            (1, SECOND, ms(1700), 1)
        );
    }

    #[test]
    fn latencies_are_kept_to_three_digits_and_failures_are_none() {
        let mut windows = Windows::new(cells(2), SECOND, SECOND);
        for latency in [
            Duration::from_nanos(10),
            ms(1),
            ms(2),
            Duration::from_secs(100),
        ] {
            windows.succeed(1, latency);
        }
        windows.fail(1);
        let cell = &windows.end(SECOND).cells[1];
        assert_eq!(
            (cell.successful, cell.failed, cell.latency.len()),
            (4, 1, 4)
        );
        assert_eq!(cell.latency.min(), 1);
        assert!((100_000_000..=100_100_000).contains(&cell.latency.max()));
    }

    #[test]
    fn failures_are_counted_by_operation_and_kind_with_the_first_words() {
        let mut all = Failures::default();
        for (operation, kind, words) in [
            (0, "TIMEOUT", "a"),
            (1, "TIMEOUT", "b"),
            (0, "ERR", "c"),
            (0, "TIMEOUT", "d"),
        ] {
            all.add(operation, kind, || words.into());
        }
        let mut other = Failures::default();
        other.add(0, "TIMEOUT", || "e".into());
        all.merge(other);
        let rows: Vec<_> = all
            .0
            .iter()
            .map(|((op, kind), (count, words))| (*op, kind.as_str(), *count, words.as_str()))
            .collect();
        assert_eq!(
            rows,
            [
                (0, "ERR", 1, "c"),
                (0, "TIMEOUT", 3, "a"),
                (1, "TIMEOUT", 1, "b")
            ]
        );
    }

    proptest! {
        #[test]
        fn every_answer_is_in_one_window_and_windows_follow_each_other(steps in prop::collection::vec((0..700_u64, 0..3_u8), 0..60), duration in 1..20_000_u64) {
            let mut windows = Windows::new(cells(1), SECOND, ms(duration));
            let (mut now, mut good, mut bad) = (0, 0, 0);
            let mut closed = Vec::new();
            for (step, what) in steps {
                now += step;
                closed.extend(std::iter::from_fn(|| windows.next(ms(now))));
                match what {
                    0 => { windows.fail(0); bad += 1; }
                    _ => { windows.succeed(0, ms(1)); good += 1; }
                }
            }
            closed.push(windows.end(ms(now)));
            prop_assert_eq!(closed.iter().map(|window| window.cells[0].successful).sum::<u64>(), good);
            prop_assert_eq!(closed.iter().map(|window| window.cells[0].failed).sum::<u64>(), bad);
            for (number, window) in closed.iter().enumerate() {
                prop_assert_eq!(window.number, number);
                prop_assert_eq!(window.from, SECOND * u32::try_from(number).unwrap());
                prop_assert!(number + 1 == closed.len() || window.until == window.from + SECOND);
            }
            prop_assert!(closed.len() as u64 <= duration.div_ceil(1000));
        }
    }
}
