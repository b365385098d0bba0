//! Files that are no guest. Each is refused with one line that says what is wrong, and nothing is written.

use std::path::Path;

use crate::guests::{Made, liar, replaced, rust};

/// Asserts that `host inspect` and a node refuse these files with exit code 1 and a first line with these words.
fn refused(files: &[&Path], flags: &[&str], words: &[&str]) {
    let made = Made::new(b"");
    let data = made.folder().join("data");
    let (data, file) = (tests::arg(&data), tests::arg(&files[files.len() - 1]));
    let mut node = vec!["--port", "0", "--data", data];
    for path in files {
        node.extend(["--vnode", tests::arg(path)]);
    }
    node.extend_from_slice(flags);
    let mut runs = vec![node];
    if flags.is_empty() && files.len() == 1 {
        runs.push(vec!["inspect", file]);
    }
    for args in runs {
        let output = tests::run(&args);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{args:?}: {text}");
        assert!(output.stdout.is_empty(), "{args:?}");
        let first = text.lines().next().unwrap_or_default();
        assert!(first.starts_with("error: "), "{text}");
        for word in words {
            assert!(first.contains(word), "{word:?} is not in: {text}");
        }
        assert!(text.contains(file), "the file is not named: {text}");
        assert!(!Path::new(data).exists(), "something was written");
    }
}

fn bytes_refused(bytes: &[u8], words: &[&str]) {
    refused(&[Made::new(bytes).path()], &[], words);
}

fn text_refused(component: &str, words: &[&str]) {
    bytes_refused(&wat::parse_str(component).expect("a component"), words);
}

fn kv() -> Vec<u8> {
    std::fs::read(tests::guest("kv")).expect("a component")
}

#[test]
fn what_is_not_webassembly_is_called_so() {
    let not = ["not a WebAssembly component"];
    bytes_refused(b"", &not);
    bytes_refused(b"\0asm", &not);
    bytes_refused(b"#!/bin/sh\necho hello\n", &not);
    let garbage: Vec<u8> = (0..1 << 20)
        .map(|n: u32| (n.wrapping_mul(2_654_435_761) >> 13).to_le_bytes()[0])
        .collect();
    bytes_refused(&garbage, &not);
}

#[test]
fn a_core_module_is_told_from_a_component() {
    let module = wat::parse_str("(module (func (export \"run\")))").unwrap();
    bytes_refused(&module, &["core WebAssembly module", "wasm32-wasip2"]);
}

#[test]
fn a_component_that_is_cut_or_damaged_is_not_valid() {
    let kv = kv();
    for part in [8 + 1, kv.len() / 3, kv.len() - 1] {
        bytes_refused(&kv[..part], &["not valid"]);
    }
    let mut bent = kv.clone();
    for at in (64..bent.len()).step_by(997) {
        bent[at] ^= 0x55;
    }
    bytes_refused(&bent, &["not valid"]);
    bytes_refused(&[&kv[..8], &[0xff; 64]].concat(), &["not valid"]);
}

#[test]
fn a_component_of_another_version_is_named_with_its_version() {
    let of = |interface: &str| {
        let (from, to) = (format!("{interface}@0.1.0"), format!("{interface}@0.2.0"));
        replaced(&kv(), from.as_bytes(), to.as_bytes())
    };
    bytes_refused(
        &of("vnode:host/vnode"),
        &["vnode:host/vnode@0.2.0", "vnode:host/vnode@0.1.0"],
    );
    bytes_refused(
        &of("vnode:host/store"),
        &["vnode:host/store@0.2.0", "does not offer"],
    );
}

#[test]
fn an_import_that_is_not_offered_is_named() {
    for import in [
        "wasi:sockets/tcp@0.2.6",
        "wasi:filesystem/preopens@0.2.0",
        "wasi:http/outgoing-handler@0.2.0",
        "made:up/thing@1.0.0",
    ] {
        let empty = format!("(component (import \"{import}\" (instance)))");
        text_refused(&empty, &[import, "does not offer"]);
    }
    text_refused(
        "(component (import \"run\" (func)))",
        &["\"run\"", "does not offer"],
    );
    // An offered interface with a function that it does not have.
    let more =
        "(component (import \"vnode:host/store@0.1.0\" (instance (export \"steal\" (func)))))";
    text_refused(more, &["vnode:host/vnode@0.1.0"]);
}

#[test]
fn a_component_without_a_vnode_says_what_it_exports() {
    text_refused(
        "(component)",
        &["exports nothing", "vnode:host/vnode@0.1.0"],
    );
    let other = "(component (instance $i) (export \"some:other/thing@1.0.0\" (instance $i)))";
    text_refused(other, &["some:other/thing@1.0.0", "no vnode"]);
}

#[test]
fn a_vnode_of_other_types_is_not_taken() {
    let empty = "(component (instance $i) (export \"vnode:host/vnode@0.1.0\" (instance $i)))";
    text_refused(empty, &["other types", "vnode:host@0.1.0"]);
}

#[test]
fn a_component_past_the_limit_is_refused_with_both_sizes() {
    let size = kv().len().to_string();
    let kv = tests::guest("kv");
    refused(
        &[&kv],
        &["--component-bytes-max", "64KiB"],
        &[&size, "65536", "component_bytes_max"],
    );
}

#[test]
fn two_guests_of_one_name_are_refused_with_both_files() {
    let (first, second) = (liar("honest"), liar("forgets"));
    let words = ["two guests are named \"liar\"", first.arg(), second.arg()];
    refused(&[first.path(), second.path()], &[], &words);
}

#[test]
fn limits_of_memory_and_tables_are_named_when_a_guest_does_not_fit() {
    let hostile = rust("hostile");
    refused(&[&hostile], &["--table-elements-max", "1"], &["describe"]);
}
