//! Numbers as people read them.

/// `1 234 567`: groups of three, so that a million is seen at once.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

/// A rate without what nobody reads: `18 932`, below a hundred `12.5`.
pub(crate) fn rate(per_second: f64) -> String {
    if per_second < 100.0 {
        return short(per_second, 1);
    }
    grouped(whole(per_second))
}

/// Microseconds with three digits: `94 µs`, `1.32 ms`, `2.05 s`.
pub(crate) fn latency(micros: f64) -> String {
    let (number, unit) = if micros < 999.5 {
        (micros, "µs")
    } else if micros < 999_500.0 {
        (micros / 1e3, "ms")
    } else {
        (micros / 1e6, "s")
    };
    let decimals = match number {
        _ if unit == "µs" => 0,
        number if number < 9.995 => 2,
        number if number < 99.95 => 1,
        _ => 0,
    };
    format!("{number:.decimals$} {unit}")
}

/// `12`, `1.5k`, `20k`, `3M`: the ends of axes.
pub(super) fn compact(number: f64) -> String {
    for (size, unit) in [(1e9, "G"), (1e6, "M"), (1e3, "k")] {
        if number >= size {
            return format!("{}{unit}", short(number / size, 2));
        }
    }
    short(number, 3)
}

/// With at most so many decimals, and none that are zeros.
pub(super) fn short(number: f64, decimals: usize) -> String {
    let text = format!("{number:.decimals$}");
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a cast of a float saturates, and a rate is below 2^64"
)]
fn whole(number: f64) -> u64 {
    number.round() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_and_short() {
        let table = [
            (0, "0"),
            (999, "999"),
            (1000, "1 000"),
            (1_234_567, "1 234 567"),
        ];
        for (number, text) in table {
            assert_eq!(grouped(number), text);
        }
        assert_eq!(
            [12.5, 99.0, 100.4, 18_931.6].map(rate),
            ["12.5", "99", "100", "18 932"]
        );
        assert_eq!(
            [0.0, 12.0, 1500.0, 20_000.0, 3e6].map(compact),
            ["0", "12", "1.5k", "20k", "3M"]
        );
    }

    #[test]
    fn latencies_have_three_digits_and_a_unit() {
        let table = [
            (0.0, "0 µs"),
            (94.4, "94 µs"),
            (999.4, "999 µs"),
            (999.6, "1.00 ms"),
            (1320.0, "1.32 ms"),
            (9996.0, "10.0 ms"),
            (99_960.0, "100 ms"),
            (999_600.0, "1.00 s"),
            (2_050_000.0, "2.05 s"),
            (61e6, "61.0 s"),
        ];
        for (micros, text) in table {
            assert_eq!(latency(micros), text);
        }
    }
}
