//! What refuses a start: one clear error, and nothing left behind.

use std::net::TcpListener;
use std::path::Path;
use std::process::Output;

use tests::{Starter, arg, command, eventually, finish, root, seed, text, tree};

/// Runs the program in this folder until it ends.
fn run_in(folder: &Path, args: &[&str]) -> Output {
    finish(command().current_dir(folder).args(args))
}

/// The refusal: one error in the style of three lines, the exit code, and a folder that is as it was.
fn refused(folder: &Path, args: &[&str], code: i32) -> String {
    let before = tree(folder);
    let output = run_in(folder, args);
    let said = text(&output);
    assert_eq!(output.status.code(), Some(code), "{args:?}: {said}");
    let errors = said
        .lines()
        .filter(|line| line.starts_with("error: "))
        .count();
    assert_eq!(errors, 1, "{args:?}: one error: {said}");
    assert!(
        !said.contains("panicked") && !said.contains("ready  "),
        "{args:?}: {said}"
    );
    assert!(
        tree(folder) == before,
        "{args:?} left something behind: {said}"
    );
    said
}

#[test]
fn components_that_cannot_be_served_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| std::fs::write(folder.path().join(name), bytes).unwrap();
    write("empty.wasm", b"");
    write("garbage.wasm", &[0xa5; 4096]);
    write("text.wasm", b"not wasm at all");
    write("core.wasm", &wat::parse_str("(module)").unwrap());
    write("bare.wasm", &wat::parse_str("(component)").unwrap());
    let good = std::fs::read(tests::guest("kv")).unwrap();
    write("cut.wasm", &good[..good.len() / 2]);
    std::fs::create_dir(folder.path().join("folder.wasm")).unwrap();
    let table = [
        ("missing.wasm", "missing.wasm"),
        ("./no/such/file", "no/such/file"),
        ("empty.wasm", "empty.wasm"),
        ("garbage.wasm", "garbage.wasm"),
        ("text.wasm", "text.wasm"),
        ("core.wasm", "core.wasm"),
        ("bare.wasm", "bare.wasm"),
        ("cut.wasm", "cut.wasm"),
        ("folder.wasm", "folder.wasm"),
        ("nobody", "kv, ping, counter"),
    ];
    for (guest, words) in table {
        let said = refused(folder.path(), &["--vnode", guest, "--port", "0"], 1);
        assert!(said.contains(words), "{guest}: {said}");
        assert!(said.contains("\n  next: "), "{guest}: {said}");
    }
}

#[test]
fn a_service_is_served_by_one_guest() {
    let folder = tempfile::tempdir().unwrap();
    let said = refused(
        folder.path(),
        &["--vnode", "kv", "--vnode", "kv", "--port", "0"],
        2,
    );
    assert!(said.contains("\"kv\" is given twice"), "{said}");
    let component = tests::guest("kv");
    let said = refused(
        folder.path(),
        &["--vnode", "kv", "--vnode", arg(&component), "--port", "0"],
        1,
    );
    assert!(said.contains("two guests are named \"kv\""), "{said}");
}

#[test]
fn wrong_settings_are_refused_and_the_error_names_the_setting() {
    let folder = tempfile::tempdir().unwrap();
    let table: [(&[&str], &str); 16] = [
        (&["--ring-size", "63"], "ring_size"),
        (&["--ring-size", "0"], "ring_size"),
        (&["--ring-size", "8192"], "ring_size"),
        (&["--n", "0"], "n: "),
        (&["--n", "-1"], "n: "),
        (&["--r", "4"], "r: "),
        (&["--w", "x"], "w: "),
        (&["--port", "65536"], "port"),
        (&["--port", "x"], "port"),
        (&["--resp", "nowhere"], "resp"),
        (
            &["--resp", "127.0.0.1:7000", "--http", "127.0.0.1:7000"],
            "127.0.0.1:7000",
        ),
        (&["--storage", "tape"], "storage"),
        (&["--sync", "sometimes"], "sync"),
        (&["--memory-per-vnode", "1"], "memory_per_vnode"),
        (&["--command-budget", "soon"], "command_budget"),
        (&["--name", "two words"], "name"),
    ];
    for (flags, words) in table {
        let said = refused(folder.path(), &[&["--vnode", "kv"], flags].concat(), 2);
        assert!(said.contains(words), "{flags:?}: {said}");
        let named = flags
            .iter()
            .any(|flag| said.contains(&format!("\n  in: {flag}\n")));
        assert!(named, "{flags:?}: where it was set: {said}");
    }
}

#[test]
fn what_is_no_flag_or_command_is_a_matter_of_usage() {
    let folder = tempfile::tempdir().unwrap();
    let table: [(&[&str], &str); 5] = [
        (&[], "no guest"),
        (&["run"], "no guest"),
        (&["--vnode", "kv", "--bogus"], "--bogus"),
        (&["bogus"], "bogus"),
        (&["--vnode", "kv", "status"], "status"),
    ];
    for (args, words) in table {
        let said = refused(folder.path(), args, 2);
        assert!(said.contains(words), "{args:?}: {said}");
    }
}

#[test]
fn a_port_in_use_is_refused_and_named() {
    let folder = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for flag in ["--resp", "--http"] {
        let said = refused(
            folder.path(),
            &["--vnode", "kv", "--port", "0", flag, &address],
            1,
        );
        assert!(
            said.contains(&address) && said.contains("\n  next: "),
            "{flag}: {said}"
        );
    }
}

