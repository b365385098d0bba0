//! The checks that play a script and look at what comes back.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::Verdict;
use super::rig::{Heard, Plan, Rig, Values};
use super::script::{Commands, Step, preview};
use crate::descriptor::{Aggregate, CommandKind, CommandSpec};
use crate::wasm::Guest;

/// A refusal that the host gives to a write where the descriptor says that there is none.
const READ_ONLY: &[u8] = b"declared as one that does not write";
/// Rows of the check with many of them: more than a page of any guest here.
const MANY: usize = 2500;
/// Rows of the check with large ones.
const LARGE: usize = 12;

/// One run over one guest.
pub(super) struct Run<'a> {
    guest: &'a Arc<Guest>,
    nothing: BTreeSet<u16>,
    /// Commands that the later checks leave out, because they fail on their own.
    broken: RefCell<BTreeSet<u16>>,
}

type Checked = Result<Verdict, String>;

fn verdict(checked: Checked) -> Verdict {
    checked.unwrap_or_else(Verdict::Failed)
}

impl<'a> Run<'a> {
    /// Starts the guest once on every partition.
    pub(super) fn new(guest: &'a Arc<Guest>) -> Result<Run<'a>, Verdict> {
        Rig::new(guest, Plan::USUAL).map_err(Verdict::Failed)?;
        Ok(Run {
            guest,
            nothing: BTreeSet::new(),
            broken: RefCell::default(),
        })
    }

    /// Whether no command is left for the other checks.
    pub(super) fn is_useless(&self) -> bool {
        self.broken.borrow().len() == self.guest.descriptor().commands.len()
    }

    /// The commands that work, for checks elsewhere.
    pub(super) fn commands(&self) -> BTreeSet<u16> {
        self.broken.borrow().clone()
    }

    /// What was checked when the guest was loaded.
    pub(super) fn descriptor(&self) -> Verdict {
        let descriptor = self.guest.descriptor();
        let writes = descriptor
            .commands
            .iter()
            .filter(|spec| spec.writes())
            .count();
        let commands = descriptor.commands.len();
        match descriptor.check() {
            Ok(()) => Verdict::Passed(format!("{commands} commands, {writes} of them write")),
            Err(error) => Verdict::Failed(error.to_string()),
        }
    }

    /// Every command answers or refuses, whatever it is called with.
    pub(super) fn arguments(&self) -> Verdict {
        verdict(self.try_arguments())
    }

    fn try_arguments(&self) -> Checked {
        let commands = Commands::new(self.guest.descriptor(), self.guest.limits(), &self.nothing);
        let mut broken: BTreeMap<u16, String> = BTreeMap::new();
        let (mut calls, mut refused, mut largest) = (0, 0, 0);
        // Once on nothing, once on what writes before each call have left.
        for steps in [commands.shapes(), commands.pairs()] {
            let mut rig = Rig::new(self.guest, Plan::USUAL)?;
            for step in steps.iter() {
                if broken.contains_key(&step.command) {
                    continue;
                }
                let heard = rig.play(step);
                calls += 1;
                refused += usize::from(heard.reply.starts_with(b"-"));
                largest = largest.max(heard.reply.len());
                if let Some(trouble) = heard.trouble {
                    let told = format!("{}: {trouble}", commands.show(step));
                    broken.insert(step.command, told);
                }
            }
        }
        let count = self.guest.descriptor().commands.len();
        let told: Vec<&str> = broken.values().map(String::as_str).collect();
        let failed = told.join("; ");
        *self.broken.borrow_mut() = broken.into_keys().collect();
        if failed.is_empty() {
            return Ok(Verdict::Passed(format!(
                "{count} commands, {calls} calls, {refused} refused, largest reply {largest} bytes"
            )));
        }
        Err(failed)
    }

    /// Replies that the host has to join have the shape that joining needs.
    pub(super) fn aggregates(&self) -> Verdict {
        verdict(self.play(Plan::USUAL, |commands, rig| {
            let mut calls = 0;
            for step in commands.pairs() {
                let Some(spec) = commands.spec(step.command) else {
                    continue;
                };
                let covers = matches!(
                    spec.kind,
                    CommandKind::Coverage | CommandKind::CoverageWrite
                );
                let heard = rig.play(&step);
                let wanted: &[u8] = match spec.aggregate {
                    Aggregate::Sum => b":",
                    Aggregate::Concat if !covers => b"*",
                    _ => continue,
                };
                calls += 1;
                let fits = heard.reply.starts_with(wanted) || heard.reply.starts_with(b"-");
                if !fits {
                    return Err(format!(
                        "{} answered {}, which the aggregate {:?} cannot join",
                        commands.show(&step),
                        preview(&heard.reply),
                        spec.aggregate
                    ));
                }
            }
            Ok(match calls {
                0 => Verdict::Skipped("no command has replies that are joined".into()),
                _ => Verdict::Passed(format!("{calls} calls")),
            })
        }))
    }

    /// The packed door and the typed one answer the same and write the same.
    pub(super) fn doors(&self) -> Verdict {
        if !self.guest.has_batch() {
            return Verdict::Skipped("the guest has only the typed door".into());
        }
        verdict(self.play(Plan::USUAL, |commands, packed| {
            let steps = commands.pairs();
            let alone = |plan| -> Result<(Rig, Vec<Heard>), String> {
                let mut rig = Rig::new(self.guest, plan)?;
                let heard = steps.iter().map(|step| rig.play(step)).collect();
                Ok((rig, heard))
            };
            let (typed, one_by_one) = alone(Plan {
                typed: true,
                ..Plan::USUAL
            })?;
            let (other, again) = alone(Plan::USUAL)?;
            let names = ["the typed door", "the packed door"];
            same_replies(commands, &steps, &one_by_one, &again, names)?;
            same_values(&typed.values()?, &other.values()?, names)?;
            // Several in one call number their writes otherwise, which only a causal context shows.
            let (_, renumbered) = alone(Plan {
                writes_from: 7,
                ..Plan::USUAL
            })?;
            let together = packed.play_together(&steps);
            let shows_context: BTreeSet<u16> = steps
                .iter()
                .zip(one_by_one.iter().zip(&renumbered))
                .filter(|(_, (a, b))| a.reply != b.reply)
                .map(|(step, _)| step.command)
                .collect();
            let names = ["the typed door", "the packed door with several at once"];
            let comparable = |step: &Step| !shows_context.contains(&step.command);
            same_replies_where(comparable, commands, &steps, &one_by_one, &together, names)?;
            same_values(&typed.values()?, &packed.values()?, names)?;
            let count = packed.packed();
            Ok(match count {
                0 => Verdict::Skipped("the packed door defers every command".into()),
                _ => Verdict::Passed(format!(
                    "{count} commands packed, {} calls each way",
                    steps.len()
                )),
            })
        }))
    }

    /// The same input gives the same bytes.
    pub(super) fn determinism(&self) -> Verdict {
        verdict(self.play(Plan::USUAL, |commands, first| {
            let mut second = Rig::new(self.guest, Plan::USUAL)?;
            let steps = commands.pairs();
            let once = first.play_together(&steps);
            let again = second.play_together(&steps);
            same_replies(commands, &steps, &once, &again, ["first", "second"])?;
            let (rows, others) = (first.bytes(), second.bytes());
            if rows != others {
                return Err("the same commands left other bytes in the store".into());
            }
            Ok(Verdict::Passed(format!(
                "{} calls twice, {} rows",
                steps.len(),
                rows.len()
            )))
        }))
    }

    /// Nothing hangs on what an instance remembers.
    pub(super) fn restart(&self) -> Verdict {
        verdict(self.play(Plan::USUAL, |commands, lasting| {
            let mut fresh = Rig::new(
                self.guest,
                Plan {
                    restarts: true,
                    ..Plan::USUAL
                },
            )?;
            let steps = commands.pairs();
            let once: Vec<Heard> = steps.iter().map(|step| lasting.play(step)).collect();
            let again: Vec<Heard> = steps.iter().map(|step| fresh.play(step)).collect();
            let names = ["one instance", "an instance for each call"];
            // `any` names no place, so its reply may speak of the instance that it met.
            let placed = |step: &Step| {
                commands
                    .spec(step.command)
                    .is_some_and(|spec| spec.kind != CommandKind::Any)
            };
            same_replies_where(placed, commands, &steps, &once, &again, names)?;
            same_values(&lasting.values()?, &fresh.values()?, names)?;
            Ok(Verdict::Passed(format!(
                "an instance for each of {} calls",
                steps.len()
            )))
        }))
    }

    /// Another node with the same rows reads the same.
    pub(super) fn handoff(&self) -> Verdict {
        verdict(self.play(Plan::USUAL, |commands, from| {
            let reads = commands.reads();
            if reads.is_empty() {
                return Ok(Verdict::Skipped("no command reads".into()));
            }
            let (mut rows, mut compared) = (0, 0);
            // By each writing command on its own, since another may take its rows away.
            for write in commands.writes() {
                *from = Rig::new(self.guest, Plan::USUAL)?;
                from.play(&write);
                let written = from.values()?.len();
                if written == 0 {
                    continue;
                }
                let other = Plan {
                    actor: 5000,
                    node: "b@conformance",
                    ..Plan::USUAL
                };
                let mut to = from.handed_over(other)?;
                let here: Vec<Heard> = reads.iter().map(|step| from.play(step)).collect();
                let there: Vec<Heard> = reads.iter().map(|step| to.play(step)).collect();
                same_replies(commands, &reads, &here, &there, ["before", "after"])?;
                rows += written;
                compared += reads.len();
            }
            Ok(match rows {
                0 => Verdict::Skipped("no command left a row".into()),
                _ => Verdict::Passed(format!("{rows} rows, {compared} reads before and after")),
            })
        }))
    }

    /// Commands that are declared not to write do not try to.
    pub(super) fn reads(&self) -> Verdict {
        verdict(self.play(Plan::USUAL, |commands, rig| {
            let mut calls = 0;
            let mut packed = Rig::new(
                self.guest,
                Plan {
                    typed: true,
                    ..Plan::USUAL
                },
            )?;
            for step in commands.pairs() {
                let heard = [rig.play(&step), packed.play(&step)];
                if commands.spec(step.command).is_none_or(CommandSpec::writes) {
                    continue;
                }
                calls += 2;
                let tried = |heard: &Heard| {
                    heard
                        .reply
                        .windows(READ_ONLY.len())
                        .any(|part| part == READ_ONLY)
                };
                if heard.iter().any(tried) {
                    return Err(format!("{} tried to write", commands.show(&step)));
                }
            }
            Ok(match calls {
                0 => Verdict::Skipped("every command writes".into()),
                _ => Verdict::Passed(format!("{calls} calls")),
            })
        }))
    }

    /// Coverage commands come to an end over many rows and over large ones, inside the limits of a page.
    pub(super) fn many_rows(&self) -> Verdict {
        let large = self.guest.limits().value_bytes_max / 2;
        verdict(self.play(Plan::USUAL, |commands, rig| {
            let covers = commands.coverage();
            if covers.is_empty() {
                return Ok(Verdict::Skipped("no coverage command".into()));
            }
            let mut most = 0;
            for (count, bytes) in [(MANY, 64), (LARGE, large)] {
                *rig = Rig::new(self.guest, Plan::USUAL)?;
                rig.play_together(&commands.rows(count, bytes));
                let rows = rig.values()?.len();
                most = most.max(rows);
                for step in &covers {
                    if let Some(trouble) = rig.play(step).trouble {
                        let call = commands.show(step);
                        return Err(format!("{call} on {rows} rows of {bytes} bytes: {trouble}"));
                    }
                }
            }
            Ok(match most {
                0 => Verdict::Skipped("no command takes a key and a value".into()),
                _ => Verdict::Passed(format!(
                    "{} commands on {most} rows, and on {large} bytes a value",
                    covers.len()
                )),
            })
        }))
    }

    /// Hands a check the commands that work and a fresh node.
    fn play(&self, plan: Plan, check: impl FnOnce(&Commands<'_>, &mut Rig) -> Checked) -> Checked {
        let broken = self.broken.borrow();
        let commands = Commands::new(self.guest.descriptor(), self.guest.limits(), &broken);
        let mut rig = Rig::new(self.guest, plan)?;
        check(&commands, &mut rig)
    }
}

fn same_replies(
    commands: &Commands<'_>,
    steps: &[Step],
    one: &[Heard],
    other: &[Heard],
    names: [&str; 2],
) -> Result<(), String> {
    same_replies_where(|_| true, commands, steps, one, other, names)
}

fn same_replies_where(
    comparable: impl Fn(&Step) -> bool,
    commands: &Commands<'_>,
    steps: &[Step],
    one: &[Heard],
    other: &[Heard],
    names: [&str; 2],
) -> Result<(), String> {
    for (step, (a, b)) in steps.iter().zip(one.iter().zip(other)) {
        if let Some(trouble) = a.trouble.as_ref().or(b.trouble.as_ref()) {
            return Err(format!("{}: {trouble}", commands.show(step)));
        }
        if comparable(step) && a.reply != b.reply {
            return Err(format!(
                "{} (call {}): {} answered {}, {} answered {}",
                commands.show(step),
                step.number,
                names[0],
                preview(&a.reply),
                names[1],
                preview(&b.reply)
            ));
        }
    }
    Ok(())
}

fn same_values(one: &Values, other: &Values, names: [&str; 2]) -> Result<(), String> {
    let keys: BTreeSet<_> = one.keys().chain(other.keys()).collect();
    let differs = |at: &&&_| one.get(**at) != other.get(**at);
    let Some(at) = keys.iter().find(differs) else {
        return Ok(());
    };
    let shown = |values: &Values| match values.get(*at) {
        None => "nothing".to_owned(),
        Some(values) => values
            .iter()
            .map(|value| preview(value))
            .collect::<Vec<_>>()
            .join(" and "),
    };
    Err(format!(
        "key {}: {} stored {}, {} stored {}",
        preview(&at.1),
        names[0],
        shown(one),
        names[1],
        shown(other)
    ))
}
