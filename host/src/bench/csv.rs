//! A run as tables: one for each operation, second by second, and one for all of them. Seconds and microseconds.

use super::report::{Latency, Operation, Report, Row};

/// Columns of an operation's file. The first two are seconds, the last seven microseconds.
const COLUMNS: &str = "elapsed,window,successful,failed,min,mean,median,p95,p99,p99.9,max";

/// The file of an operation.
pub(crate) fn operation(operation: &Operation) -> String {
    let mut text = format!("{COLUMNS}\n");
    for row in &operation.windows {
        let Latency {
            min,
            mean,
            median,
            p95,
            p99,
            p99_9,
            max,
        } = row.latency_microseconds;
        text.push_str(&format!(
            "{},{},{},{},{min},{mean},{median},{p95},{p99},{p99_9},{max}\n",
            row.elapsed_seconds, row.window_seconds, row.successful, row.failed
        ));
    }
    text
}

/// The file of all operations together.
pub(crate) fn summary(report: &Report) -> String {
    let mut text = String::from("elapsed,window,total,successful,failed\n");
    let windows = report
        .operations
        .first()
        .map_or(0, |first| first.windows.len());
    for number in 0..windows {
        let rows = || {
            report
                .operations
                .iter()
                .filter_map(|operation| operation.windows.get(number))
        };
        let Some(first) = rows().next() else {
            continue;
        };
        let successful: u64 = rows().map(|row| row.successful).sum();
        let failed: u64 = rows().map(|row| row.failed).sum();
        let (elapsed, window) = (first.elapsed_seconds, first.window_seconds);
        text.push_str(&format!(
            "{elapsed},{window},{},{successful},{failed}\n",
            successful + failed
        ));
    }
    text
}

/// Reads the file of an operation.
///
/// # Errors
/// Which line is none of it.
pub(crate) fn parse_operation(text: &str) -> Result<Vec<Row>, String> {
    let mut lines = text.lines();
    if lines.next().map(str::trim) != Some(COLUMNS) {
        return Err(format!("its first line is not {COLUMNS}"));
    }
    let rows = lines
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty());
    let rows = rows.map(|(at, line)| {
        row(line).ok_or_else(|| format!("line {} has not eleven numbers: {line}", at + 2))
    });
    rows.collect()
}

fn row(line: &str) -> Option<Row> {
    let numbers: Vec<f64> = line
        .split(',')
        .map(|cell| cell.trim().parse().ok())
        .collect::<Option<_>>()?;
    let &[
        elapsed_seconds,
        window_seconds,
        successful,
        failed,
        min,
        mean,
        median,
        p95,
        p99,
        p99_9,
        max,
    ] = numbers.as_slice()
    else {
        return None;
    };
    Some(Row {
        elapsed_seconds,
        window_seconds,
        successful: whole(successful)?,
        failed: whole(failed)?,
        latency_microseconds: Latency {
            min: whole(min)?,
            mean,
            median: whole(median)?,
            p95: whole(p95)?,
            p99: whole(p99)?,
            p99_9: whole(p99_9)?,
            max: whole(max)?,
        },
    })
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a whole number that a double holds exactly"
)]
fn whole(number: f64) -> Option<u64> {
    let fits = number.fract() == 0.0 && (0.0..9_007_199_254_740_992.0).contains(&number);
    fits.then_some(number as u64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn row() -> impl Strategy<Value = Row> {
        let counts = (0..1_000_000_u64, 0..1_000_000_u64);
        let times = (0..1_000_000_u64, 1..2_000_u64);
        (counts, times, prop::array::uniform7(0..1_u64 << 40)).prop_map(
            |((successful, failed), (elapsed, window), latency)| {
                let [min, mean, median, p95, p99, p99_9, max] = latency;
                let latency_microseconds = Latency {
                    min,
                    mean: mean as f64 / 10.0,
                    median,
                    p95,
                    p99,
                    p99_9,
                    max,
                };
                let (elapsed_seconds, window_seconds) =
                    (elapsed as f64 / 1000.0, window as f64 / 1000.0);
                Row {
                    elapsed_seconds,
                    window_seconds,
                    successful,
                    failed,
                    latency_microseconds,
                }
            },
        )
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(windows in prop::collection::vec(row(), 0..9)) {
            let operation = Operation {
                name: "put".into(), command: "PUT {key} {value}".into(), weight: 1, successful: 0, failed: 0,
                rate_per_second: 0.0, latency_microseconds: Latency::default(), percentiles: vec![], windows,
            };
            let text = super::operation(&operation);
            prop_assert_eq!(text.lines().count(), operation.windows.len() + 1);
            prop_assert_eq!(parse_operation(&text).unwrap(), operation.windows);
        }
    }

    #[test]
    fn what_is_no_such_file_is_refused_by_line() {
        assert!(parse_operation("").is_err_and(|error| error.contains("first line")));
        assert!(parse_operation("a,b\n1,2\n").is_err_and(|error| error.contains(COLUMNS)));
        for bad in [
            "1,2",
            "1,1,x,0,1,1,1,1,1,1,1",
            "1,1,0.5,0,1,1,1,1,1,1,1",
            "1,1,-1,0,1,1,1,1,1,1,1",
        ] {
            let error = parse_operation(&format!("{COLUMNS}\n1,1,1,0,1,1.5,1,1,1,1,1\n{bad}\n"))
                .err()
                .unwrap();
            assert!(error.starts_with("line 3 "), "{error}");
        }
    }
}
