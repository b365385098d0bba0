use std::time::Duration;

use super::*;
use crate::node::BUILT_IN;
use crate::wasm::{Engine, Limits};

fn load(name: &str) -> Arc<Guest> {
    let limits = Limits {
        memory_bytes_max: 64 << 20,
        table_elements_max: 10_000,
        stack_bytes_max: 512 * 1024,
        command_budget: Duration::from_millis(200),
        host_calls_max: 10_000,
        reply_bytes_max: 4 << 20,
        component_bytes_max: 32 << 20,
        key_bytes_max: 4096,
        value_bytes_max: 1 << 20,
    };
    let (_, bytes) = BUILT_IN
        .iter()
        .find(|(built_in, _)| *built_in == name)
        .unwrap();
    Arc::new(Guest::load(&Engine::new(limits).unwrap(), None, bytes).unwrap())
}

#[test]
fn guests_that_are_built_in_keep_the_contract() {
    for (name, _) in BUILT_IN {
        let findings = check(&load(name));
        assert_eq!(findings.len(), 10, "{name}");
        for finding in findings {
            assert_ne!(
                finding.outcome,
                Outcome::Failed,
                "{name}: {} {}",
                finding.name,
                finding.detail
            );
        }
    }
}

#[test]
fn each_part_of_the_contract_is_checked_on_some_guest() {
    let findings: Vec<Finding> = BUILT_IN
        .iter()
        .flat_map(|(name, _)| check(&load(name)))
        .collect();
    for finding in &findings {
        let passed = findings
            .iter()
            .any(|other| other.name == finding.name && other.outcome == Outcome::Passed);
        assert!(passed, "{} is always skipped", finding.name);
    }
}
