//! The table of settings, its layers, and one line for each thing that can be wrong.

use std::collections::BTreeSet;
use std::path::Path;

use super::codec::Kind;
use super::*;

/// Layers of the three sources, each as `key=value` words and the text of a file.
fn layers(flags: &[(&'static str, &str)], env: &[(&'static str, &str)], file: &str) -> Layers {
    let mut layers = Layers {
        file: FileContents::parse(Path::new("node.toml"), file).unwrap(),
        ..Layers::default()
    };
    for (key, value) in flags {
        layers.flags.entry(*key).or_default().push((*value).into());
    }
    layers.env = env
        .iter()
        .map(|(key, value)| (*key, (*value).into()))
        .collect();
    layers
}

fn resolve(flags: &[(&'static str, &str)], env: &[(&'static str, &str)], file: &str) -> Config {
    Config::resolve(&layers(flags, env, file)).unwrap()
}

fn refusal(file: &str) -> String {
    let contents = match FileContents::parse(Path::new("node.toml"), file) {
        Ok(contents) => contents,
        Err(error) => return error.to_string(),
    };
    let layers = Layers {
        file: contents,
        ..Layers::default()
    };
    Config::resolve(&layers).unwrap_err().to_string()
}

#[test]
fn flag_beats_environment_beats_file_beats_default() {
    let file = "n = 5\nr = 3\nw = 4\nring_size = 128";
    let config = resolve(&[("n", "8")], &[("n", "7"), ("r", "6")], file);
    assert_eq!(
        (config.replication.n, config.origin("n")),
        (8, Origin::Flag("n"))
    );
    assert_eq!(
        (config.replication.r, config.origin("r")),
        (6, Origin::Env("VNODE_R"))
    );
    let at = |line| Origin::File {
        path: "node.toml".into(),
        line,
    };
    assert_eq!((config.replication.w, config.origin("w")), (4, at(3)));
    assert_eq!((config.ring_size, config.origin("ring_size")), (128, at(4)));
    assert_eq!(
        (config.sync, config.origin("sync")),
        (SyncMode::Interval, Origin::Default)
    );
}

