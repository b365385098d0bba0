//! The harness itself: what it starts ends with the test, however that ends.

use std::panic::{AssertUnwindSafe, catch_unwind};

use tests::{Starter, eventually};

/// Whether a process of that id runs; one that has ended and nobody waited for does not.
fn runs(pid: &str) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

#[test]
#[cfg(target_os = "linux")]
fn a_program_that_says_ready_and_nothing_else_is_ended_by_the_panic() {
    let script = "echo pid $$; echo ready; exec sleep 600";
    let starter = Starter::new(&["--vnode", "kv"]).wrapped(&["sh", "-c", script]);
    let panic = catch_unwind(AssertUnwindSafe(|| starter.start())).err();
    let words = panic.and_then(|panic| panic.downcast::<String>().ok());
    let words = words.expect("it panics with words");
    assert!(words.contains("no resp in the banner"), "{words}");
    let pid = words.lines().find_map(|line| line.strip_prefix("pid "));
    let pid = pid.expect("the banner is in the panic").to_owned();
    eventually("the process to end", || (!runs(&pid)).then_some(()));
}
