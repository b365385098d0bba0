//! Settings: where they come from, who wins, and what is said about a wrong one.

use std::path::Path;

use serde_json::Value;
use tests::resp::Reply;
use tests::{Starter, arg, command, finish, run, text};

/// Value and origin of a setting as `host config show` has them.
fn shown(args: &[&str], env: &[(&str, &str)], key: &str) -> (String, String) {
    let mut command = command();
    command
        .args(["config", "show", "--format", "json"])
        .args(args);
    let output = finish(command.envs(env.iter().copied()));
    assert!(output.status.success(), "{}", text(&output));
    let body: Value = serde_json::from_slice(&output.stdout).unwrap();
    let settings = body["settings"].as_array().unwrap();
    let found = settings.iter().find(|setting| setting["key"] == key);
    let found = found.unwrap_or_else(|| panic!("no {key}"));
    let word = |name: &str| found[name].as_str().unwrap().to_owned();
    (word("value"), word("origin"))
}

fn file(folder: &Path, contents: &str) -> String {
    let path = folder.join("node.toml");
    std::fs::write(&path, contents).unwrap();
    arg(&path).to_owned()
}

#[test]
fn a_flag_wins_over_a_variable_and_that_over_the_file_and_that_over_the_default() {
    let folder = tempfile::tempdir().unwrap();
    let path = file(folder.path(), "# a comment\nring_size = 128\n");
    let config = ["--config", path.as_str()];
    let all = [&config[..], &["--ring-size", "32"]].concat();
    let env = [("VNODE_RING_SIZE", "256")];
    let pair = |value: &str, origin: &str| (value.to_owned(), origin.to_owned());
    assert_eq!(shown(&[], &[], "ring_size"), pair("64", "default"));
    assert_eq!(
        shown(&config, &[], "ring_size"),
        pair("128", &format!("{path}:2"))
    );
    assert_eq!(
        shown(&config, &env, "ring_size"),
        pair("256", "environment VNODE_RING_SIZE")
    );
    assert_eq!(shown(&all, &env, "ring_size"), pair("32", "--ring-size"));
    assert_eq!(shown(&[], &[("VNODE_CONFIG", &path)], "ring_size").0, "128");
}

#[test]
fn a_service_has_demands_of_its_own_and_a_command_may_lower_them() {
    let folder = tempfile::tempdir().unwrap();
    let path = file(folder.path(), "[service.kv]\nnode_confirms = 2\n");
    let node = Starter::three(&["--storage", "memory", "--config", &path]).start();
    let mut client = node.client();
    let refused = client.run("SET k v");
    assert!(
        refused.text().contains("wanted w=2 node_confirms=2"),
        "{refused:?}"
    );
    let lowered = client.run("VNODE.WITH NODE_CONFIRMS 1 -- SET k v");
    assert_eq!(lowered, Reply::ok());
    assert_eq!(client.run("INCR hits"), Reply::Int(1));
}

#[test]
fn a_node_uses_what_the_file_and_the_environment_say() {
    let folder = tempfile::tempdir().unwrap();
    let contents = "vnode = [\"kv\", \"ping\"]\nring_size = 16\nstorage = \"memory\"\n\
                    [limits]\nkey_bytes_max = \"8B\"\n[service.kv]\nn = 1\n";
    let path = file(folder.path(), contents);
    let node = Starter::new(&["--config", &path])
        .fresh()
        .env("VNODE_RING_SIZE", "32")
        .env("VNODE_LOCATION", "rack-7")
        .start();
    assert_eq!(
        node.json("/v1/ring")["size"],
        32,
        "the variable wins over the file"
    );
    assert_eq!(node.json("/v1/cluster")["members"][0]["location"], "rack-7");
    let services = node.json("/v1/services");
    assert_eq!(services["services"].as_array().unwrap().len(), 2);
    assert_eq!(
        (&services["services"][0]["n"], &services["services"][1]["n"]),
        (&1.into(), &3.into())
    );
    let mut client = node.client();
    assert!(client.run("SET 123456789 v").is_error("TOOBIG"));
    assert_eq!(client.run("SET 12345678 v"), Reply::ok());
    assert_eq!(
        client.run("CONFIG GET ring_size"),
        ["ring_size", "32"].into()
    );
}