#[test]
fn every_setting_obeys_the_precedence() {
    for setting in SETTINGS.iter().filter(|setting| setting.kind != Kind::List) {
        let [low, middle, high] = samples(setting);
        let quoted = if matches!(setting.kind, Kind::Number | Kind::Switch) {
            low.into()
        } else {
            format!("{low:?}")
        };
        let file = format!("{} = {quoted}", setting.key);
        // Large enough neighbours that no sample is refused for their sake.
        let relief: &[(&'static str, &str)] = match setting.key {
            "limits.value_bytes_max" => &[("limits.reply_bytes_max", "1GiB")],
            _ => &[],
        };
        let shown = |flags: &[(&'static str, &str)], env: &[(&'static str, &str)], file: &str| {
            let flags = [flags, relief].concat();
            let config = resolve(&flags, env, file);
            ((setting.show)(&config), config.origin(setting.key))
        };
        let key = setting.key;
        assert_eq!(shown(&[], &[], "").1, Origin::Default, "{key}");
        assert_eq!(shown(&[], &[], &file).0, low, "{key}");
        assert_eq!(
            shown(&[], &[(key, middle)], &file),
            (middle.into(), Origin::Env(setting.env))
        );
        assert_eq!(
            shown(&[], &[(key, "")], &file).0,
            low,
            "{key}: an empty variable is none"
        );
        let flag = shown(&[(key, high)], &[(key, middle)], &file);
        assert_eq!(flag, (high.into(), Origin::Flag(setting.flag)));
    }
}

fn samples(setting: &Setting) -> [&'static str; 3] {
    match (setting.key, setting.kind) {
        ("r" | "w", _) => ["1", "2", "3"],
        ("port", _) => ["1000", "2000", "3000"],
        ("ring_size", _) => ["8", "16", "32"],
        ("limits.rollout_p99_percent" | "limits.rollout_time_percent", _) => ["100", "150", "200"],
        ("limits.rollout_memory_percent", _) => ["70", "80", "90"],
        ("storage", _) => ["memory", "disk", "memory"],
        ("sync", _) => ["always", "never", "interval"],
        ("hash", _) => ["etf-sha1", "v1", "etf-sha1"],
        ("log_format", _) => ["json", "text", "auto"],
        ("log", _) => ["debug", "warn", "error"],
        ("name", _) => ["a", "node1@127.0.0.1", "node@[::1]:7381"],
        ("advertise", _) => ["a.example:1", "[::1]:2", "10.0.0.1:3"],
        ("limits.key_bytes_max", _) => ["1B", "1KiB", "5KiB"],
        ("limits.value_bytes_max", _) => ["8KiB", "1MiB", "2MiB"],
        ("limits.reply_bytes_max" | "cache_bytes" | "memory_per_vnode", _) => {
            ["3MiB", "4MiB", "1GiB"]
        }
        ("limits.stack_bytes_max", _) => ["64KiB", "1MiB", "16MiB"],
        ("join", _) => ["a.example:1", "[::1]:2", "10.0.0.1:3"],
        (_, Kind::Switch) => ["true", "false", "true"],
        (_, Kind::Number) => ["2", "3", "4"],
        (_, Kind::Size) => ["20KiB", "32MiB", "1GiB"],
        (_, Kind::Time) => ["1ms", "1m 30s", "1h"],
        (_, Kind::Address) => ["127.0.0.1:1", "[::1]:2", "0.0.0.0:3"],
        (_, Kind::Path | Kind::Text | Kind::Word | Kind::List) => ["a", "b", "c"],
    }
}

#[test]
fn the_default_of_every_setting_is_what_its_text_gives() {
    for setting in SETTINGS {
        let shown = (setting.show)(&Config::default());
        if shown.is_empty() {
            continue;
        }
        let config = resolve(&[(setting.key, &shown)], &[], "");
        assert_eq!(
            Config {
                origins: BTreeMap::new(),
                ..config
            },
            Config::default(),
            "{}",
            setting.key
        );
    }
}

#[test]
fn names_of_one_setting_agree() {
    let mut seen = BTreeSet::new();
    for setting in SETTINGS {
        let last = setting.key.rsplit('.').next().unwrap();
        assert_eq!(setting.flag, last.replace('_', "-"));
        assert_eq!(setting.env, format!("VNODE_{}", last.to_uppercase()));
        assert!(seen.insert(setting.flag), "{} is there twice", setting.flag);
    }
}

#[test]
fn three_ports_follow_one_number() {
    let addresses =
        |config: &Config| [config.resp, config.http, config.peer].map(|a| a.to_string());
    let nine = resolve(&[("port", "7389")], &[], "");
    assert_eq!(
        addresses(&nine),
        ["127.0.0.1:7389", "127.0.0.1:7390", "127.0.0.1:7391"]
    );
    assert_eq!(nine.origin("peer"), Origin::Flag("port"));
    let own = resolve(
        &[("port", "7389"), ("http", "0.0.0.0:80")],
        &[],
        "resp = \"localhost:1\"",
    );
    assert_eq!(
        addresses(&own),
        ["127.0.0.1:1", "0.0.0.0:80", "127.0.0.1:7391"]
    );
    let any = resolve(&[("port", "0")], &[], "");
    assert_eq!(addresses(&any), ["127.0.0.1:0"; 3]);
}

#[test]
fn a_node_is_named_after_its_peer_address() {
    let bound = "127.0.0.1:7391".parse().unwrap();
    assert_eq!(Config::default().node_name(bound), "node@127.0.0.1:7391");
    let advertised = resolve(&[("advertise", "a.example:9")], &[], "");
    assert_eq!(advertised.node_name(bound), "node@a.example:9");
    let named = resolve(&[("name", "node1@127.0.0.1")], &[], "");
    assert_eq!(named.node_name(bound), "node1@127.0.0.1");
    assert_eq!(
        named.data_dir("node1@127.0.0.1"),
        Path::new("data/node1@127.0.0.1")
    );
    assert_eq!(
        resolve(&[("data", "/d")], &[], "").data_dir("x"),
        Path::new("/d")
    );
}

#[test]
fn guests_are_files_or_built_in_and_env_lists_them_with_commas() {
    let config = resolve(
        &[],
        &[("vnode", "kv, ./x/ping,c.wasm")],
        "vnode = [\"other\"]",
    );
    let file = |path: &str| GuestSource::File(path.into());
    assert_eq!(
        config.vnodes,
        [
            GuestSource::BuiltIn("kv".into()),
            file("./x/ping"),
            file("c.wasm")
        ]
    );
    assert_eq!(resolve(&[], &[], "vnode = [\"other\"]").vnodes.len(), 1);
    assert_eq!(resolve(&[], &[], "vnode = \"kv\"").vnodes.len(), 1);
}

#[test]
fn services_have_numbers_of_their_own() {
    let file = "[service.kv]\nn = 5\nw = 4\nlast_write_wins = true\n[service.ping]\nn = 1\n";
    let config = resolve(&[], &[], file);
    let lossy = |name| config.services.get(name).map(|one| one.last_write_wins);
    assert_eq!(
        (lossy("kv"), lossy("ping"), lossy("other")),
        (Some(true), Some(false), None)
    );
    let guest = Quorum {
        n: Some(1),
        r: None,
        w: None,
    };
    let replication = |n, r, w| Replication {
        n,
        r,
        w,
        demands: Demands::default(),
    };
    assert_eq!(
        config.service_replication("kv", guest),
        replication(5, 1, 4)
    );
    assert_eq!(
        config.service_replication("ping", guest),
        replication(1, 1, 1)
    );
    assert_eq!(
        config.service_replication("other", Quorum::default()),
        replication(3, 2, 2)
    );
    assert_eq!(
        resolve(&[("n", "1")], &[], "").replication,
        replication(1, 1, 1)
    );
}

#[test]
fn services_have_demands_and_a_time_of_their_own() {
    let file =
        "[service.kv]\npr = 1\npw = 2\ndw = 3\nnode_confirms = 2\nrequest_timeout = \"200ms\"\n";
    let config = resolve(&[], &[], file);
    let demands = |service| {
        let replication = config.service_replication(service, Quorum::default());
        let mut demands = replication.demands;
        demands.named().map(|(_, value)| *value)
    };
    assert_eq!(demands("kv"), [1, 2, 3, 2]);
    assert_eq!(demands("ping"), [0, 0, 0, 0]);
    assert_eq!(config.service_timeout("kv"), Duration::from_millis(200));
    assert_eq!(config.service_timeout("ping"), Duration::from_secs(1));
}

/// A file, and how the refusal begins.
const WRONG: &[(&str, &str)] = &[
    (
        "prot = 1",
        "prot: there is no such setting; did you mean port?",
    ),
    (
        "key_bytes_max = 1",
        "key_bytes_max: there is no such setting; did you mean limits.key_bytes_max?",
    ),
    (
        "ring-size = 64",
        "ring-size: there is no such setting; did you mean ring_size?",
    ),
    ("zebra = 1", "zebra: there is no such setting"),
    ("[tls]", "tls: there is no such setting"),
    (
        "[limits]\nkeys = 1",
        "limits.keys: there is no such setting",
    ),
    (
        "[service.kv]\nq = 1",
        "service.kv.q: there is no such setting",
    ),
    (
        "[service.kv]\npw = 4",
        "service.kv.pw: pw=4 waits for more replicas than there are (n=3)",
    ),
    (
        "[service.kv]\ndw = 9",
        "service.kv.dw: \"9\" is not a whole number from 0 to 8",
    ),
    (
        "[service.kv]\nrequest_timeout = \"2s\"",
        "service.kv.request_timeout: a service may not have more time than limits.request_timeout=1s",
    ),
    (
        "[service.kv]\nlast_write_wins = 1",
        "service.kv.last_write_wins: expected",
    ),
    ("limits = 3", "limits: there is no such setting"),
    (
        "port = 70000",
        "port: \"70000\" is not a port from 0 to 65533",
    ),
    ("port = -1", "port: \"-1\" is not a port"),
    (
        "port = \"7379\"",
        "port: expected a whole number without quotes, found a string",
    ),
    (
        "n = 2.5",
        "n: expected a whole number without quotes, found a number with a fraction",
    ),
    ("n = 0", "n: \"0\" is not a number of replicas from 1 to 8"),
    (
        "n = true",
        "n: expected a whole number without quotes, found a boolean",
    ),
    (
        "r = 4",
        "r: r=4 waits for more replicas than there are (n=3)",
    ),
    (
        "n = 2\nw = 3",
        "w: w=3 waits for more replicas than there are (n=2)",
    ),
    (
        "n = 16",
        "n: \"16\" is not a number of replicas from 1 to 8",
    ),
    (
        "ring_size = 100",
        "ring_size: \"100\" is not a power of two from 8 to 4096",
    ),
    (
        "resp = \"7379\"",
        "resp: \"7379\" is not an IP address and a port",
    ),
    (
        "resp = \"127.0.0.1:7380\"",
        "resp: http and resp are both 127.0.0.1:7380",
    ),
    (
        "advertise = \"a\"",
        "advertise: \"a\" is not a host and a port",
    ),
    ("name = \"a/b\"", "name: \"a/b\" is not a node name"),
    ("name = \"..\"", "name: \"..\" is not a node name"),
    ("name = 3", "name: expected a string, found a number"),
    ("data = \"\"", "data: \"\" is not a directory"),
    ("tls_dir = \"\"", "tls_dir: \"\" is not a directory"),
    (
        "storage = \"tape\"",
        "storage: \"tape\" is not one of disk, memory",
    ),
    (
        "sync = \"often\"",
        "sync: \"often\" is not one of always, interval, never",
    ),
    (
        "sync_interval = \"0ms\"",
        "sync_interval: \"0ms\" is not a time from 1ms to 1h",
    ),
    (
        "sync_interval = 100",
        "sync_interval: expected a time such as \"200ms\", found a number",
    ),
    (
        "memory_per_vnode = \"lots\"",
        "memory_per_vnode: \"lots\" is not a size from 2MiB to 4GiB",
    ),
    (
        "memory_per_vnode = \"8GiB\"",
        "memory_per_vnode: \"8GiB\" is not a size from 2MiB to 4GiB",
    ),
    (
        "vnode = [1]",
        "vnode: expected a list of strings, found a list of other things",
    ),
    ("vnode = [\"kv\", \"kv\"]", "vnode: \"kv\" is given twice"),
    ("vnode = [\"\"]", "vnode: an empty text names no guest"),
    ("log = \"a=b=c\"", "log: \"a=b=c\" is not a filter"),
    (
        "[limits]\nargs_max = 1",
        "limits.args_max: \"1\" is not a whole number from 2 to 65535",
    ),
    (
        "[limits]\nvalue_bytes_max = \"8MiB\"",
        "limits.value_bytes_max: a reply must have room",
    ),
    (
        "[service.kv]\nn = 2\nr = 3",
        "service.kv.r: r=3 waits for more replicas than there are (n=2)",
    ),
    (
        "[service.kv]\nn = \"2\"",
        "service.kv.n: expected a whole number",
    ),
    ("n = = 3", "the settings are not TOML: "),
];

#[test]
fn what_is_wrong_is_one_line_that_names_the_key() {
    for (file, expected) in WRONG {
        let error = refusal(file);
        let (what, place) = error.split_once("\n  in: ").expect(&error);
        assert!(what.starts_with(expected), "{file}: {error}");
        assert!(!what.contains('\n'), "{error}");
        let line = file.lines().count();
        let close = place == "node.toml:1" || place == format!("node.toml:{line}");
        assert!(close, "{error}");
    }
}

#[test]
fn every_setting_refuses_an_absurd_text_with_its_key_and_flag() {
    for setting in SETTINGS
        .iter()
        .filter(|setting| !matches!(setting.kind, Kind::Path | Kind::List))
    {
        let absurd = format!("\u{1}={}", "x".repeat(200));
        let layers = layers(&[(setting.key, &absurd)], &[], "");
        let error = Config::resolve(&layers).unwrap_err().to_string();
        assert!(error.starts_with(&format!("{}: ", setting.key)), "{error}");
        assert!(
            error.ends_with(&format!("\n  in: --{}", setting.flag)),
            "{error}"
        );
    }
}

#[test]
fn a_kubernetes_service_link_is_explained() {
    let layers = layers(&[], &[("port", "tcp://10.0.0.1:7379")], "");
    let error = Config::resolve(&layers).unwrap_err().to_string();
    assert!(
        error.contains("enableServiceLinks: false\n  in: environment VNODE_PORT"),
        "{error}"
    );
}

#[test]
fn a_file_that_is_missing_says_which() {
    let error = FileContents::read(Path::new("/nowhere/node.toml")).unwrap_err();
    assert_eq!(
        error.to_string(),
        "cannot read the settings\n  in: /nowhere/node.toml"
    );
}

proptest::proptest! {
    #[test]
    fn no_file_panics(text in "[a-z_.=\\[\\]\"0-9 \n{}]{0,60}") {
        let _ = FileContents::parse(Path::new("x"), &text)
            .and_then(|file| Config::resolve(&Layers { file, ..Layers::default() }));
    }

    #[test]
    fn no_value_panics(at in 0..SETTINGS.len(), text in "\\PC{0,20}") {
        let _ = Config::resolve(&layers(&[(SETTINGS[at].key, &text)], &[], ""));
    }

    #[test]
    fn sizes_and_times_survive_being_shown(bytes in 0_usize..1 << 40, ms in 1_u64..3_600_000) {
        let config = Config {
            cache_bytes: bytes,
            command_budget: Duration::from_millis(ms),
            ..Config::default()
        };
        let shown = |key| (setting(key).unwrap().show)(&config);
        let (size, time) = (shown("cache_bytes"), shown("command_budget"));
        let again = resolve(&[("cache_bytes", &size), ("command_budget", &time)], &[], "");
        assert_eq!((again.cache_bytes, again.command_budget), (bytes, config.command_budget));
    }
}
