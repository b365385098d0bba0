//! The laws of `merge`, over values that the guest itself wrote under different actors.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::Verdict;
use super::rig::{Plan, Rig};
use super::script::{Commands, preview};
use crate::descriptor::MergePolicy;
use crate::wasm::Guest;

/// Values of one key that are joined with each other.
const VALUES_MAX: usize = 6;
/// Nodes that write on their own.
const WRITERS: u64 = 3;

/// Checks that neither order nor grouping nor repetition matters.
pub(super) fn laws(guest: &Arc<Guest>, left_out: BTreeSet<u16>) -> Verdict {
    if guest.descriptor().merge != MergePolicy::Custom {
        return Verdict::Skipped("concurrent values are not merged by the guest".into());
    }
    match samples(guest, &left_out).and_then(|samples| check(guest, &samples)) {
        Ok(verdict) => verdict,
        Err(why) => Verdict::Failed(why),
    }
}

/// What nodes that do not know of each other wrote under each key.
fn samples(
    guest: &Arc<Guest>,
    left_out: &BTreeSet<u16>,
) -> Result<BTreeMap<Vec<u8>, Vec<Vec<u8>>>, String> {
    let commands = Commands::new(guest.descriptor(), guest.limits(), left_out);
    let mut samples: BTreeMap<Vec<u8>, Vec<Vec<u8>>> = BTreeMap::new();
    for writer in 0..WRITERS {
        let plan = Plan {
            actor: 1000 * (writer + 1),
            ..Plan::USUAL
        };
        let mut rig = Rig::new(guest, plan)?;
        let mut steps = commands.writes_of(writer);
        // Each writer takes the commands in an order of its own.
        let middle = steps.len() * usize::try_from(writer).unwrap_or(0) / 3;
        steps.rotate_left(middle);
        for (nth, step) in steps.iter().enumerate() {
            rig.play(step);
            // The first writer's every state, of the others some.
            if nth % 2 == 0 || writer == 0 || nth + 1 == steps.len() {
                for ((_, key), values) in rig.values()? {
                    let known = samples.entry(key).or_default();
                    for value in values {
                        if !known.contains(&value) && known.len() < per_writer(writer) {
                            known.push(value);
                        }
                    }
                }
            }
        }
    }
    Ok(samples)
}

/// Room for the values of this writer and those before it.
fn per_writer(writer: u64) -> usize {
    VALUES_MAX * usize::try_from(writer + 1).unwrap_or(1) / 3
}

fn check(guest: &Guest, samples: &BTreeMap<Vec<u8>, Vec<Vec<u8>>>) -> Result<Verdict, String> {
    let budget = guest.limits().command_budget;
    let (mut values, mut laws) = (0, 0);
    for (key, known) in samples {
        values += known.len();
        let join = |values: [&[u8]; 2]| {
            guest
                .join(key, &values, budget)
                .map_err(|error| format!("merge of {}: {error}", shown(&values)))
        };
        for a in known {
            equal(
                &join([a, a])?,
                a,
                &[a, a],
                "merging a value with itself gives another value",
            )?;
            laws += 1;
            for b in known {
                let ab = join([a, b])?;
                equal(&ab, &join([b, a])?, &[a, b], "the order of values matters")?;
                laws += 1;
                for c in known {
                    let left = join([&ab, c])?;
                    let right = join([a, &join([b, c])?])?;
                    equal(&left, &right, &[a, b, c], "the grouping of values matters")?;
                    let three = guest
                        .join(key, &[a, b, c], budget)
                        .map_err(|error| error.to_string())?;
                    equal(
                        &left,
                        &three,
                        &[a, b, c],
                        "merging three at once differs from one by one",
                    )?;
                    laws += 2;
                }
            }
        }
    }
    Ok(match values {
        0 => Verdict::Skipped("no command left a value".into()),
        _ => Verdict::Passed(format!(
            "{values} values of {} keys, {laws} equations",
            samples.len()
        )),
    })
}

fn equal(one: &[u8], other: &[u8], values: &[&[u8]], otherwise: &str) -> Result<(), String> {
    if one == other {
        return Ok(());
    }
    Err(format!(
        "{otherwise}: of {} it makes {} or {}",
        shown(values),
        preview(one),
        preview(other)
    ))
}

fn shown(values: &[&[u8]]) -> String {
    values
        .iter()
        .map(|value| preview(value))
        .collect::<Vec<_>>()
        .join(", ")
}