#[test]
fn a_directory_of_somebody_else_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let start = [
        "--vnode", "kv", "--port", "0", "--name", "a@test", "--data", "data",
    ];
    std::fs::create_dir(&data).unwrap();
    std::fs::write(data.join("thesis.txt"), "years of work").unwrap();
    let said = refused(folder.path(), &start, 1);
    assert!(said.contains("thesis.txt"), "{said}");
    std::fs::remove_dir_all(&data).unwrap();
    std::fs::write(&data, "a file").unwrap();
    let said = refused(folder.path(), &start, 1);
    assert!(said.contains("not a directory"), "{said}");
}

#[test]
fn a_directory_of_another_name_is_refused_with_the_right_name() {
    let folder = tempfile::tempdir().unwrap();
    seed(&folder.path().join("data"));
    let start = [
        "--vnode", "kv", "--port", "0", "--name", "b@test", "--data", "data",
    ];
    let said = refused(folder.path(), &start, 1);
    assert!(said.contains("a@test") && said.contains("b@test"), "{said}");
}

#[test]
fn an_identity_that_is_damaged_or_from_the_future_is_refused_and_kept() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    seed(&data);
    let start = [
        "--vnode", "kv", "--port", "0", "--name", "a@test", "--data", "data",
    ];
    let good = std::fs::read_to_string(data.join("node.toml")).unwrap();
    let damages = [
        good.replace("a@test", "b@test"),
        good.replace("format = 1", "format = 2"),
        good[..good.len() / 2].to_owned(),
        String::new(),
        "\u{0}\u{1}".to_owned(),
    ];
    for damage in damages {
        assert_ne!(damage, good);
        std::fs::write(data.join("node.toml"), &damage).unwrap();
        let said = refused(folder.path(), &start, 1);
        assert!(said.contains("node.toml"), "{said}");
    }
}

#[test]
fn the_first_start_makes_a_directory_and_the_second_finds_it() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("deep/down/data");
    let first = Starter::three(&[]).data(&data).start();
    assert!(
        first.banner.contains("new data directory"),
        "{}",
        first.banner
    );
    assert_eq!(first.client().run("SET k v"), tests::resp::Reply::ok());
    assert!(first.terminate().status.success());
    let second = Starter::three(&[]).data(&data).start();
    assert!(
        !second.banner.contains("new data directory"),
        "{}",
        second.banner
    );
    assert_eq!(second.client().run("GET k"), "v".into());
}

#[test]
fn a_node_needs_nothing_but_a_guest() {
    let folder = tempfile::tempdir().unwrap();
    // The default ports may be taken on this machine, so here they are not asked for; nothing else is given.
    let mut node = command()
        .current_dir(folder.path())
        .args(["run", "--vnode", "ping", "--port", "0"])
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let made = eventually("the data directory", || {
        let mut found = std::fs::read_dir(folder.path().join("data")).ok()?;
        let name = found.next()?.ok()?.file_name().into_string().ok()?;
        folder
            .path()
            .join("data")
            .join(&name)
            .join("node.toml")
            .is_file()
            .then_some(name)
    });
    node.kill().unwrap();
    node.wait().unwrap();
    assert!(made.starts_with("node@127.0.0.1:"), "{made}");
}

#[test]
fn the_banner_names_the_node_its_guests_and_its_addresses() {
    let node = Starter::three(&["--ring-size", "16"]).start();
    let banner = &node.banner;
    let labels: Vec<_> = banner
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    assert_eq!(
        labels,
        [
            "node", "guest", "guest", "guest", "ring", "storage", "resp", "http", "peer", "ready"
        ]
    );
    let digest = node.json("/v1/services")["services"][0]["digest"]
        .as_str()
        .unwrap()
        .to_owned();
    for part in [
        "a@test",
        "kv 0.",
        "16 partitions",
        "GET SET",
        "48/48 vnodes",
        &digest[..12],
    ] {
        assert!(banner.contains(part), "{part}: {banner}");
    }
    assert!(node.resp.ip().is_loopback() && node.http.ip().is_loopback());
}

#[test]
fn one_number_gives_neighbouring_ports() {
    // Three free neighbours: another program may take one meanwhile, so it is tried again.
    let node = (0..20).find_map(|_| {
        let free = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let port = free.checked_add(2)? - 2;
        let all = (port..port + 3).map(|port| TcpListener::bind(("127.0.0.1", port)).ok());
        let all: Option<Vec<_>> = all.collect();
        drop(all?);
        let port = port.to_string();
        Some(
            Starter::three(&["--port", &port, "--storage", "memory"])
                .own_ports()
                .start(),
        )
    });
    let node = node.expect("free ports");
    assert_eq!(node.http.port(), node.resp.port() + 1);
    let peer = node.json("/v1/cluster")["members"][0]["addresses"]["peer"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(peer, format!("127.0.0.1:{}", node.resp.port() + 2));
}

#[test]
fn a_component_from_a_file_is_the_same_service_as_the_built_in_one() {
    let component = tests::guest("ping");
    let node = Starter::new(&["--vnode", arg(&component), "--storage", "memory"]).start();
    assert_eq!(node.client().run("PING.PING").items().len(), 3);
    assert!(
        node.client()
            .run("GET k")
            .text()
            .starts_with("ERR unknown command 'GET'")
    );
    assert!(component.starts_with(root()));
}
