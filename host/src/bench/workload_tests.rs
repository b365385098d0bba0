use proptest::prelude::*;

use super::*;

fn request(template: &str, key: u64) -> String {
    let values = Values::new(1, 3);
    let stamp = Stamp { worker: 0, turn: 1 };
    let mut out = Vec::new();
    let filling = Filling {
        key,
        stamp,
        values: &values,
        cursor: b"7",
    };
    Template::parse(template).unwrap().write(&filling, &mut out);
    let mut value = Vec::new();
    values.write(key, stamp, &mut value);
    let value = String::from_utf8(value).unwrap();
    String::from_utf8(out).unwrap().replace(&value, "VAL")
}

#[test]
fn a_template_becomes_a_request() {
    assert_eq!(
        request("SET key:{key}:x {value}", 1203),
        "*3\r\n$3\r\nSET\r\n$10\r\nkey:1203:x\r\n$3\r\nVAL\r\n"
    );
    assert_eq!(request("  GET {key} ", 0), "*2\r\n$3\r\nGET\r\n$1\r\n0\r\n");
    assert_eq!(
        request("scan {cursor} match '{key} *'", 5),
        "*4\r\n$4\r\nscan\r\n$1\r\n7\r\n$5\r\nmatch\r\n$3\r\n5 *\r\n"
    );
    assert_eq!(
        request("ECHO {keys}{}", u64::MAX),
        "*2\r\n$4\r\nECHO\r\n$8\r\n{keys}{}\r\n"
    );
    assert_eq!(request("ECHO \"\"", 1), "*2\r\n$4\r\nECHO\r\n$0\r\n\r\n");
}

#[test]
fn a_template_that_is_no_command_is_refused() {
    for template in ["", "  ", "SET 'k", "*1", "a\r\nb"] {
        let error = Template::parse(template).unwrap_err().to_string();
        assert!(
            error.contains("is no command: ") && error.contains("\n  next: "),
            "{error}"
        );
    }
}

#[test]
fn operations_of_commands_have_names_of_their_own() {
    let commands = [
        "SET a{key} {value}",
        "get {key}",
        "KV.GET x",
        "GET y",
        "{key}",
    ]
    .map(String::from);
    let workload = Workload::of_commands(&commands).unwrap();
    let names: Vec<&str> = workload
        .operations
        .iter()
        .map(|operation| operation.name.as_str())
        .collect();
    assert_eq!(names, ["set", "get", "kv.get", "get-2", "command"]);
    assert!(
        workload
            .operations
            .iter()
            .all(|operation| operation.check == Check::Any)
    );
}

#[test]
fn the_tutorials_mix_is_ten_to_three_to_two() {
    let workload = Workload::named("rkv").unwrap();
    let mix: Vec<(&str, u64)> = workload
        .operations
        .iter()
        .map(|operation| (operation.name.as_str(), operation.weight))
        .collect();
    assert_eq!(mix, [("put", 10), ("get-own-puts", 3), ("get", 2)]);
    let mut dice = Dice::of(1, 1);
    let mut drawn = [0_u32; 3];
    for _ in 0..150_000 {
        drawn[workload.draw(&mut dice)] += 1;
    }
    for (drawn, expected) in drawn.into_iter().zip([100_000_u32, 30_000, 20_000]) {
        assert!(
            drawn.abs_diff(expected) < expected / 50,
            "{drawn} of {expected}"
        );
    }
}

#[test]
fn a_mix_changes_weights_by_name_or_in_order() {
    let weights = |mix: &str| {
        let workload = Workload::named("rkv").unwrap().mixed(mix).unwrap();
        workload
            .operations
            .into_iter()
            .map(|operation| (operation.name, operation.weight))
            .collect::<Vec<_>>()
    };
    let of = |list: &[(&str, u64)]| {
        list.iter()
            .map(|(name, weight)| ((*name).to_owned(), *weight))
            .collect::<Vec<_>>()
    };
    assert_eq!(
        weights("1:2:3"),
        of(&[("put", 1), ("get-own-puts", 2), ("get", 3)])
    );
    assert_eq!(weights("get=9, put=1"), of(&[("put", 1), ("get", 9)]));
    assert_eq!(weights("1:0:0"), of(&[("put", 1)]));
}

#[test]
fn a_mix_that_does_not_fit_is_refused_with_one_that_does() {
    for (mix, why) in [
        ("1:2", "2 weights for 3 operations"),
        ("1:2:x", "\"x\" is no weight"),
        ("0:0:0", "no operation has a weight"),
        ("set=1", "there is no operation \"set\""),
        ("put=1,get", "\"get\" has no weight"),
        ("put=-1", "\"-1\" is no weight"),
        ("get-own-puts=1", "without putting"),
        ("", "1 weights for 3 operations"),
    ] {
        let error = Workload::named("rkv")
            .unwrap()
            .mixed(mix)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains(why) && error.contains("put=1,get-own-puts=1,get=1"),
            "{mix}: {error}"
        );
    }
    assert!(matches!(
        Workload::named("nonsense"),
        Err(WorkloadError::Unknown(_))
    ));
}

#[test]
fn keys_are_remembered_only_where_an_answer_is_judged_by_them() {
    let remembers = |name| Workload::named(name).unwrap().remembers();
    assert!(remembers("rkv") && remembers("mixed") && remembers("counter"));
    assert!(!remembers("read") && !remembers("write") && !remembers("scan"));
}

proptest! {
    #[test]
    fn every_operation_with_a_weight_is_drawn_and_no_other(weights in prop::collection::vec(0..20_u32, 3)) {
        prop_assume!(weights[0] > 0);
        let mix = format!("{}:{}:{}", weights[0], weights[1], weights[2]);
        let workload = Workload::named("rkv").unwrap().mixed(&mix).unwrap();
        let mut dice = Dice::of(3, 0);
        let drawn: std::collections::BTreeSet<usize> = (0..3_000).map(|_| workload.draw(&mut dice)).collect();
        let with_weight = weights.iter().filter(|weight| **weight > 0).count();
        prop_assert_eq!(drawn.into_iter().collect::<Vec<_>>(), (0..with_weight).collect::<Vec<_>>());
    }
}
