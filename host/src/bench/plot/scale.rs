//! Axes: where a value stands, and which places are named.

use crate::bench::figures::{compact, latency, short};

/// An axis in mapped units: seconds, operations, log10 of microseconds, nines.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::bench) struct Axis {
    pub(in crate::bench) label: String,
    from: f64,
    to: f64,
    /// Places that are named.
    pub(in crate::bench) ticks: Vec<(f64, String)>,
}

impl Axis {
    /// Seconds from the start of a run.
    pub(in crate::bench) fn seconds(end: f64) -> Self {
        let end = end.max(0.001);
        let step = step(end / 9.0);
        let ticks = multiples(step, end);
        Self {
            label: "seconds from the start".into(),
            from: 0.0,
            to: end,
            ticks: ticks.map(|tick| (tick, short(tick, 3))).collect(),
        }
    }

    /// Zero to something round above the largest value.
    pub(in crate::bench) fn from_zero(label: &str, largest: f64) -> Self {
        let largest = if largest > 0.0 { largest } else { 1.0 };
        let step = step(largest / 5.0);
        let to = (largest / step).ceil() * step;
        let ticks = multiples(step, to).map(|tick| (tick, compact(tick)));
        Self {
            label: label.into(),
            from: 0.0,
            to,
            ticks: ticks.collect(),
        }
    }

    /// Microseconds by their powers of ten, from something round below the smallest to something round above the largest.
    pub(in crate::bench) fn latency(smallest: f64, largest: f64) -> Self {
        let round = |log: f64, up: bool| {
            let (decade, rest) = (log.floor(), log - log.floor());
            let mut steps = LOG_STEPS.into_iter();
            let found = match up {
                true => steps.find(|step| *step >= rest - 1e-9),
                false => steps.rfind(|step| *step <= rest + 1e-9),
            };
            decade + found.unwrap_or_default()
        };
        let smallest = log(smallest.max(1.0));
        let (from, to) = (
            round(smallest, false),
            round(log(largest.max(1.0)).max(smallest + 0.01), true),
        );
        // Twos and fives are named where there is room for them.
        let fine = to - from < 3.1;
        let mut ticks = Vec::new();
        let mut decade = from.floor();
        while decade <= to {
            for step in LOG_STEPS
                .into_iter()
                .take(3)
                .filter(|step| fine || *step == 0.0)
            {
                let at = decade + step;
                if (from - 1e-9..=to + 1e-9).contains(&at) {
                    ticks.push((at, name(at)));
                }
            }
            decade += 1.0;
        }
        Self {
            label: "latency".into(),
            from,
            to,
            ticks,
        }
    }

    /// Percentiles by their nines, as HdrHistogram draws them: each step to the right leaves out a tenth of what the last one left.
    pub(in crate::bench) fn percentiles(operations: u64) -> Self {
        let to = nines_of(operations).max(1.0);
        let mut ticks: Vec<(f64, String)> = [0.0, 50.0]
            .map(|percent| (nines(percent), format!("{percent}%")))
            .into();
        let mut number = 1.0;
        let mut name = String::from("90");
        while number <= to + 1e-9 {
            ticks.push((number, format!("{name}%")));
            name = match number {
                1.0 => "99".into(),
                2.0 => "99.9".into(),
                _ => format!("{name}9"),
            };
            number += 1.0;
        }
        Self {
            label: "percentile".into(),
            from: 0.0,
            to,
            ticks,
        }
    }

    /// How far from the start of the axis to its end a value is: 0 to 1.
    pub(in crate::bench) fn share(&self, value: f64) -> f64 {
        ((value - self.from) / (self.to - self.from)).clamp(0.0, 1.0)
    }
}

/// 1, 2, 5 and 10 as powers of ten.
const LOG_STEPS: [f64; 4] = [
    0.0,
    std::f64::consts::LOG10_2,
    1.0 - std::f64::consts::LOG10_2,
    1.0,
];

/// Microseconds on a logarithmic axis.
pub(in crate::bench) fn log(micros: f64) -> f64 {
    micros.max(1.0).log10()
}

