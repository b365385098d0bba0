//! A full disk: writes are refused and say why, reads go on, and writes too once there is room.

use std::path::PathBuf;

use tests::resp::{Client, Reply};
use tests::{Node, Starter, arg, eventually, text, tool};

/// A node whose directory is a file system of 20 MiB, most of it ballast, and whose log can be written nowhere; and where the ballast is seen from here.
fn on_a_small_disk(mount: &tempfile::TempDir) -> Option<(Node, PathBuf)> {
    let script = format!(
        "mount -t tmpfs -o size=20m none {0} && head -c 13M /dev/zero > {0}/ballast && exec \"$@\" 2>/dev/full",
        mount.path().display()
    );
    let mut trial = tool("unshare")?;
    let trial = trial
        .args(["-rm", "sh", "-c", &script, "sh", "true"])
        .output()
        .unwrap();
    if !trial.status.success() {
        eprintln!(
            "\n*** SKIPPED: no file system can be mounted here: {} ***\n",
            text(&trial)
        );
        return None;
    }
    let data = mount.path().join("data");
    let node = Starter::new(&["--vnode", "kv", "--sync", "always"])
        .data(&data)
        .wrapped(&["unshare", "-rm", "sh", "-c", &script, "sh"])
        .start();
    let inside = format!("/proc/{}/root{}/ballast", node.pid(), arg(&mount.path()));
    Some((node, inside.into()))
}

/// Writes until it is refused: how many were acknowledged, and the refusal.
fn fill(client: &mut Client, value: &str) -> (usize, Reply) {
    for n in 0..1000 {
        let reply = client.call(&["SET", &format!("k{n}"), value]);
        if reply != Reply::ok() {
            return (n, reply);
        }
    }
    panic!("the disk is never full")
}

#[test]
fn a_full_disk_refuses_writes_until_there_is_room_and_loses_nothing() {
    let mount = tempfile::tempdir().unwrap();
    let Some((node, ballast)) = on_a_small_disk(&mount) else {
        return;
    };
    // What does not get smaller when it is compressed.
    let noise = |n: u64| {
        n.wrapping_mul(0x9e37_79b9_7f4a_7c15)
            .rotate_left(31)
            .wrapping_mul(n | 1)
    };
    let value: String = (0..6000).map(|n| format!("{:016x}", noise(n))).collect();
    let mut client = node.client();
    let (acknowledged, refusal) = fill(&mut client, &value);
    assert!(acknowledged > 5, "{acknowledged}");
    // Written and not on disk: too few replicas have it for good, and it may yet be there. Where the journal failed between
    // two commands, with what it writes on its own, nothing was tried.
    let tried = refusal.is_error("NOREPLICAS");
    assert!(
        tried || refusal.is_error("ERR") && refusal.text().contains("No space left"),
        "{refusal:?}"
    );
    // Those after it are not even tried.
    let next = client.run("SET next v");
    assert!(
        next.is_error("ERR") && next.text().contains("No space left"),
        "{next:?}"
    );
    assert_eq!(client.run("EXISTS next"), 0.into());
    for n in 0..acknowledged {
        assert_eq!(
            client.run(&format!("GET k{n}")),
            value.as_str().into(),
            "reads go on"
        );
    }
    assert_eq!(node.get("/healthz").0, 200);
    assert_eq!(node.get("/readyz").0, 503);
    assert_eq!(node.metric("vnode_storage_writable"), Some(0.0));
    let status = node.json("/v1/status");
    assert_eq!(status["verdict"], "degraded");
    assert_eq!(status["problems"][0]["code"], "storage_read_only");
    assert_eq!(node.cli(&["status"]).status.code(), Some(3));
    std::fs::remove_file(ballast).unwrap();
    eventually("writes to go on", || {
        (client.run("SET more v") == Reply::ok()).then_some(())
    });
    eventually("the node to be ready", || {
        (node.get("/readyz").0 == 200).then_some(())
    });
    for n in 0..acknowledged {
        assert_eq!(client.run(&format!("GET k{n}")), value.as_str().into());
    }
    assert_eq!(node.json("/v1/status")["verdict"], "ok");
    assert!(node.terminate().status.success());
}