#[test]
fn a_list_in_the_environment_has_commas() {
    let node = Starter::new(&["--storage", "memory"])
        .env("VNODE_VNODE", "ping, counter")
        .start();
    let mut client = node.client();
    assert_eq!(client.run("INCR n"), 1.into());
    assert_eq!(client.run("PING.PING").items().len(), 3);
    assert!(client.run("GET k").is_error("ERR"));
}

#[test]
fn a_wrong_file_is_refused_with_its_line() {
    let folder = tempfile::tempdir().unwrap();
    let table = [
        (
            "ring_size = 64\nring_sise = 64\n",
            "ring_sise",
            "did you mean ring_size?",
            2,
        ),
        ("\n\nport = \"x\"\n", "port", "port", 3),
        ("ring_size = [\n", "not TOML", "not TOML", 1),
        ("storage = 7\n", "storage", "storage", 1),
        (
            "[limits]\nkey_bytes_max = 0\n",
            "limits.key_bytes_max",
            "limits.key_bytes_max",
            2,
        ),
        ("[limits]\nnope = 1\n", "limits.nope", "no such setting", 2),
        ("n = 1\nr = 2\n", "r: ", "replicas", 2),
        (
            "[service.kv]\nn = 1\nw = 2\n",
            "service.kv.w",
            "replicas",
            3,
        ),
        (
            "[service.kv]\nq = 1\n",
            "service.kv.q",
            "no such setting",
            2,
        ),
    ];
    for (contents, key, words, line) in table {
        let path = file(folder.path(), contents);
        for args in [
            vec!["config", "check", &path],
            vec!["--vnode", "kv", "--config", &path],
        ] {
            let output = run(&args);
            let said = text(&output);
            assert_eq!(output.status.code(), Some(2), "{contents:?}: {said}");
            assert!(
                said.contains(key) && said.contains(words),
                "{contents:?}: {said}"
            );
            assert!(
                said.contains(&format!("\n  in: {path}:{line}")),
                "{contents:?}: {said}"
            );
            assert!(said.contains("\n  next: "), "{contents:?}: {said}");
        }
    }
}

#[test]
fn a_file_that_cannot_be_read_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing.toml");
    for path in [missing.as_path(), folder.path()] {
        for args in [
            vec!["config", "check", arg(&path)],
            vec!["--vnode", "kv", "--config", arg(&path)],
        ] {
            let output = run(&args);
            let said = text(&output);
            assert_eq!(output.status.code(), Some(2), "{said}");
            assert!(said.contains(arg(&path)), "{said}");
        }
    }
    assert!(!missing.exists());
}

#[test]
fn the_default_file_has_every_setting_and_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let printed = run(&["config", "default"]);
    assert!(printed.status.success());
    let path = file(folder.path(), &text(&printed));
    let checked = run(&["config", "check", &path]);
    assert!(checked.status.success(), "{}", text(&checked));
    assert!(text(&checked).starts_with("ok "), "{}", text(&checked));
    let show = |args: &[&str]| text(&run(&[&["config", "show"], args].concat()));
    assert_eq!(show(&["--config", &path]), show(&[]));
    let names = show(&[]);
    for name in names
        .lines()
        .skip(1)
        .filter_map(|line| line.split_whitespace().next())
    {
        let last = name.rsplit('.').next().unwrap();
        assert!(text(&printed).contains(&format!("\n#{last} = ")), "{last}");
    }
}

#[test]
fn show_refuses_what_a_start_would_refuse() {
    let output = run(&["config", "show", "--n", "0"]);
    assert_eq!(output.status.code(), Some(2), "{}", text(&output));
    let output = finish(
        command()
            .args(["config", "show"])
            .env("VNODE_SYNC", "sometimes"),
    );
    let said = text(&output);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(
        said.contains("sync: ") && said.contains("in: environment VNODE_SYNC"),
        "{said}"
    );
}