/// A percentile on an axis of nines: 0 is 0, 90 is 1, 99 is 2. All of them is infinitely far.
pub(in crate::bench) fn nines(percentile: f64) -> f64 {
    -((100.0 - percentile).max(0.0) / 100.0).log10()
}

/// Where the slowest of so many operations stands.
pub(in crate::bench) fn nines_of(operations: u64) -> f64 {
    (operations.max(1) as f64).log10()
}

/// `50 µs` for a place on a logarithmic axis.
fn name(at: f64) -> String {
    let text = latency(10_f64.powf(at).round());
    // 1.00 ms and 10.0 ms are exact here.
    match text.split_once(' ') {
        Some((number, unit)) if number.contains('.') => {
            format!(
                "{} {unit}",
                number.trim_end_matches('0').trim_end_matches('.')
            )
        }
        _ => text,
    }
}

/// 1, 2 or 5 times a power of ten, at least as large.
fn step(least: f64) -> f64 {
    let decade = 10_f64.powf(least.log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0].map(|step| step * decade);
    steps
        .into_iter()
        .find(|step| *step >= least * (1.0 - 1e-9))
        .unwrap_or(decade * 10.0)
}

fn multiples(step: f64, end: f64) -> impl Iterator<Item = f64> {
    (0..1000_u32)
        .map(move |number| f64::from(number) * step)
        .take_while(move |tick| *tick <= end * (1.0 + 1e-9))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn names(axis: &Axis) -> Vec<&str> {
        axis.ticks.iter().map(|(_, name)| name.as_str()).collect()
    }

    #[test]
    fn round_places_are_named() {
        assert_eq!(
            names(&Axis::seconds(60.0)),
            ["0", "10", "20", "30", "40", "50", "60"]
        );
        assert_eq!(names(&Axis::seconds(2.0)), ["0", "0.5", "1", "1.5", "2"]);
        assert_eq!(
            names(&Axis::from_zero("", 187_000.0)),
            ["0", "50k", "100k", "150k", "200k"]
        );
        assert_eq!(
            names(&Axis::from_zero("", 0.0)),
            ["0", "0.2", "0.4", "0.6", "0.8", "1"]
        );
        assert_eq!(
            names(&Axis::latency(30.0, 900.0)),
            ["20 µs", "50 µs", "100 µs", "200 µs", "500 µs", "1 ms"]
        );
        assert_eq!(
            names(&Axis::latency(30.0, 2e6)),
            ["100 µs", "1 ms", "10 ms", "100 ms", "1 s"]
        );
        assert_eq!(
            names(&Axis::percentiles(20_000)),
            ["0%", "50%", "90%", "99%", "99.9%", "99.99%"]
        );
    }

    #[test]
    fn each_nine_is_as_far_from_the_last() {
        for (percentile, place) in [
            (0.0, 0.0),
            (90.0, 1.0),
            (99.0, 2.0),
            (99.9, 3.0),
            (99.999, 5.0),
        ] {
            assert!(
                (nines(percentile) - place).abs() < 1e-6,
                "{percentile}: {}",
                nines(percentile)
            );
        }
        assert!(nines(100.0).is_infinite());
        assert_eq!(Axis::percentiles(1000).share(nines(100.0)), 1.0);
        assert!((nines_of(1000) - 3.0).abs() < 1e-9);
    }

    proptest! {
        #[test]
        fn what_is_between_the_extremes_is_on_the_axis_in_its_order(low in 1.0..1e7_f64, more in 0.0..1e7_f64, third in 0.0..1.0_f64) {
            let high = low + more;
            let middle = low + third * more;
            let axis = Axis::latency(low, high);
            let places = [low, middle, high].map(|micros| (log(micros) - axis.from) / (axis.to - axis.from));
            prop_assert!(places[0] >= -1e-6 && places[2] <= 1.0 + 1e-6, "{:?}", places);
            prop_assert!(places[0] <= places[1] && places[1] <= places[2]);
            prop_assert!((2..=12).contains(&axis.ticks.len()), "{:?}", axis.ticks);
            let axis = Axis::from_zero("", high);
            prop_assert!(axis.to >= high && axis.to <= high * 2.0);
            prop_assert!((3..=12).contains(&axis.ticks.len()), "{:?}", axis.ticks);
        }
    }
}
