//! Every command that a client can call, by name.
//!
//! Owns who answers to a name: a built-in first, then `SERVICE.COMMAND`, then short names in the order in which the
//! services were given. Built once for each set of guests in force; never changes and never runs anything.

use std::collections::HashMap;
use std::sync::Arc;

use crate::descriptor::{CommandSpec, Descriptor};

use super::builtin::{self, Builtin};

/// Bytes of the longest name looked up: a service's name, a point, a command's name, and room.
const NAME_MAX: usize = 96;

/// Who answers to a name.
#[derive(Clone, Copy, Debug)]
pub enum Target {
    /// A command of ours.
    Builtin(&'static Builtin),
    /// A guest's command.
    Guest(GuestCommand),
}

/// A guest's command, as positions in [`Catalog::services`] and in the descriptor's `commands`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GuestCommand {
    /// Position of the service.
    pub service: usize,
    /// Position of its command.
    pub command: usize,
}

/// The commands of one set of guests, and ours.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    services: Vec<Arc<Descriptor>>,
    /// Lower case.
    names: HashMap<Box<[u8]>, Target>,
}

/// A guest's command under one of its names.
#[derive(Clone, Debug)]
pub(super) struct Listed<'a> {
    pub(super) name: String,
    pub(super) service: &'a Descriptor,
    pub(super) command: &'a CommandSpec,
}

impl Catalog {
    /// The catalog of these services; where two offer one short name, the earlier has it.
    pub fn new(services: Vec<Arc<Descriptor>>) -> Self {
        Self::offering(services, |_| true)
    }

    /// The same, of which only these commands are offered; the others keep their positions.
    pub fn offering(
        services: Vec<Arc<Descriptor>>,
        offered: impl Fn(GuestCommand) -> bool,
    ) -> Self {
        let mut catalog = Self {
            services,
            names: HashMap::new(),
        };
        for builtin in builtin::TABLE {
            catalog.claim(builtin.name, Target::Builtin(builtin));
        }
        for naming in [full_name, short_name] {
            for (service, descriptor) in catalog.services.clone().iter().enumerate() {
                for (command, spec) in descriptor.commands.iter().enumerate() {
                    let guest = GuestCommand { service, command };
                    if !offered(guest) {
                        continue;
                    }
                    let target = Target::Guest(guest);
                    catalog.claim(&naming(descriptor, spec), target);
                }
            }
        }
        catalog
    }

    fn claim(&mut self, name: &str, target: Target) {
        self.names.entry(name.as_bytes().into()).or_insert(target);
    }

    /// The services in order.
    pub fn services(&self) -> &[Arc<Descriptor>] {
        &self.services
    }

    /// Who answers to that name, whatever its case. Allocates nothing.
    pub fn find(&self, name: &[u8]) -> Option<Target> {
        let mut lower = [0_u8; NAME_MAX];
        let lower = lower.get_mut(..name.len())?;
        lower.copy_from_slice(name);
        lower.make_ascii_lowercase();
        self.names.get(&*lower).copied()
    }

    /// The descriptor and the command behind a [`GuestCommand`]; `None` when it comes from another catalog.
    pub fn guest(&self, guest: GuestCommand) -> Option<(&Arc<Descriptor>, &CommandSpec)> {
        let service = self.services.get(guest.service)?;
        Some((service, service.commands.get(guest.command)?))
    }

    /// Whether the command also answers to its short name.
    pub fn has_short_name(&self, guest: GuestCommand) -> bool {
        self.guest(guest).is_some_and(|(_, spec)| {
            matches!(self.find(spec.name.as_bytes()), Some(Target::Guest(winner)) if winner == guest)
        })
    }

    /// The guests' commands under each of their names, in order.
    pub(super) fn listed(&self) -> Vec<Listed<'_>> {
        let mut listed = Vec::new();
        for (service, descriptor) in self.services.iter().enumerate() {
            for (command, spec) in descriptor.commands.iter().enumerate() {
                let guest = GuestCommand { service, command };
                let names = [full_name(descriptor, spec), short_name(descriptor, spec)];
                for name in names {
                    let wins = |target| matches!(target, Target::Guest(winner) if winner == guest);
                    if self.find(name.as_bytes()).is_some_and(wins) {
                        let service = descriptor;
                        let command = spec;
                        listed.push(Listed {
                            name,
                            service,
                            command,
                        });
                    }
                }
            }
        }
        listed
    }
}

fn short_name(_: &Descriptor, command: &CommandSpec) -> String {
    command.name.to_ascii_lowercase()
}

fn full_name(service: &Descriptor, command: &CommandSpec) -> String {
    format!("{}.{}", service.name, command.name).to_ascii_lowercase()
}
