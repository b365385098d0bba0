use super::*;
use crate::descriptor::{
    Aggregate, CommandKind, CommandSpec, Descriptor, KeyRange, MergePolicy, Quorum,
};
use crate::resp::catalog::Catalog;
use crate::resp::codec::{Args, Limits, parse};
use crate::resp::facts::{CommandCounters, Counters, GuestCounters};
use crate::resp::wire::{ReplyLimits, check};
use std::sync::Arc;

fn spec(
    name: &str,
    syntax: &str,
    arity: i32,
    kind: CommandKind,
    keys: Option<(u32, i32, u32)>,
) -> CommandSpec {
    CommandSpec {
        name: name.into(),
        summary: format!("About {name}."),
        syntax: syntax.into(),
        arity,
        kind,
        keys: keys.map(|(first, last, step)| KeyRange {
            first,
            last,
            step,
            prefix: String::new(),
        }),
        blind: false,
        aggregate: Aggregate::Single,
        quorum: Quorum::default(),
    }
}

fn service(name: &str, commands: Vec<CommandSpec>) -> Arc<Descriptor> {
    Arc::new(Descriptor {
        name: name.into(),
        version: "1.2.3".into(),
        schema_reads_from: 1,
        schema_writes: 1,
        merge: MergePolicy::LastWrite,
        commands,
        quorum: Quorum::default(),
    })
}

fn catalog() -> Catalog {
    let kv = vec![
        spec("GET", "key", 2, CommandKind::Read, Some((1, 1, 1))),
        spec(
            "DEL",
            "key [key ...]",
            -2,
            CommandKind::Write,
            Some((1, -1, 1)),
        ),
        spec("KEYS", "[glob]", -1, CommandKind::Coverage, None),
    ];
    let ping = vec![
        spec("PING", "[n]", -1, CommandKind::Any, None),
        spec("GET", "key", 2, CommandKind::Read, Some((1, 1, 1))),
    ];
    Catalog::new(vec![service("kv", kv), service("ping", ping)])
}

/// A node with one client, and what it says.
struct Node {
    catalog: Catalog,
    session: Session,
    password: Option<&'static str>,
    next: Next,
}

impl Node {
    fn new() -> Self {
        Self {
            catalog: catalog(),
            session: Session::new(
                7,
                "127.0.0.1:5000".into(),
                "127.0.0.1:7379".into(),
                1_000_000,
            ),
            password: None,
            next: Next::Replied(After::Continue),
        }
    }

    fn say_bytes(&mut self, words: &[&[u8]]) -> Vec<u8> {
        let mut request = Vec::new();
        write::array(&mut request, words.len());
        words
            .iter()
            .for_each(|word| write::bulk(&mut request, word));
        let mut args = Args::default();
        parse(&request, &Limits::default(), &mut args).unwrap();
        let password = self.password;
        let knows = move |user: &[u8], word: &[u8]| {
            user == b"default" && password.is_some_and(|password| password.as_bytes() == word)
        };
        let other = Session::new(9, "127.0.0.1:6000".into(), "127.0.0.1:7379".into(), 0).client;
        let facts = Facts {
            node: "node1@127.0.0.1",
            version: "0.1.0",
            run_id: "abc",
            process_id: 1,
            tcp_port: 7379,
            now_us: 1_001_500_250,
            uptime_seconds: &|| 90_000,
            catalog: &self.catalog,
            password: self.password.is_some().then_some(&knows),
            settings: &|| vec![("port".into(), "7379".into())],
            clients: &|| vec![other.clone()],
            counters: &counters,
        };
        let mut out = Vec::new();
        self.next = dispatch(args.of(&request), &mut self.session, &facts, &mut out);
        if !self.session.sends_reply() {
            out.clear();
        }
        out
    }

    fn say(&mut self, line: &str) -> String {
        let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        String::from_utf8(self.say_bytes(&words)).unwrap()
    }
}

fn counters() -> Counters {
    Counters {
        memory_bytes: 123_456_789,
        commands: vec![CommandCounters {
            name: "get".into(),
            calls: 3,
            usec: 10,
            ..Default::default()
        }],
        guests: vec![GuestCounters {
            name: "kv".into(),
            version: "1\r\nx:y".into(),
            keys: Some(3),
            ..Default::default()
        }],
        ..Counters::default()
    }
}

#[test]
fn refusals_use_the_words_of_redis() {
    let long = "x".repeat(140);
    let table = [
        (
            "foo a b",
            "unknown command 'foo', with args beginning with: 'a' 'b' ".to_owned(),
        ),
        (
            "foo",
            "unknown command 'foo', with args beginning with: ".to_owned(),
        ),
        (
            &*format!("{long} {long} c"),
            format!(
                "unknown command '{0}', with args beginning with: '{0}' ",
                "x".repeat(128)
            ),
        ),
        (
            "get",
            "wrong number of arguments for 'get' command".to_owned(),
        ),
        (
            "KV.Get",
            "wrong number of arguments for 'kv.get' command".to_owned(),
        ),
        (
            "ping a b",
            "wrong number of arguments for 'ping' command".to_owned(),
        ),
        (
            "client",
            "wrong number of arguments for 'client' command".to_owned(),
        ),
        (
            "client ID x",
            "wrong number of arguments for 'client|id' command".to_owned(),
        ),
        (
            "client foo",
            "unknown subcommand 'foo'. Try CLIENT HELP.".to_owned(),
        ),
        (
            "client setname a\nb",
            "Client names cannot contain spaces, newlines or special characters.".to_owned(),
        ),
        (
            "client setinfo foo x",
            "Unrecognized option 'foo'".to_owned(),
        ),
        (
            "client list type foo",
            "Unknown client type 'foo'".to_owned(),
        ),
        ("client list id x", "Invalid client ID".to_owned()),
        (
            "client kill id x addr y",
            "client-id should be greater than 0".to_owned(),
        ),
        ("client kill 1.2.3.4:5", "No such client".to_owned()),
        ("client reply x", "syntax error".to_owned()),
        (
            "command getkeys nosuch a",
            "Invalid command specified".to_owned(),
        ),
        (
            "command getkeys get a b",
            "Invalid number of arguments specified for command".to_owned(),
        ),
        (
            "command getkeys echo a",
            "The command has no key arguments".to_owned(),
        ),
        ("select 1", "DB index is out of range".to_owned()),
        (
            "select x",
            "value is not an integer or out of range".to_owned(),
        ),
        (
            "wait 0 x",
            "timeout is not an integer or out of range".to_owned(),
        ),
        ("wait 0 -1", "timeout is negative".to_owned()),
        (
            "hello x",
            "Protocol version is not an integer or out of range".to_owned(),
        ),
        (
            "hello 2 auth a",
            "Syntax error in HELLO option 'auth'".to_owned(),
        ),
        ("auth a b c", "syntax error".to_owned()),
    ];
    for (line, expected) in table {
        assert_eq!(
            Node::new().say(line),
            format!("-ERR {expected}\r\n"),
            "{line}"
        );
    }
    assert_eq!(
        Node::new().say("hello 4"),
        "-NOPROTO unsupported protocol version\r\n"
    );
    assert!(Node::new().say("auth a b").starts_with("-WRONGPASS "));
    assert!(Node::new().say("cluster slots").contains("VNODE.RING"));
    assert!(
        Node::new()
            .say("config set a b")
            .contains("fixed when the node starts")
    );
}

#[test]
fn plain_commands_answer() {
    let mut node = Node::new();
    let table = [
        ("PING", "+PONG\r\n"),
        ("ping hi", "$2\r\nhi\r\n"),
        ("echo hi", "$2\r\nhi\r\n"),
        ("select 0", "+OK\r\n"),
        ("time", "*2\r\n$4\r\n1001\r\n$6\r\n500250\r\n"),
        ("wait 1 100", ":0\r\n"),
        ("client id", ":7\r\n"),
        ("client getname", "$-1\r\n"),
        ("client setname me", "+OK\r\n"),
        ("client getname", "$2\r\nme\r\n"),
        ("client no-evict on", "+OK\r\n"),
        ("client no-touch on", "+OK\r\n"),
        ("client setinfo LIB-NAME l", "+OK\r\n"),
        ("auth default anything", "+OK\r\n"),
        (
            "config get SAVE p?rt",
            "*4\r\n$4\r\nport\r\n$4\r\n7379\r\n$4\r\nsave\r\n$0\r\n\r\n",
        ),
        ("command getkeys del a b", "*2\r\n$1\r\na\r\n$1\r\nb\r\n"),
        (
            "command list filterby pattern k*del",
            "*1\r\n$6\r\nkv.del\r\n",
        ),
        (
            "command list filterby module ping",
            "*2\r\n$9\r\nping.ping\r\n$8\r\nping.get\r\n",
        ),
        ("command info nosuch", "*1\r\n$-1\r\n"),
        ("info nosuch", "$0\r\n\r\n"),
        ("reset", "+RESET\r\n"),
        ("client getname", "$-1\r\n"),
    ];
    for (line, expected) in table {
        assert_eq!(node.say(line), expected, "{line}");
    }
    assert_eq!(node.say("quit"), "+OK\r\n");
    assert_eq!(node.next, Next::Replied(After::Close));
}

#[test]
fn names_go_to_built_ins_then_to_services_in_order() {
    let mut node = Node::new();
    for (line, service, command) in [
        ("get k", 0, 0),
        ("KV.GET k", 0, 0),
        ("ping.get k", 1, 1),
        ("Ping.Ping", 1, 0),
        ("keys", 0, 2),
    ] {
        assert_eq!(node.say(line), "");
        assert_eq!(
            node.next,
            Next::Guest(GuestCommand { service, command }),
            "{line}"
        );
    }
    node.say("vnode.preflist k");
    assert_eq!(node.next, Next::Node(NodeCommand::Preflist));
    let catalog = catalog();
    assert!(catalog.has_short_name(GuestCommand {
        service: 0,
        command: 0
    }));
    assert!(!catalog.has_short_name(GuestCommand {
        service: 1,
        command: 0
    }));
    assert!(catalog.find(&[b'x'; 5000]).is_none());
}

#[test]
fn hello_switches_the_protocol() {
    let mut node = Node::new();
    let reply = node.say("hello 3 setname me");
    assert!(
        reply.starts_with("%7\r\n$6\r\nserver\r\n$10\r\nvnode-host\r\n"),
        "{reply}"
    );
    assert!(reply.contains("$4\r\nmode\r\n$10\r\nstandalone\r\n"));
    assert!(reply.contains("$4\r\nname\r\n$2\r\nkv\r\n$3\r\nver\r\n:10203\r\n"));
    assert_eq!(node.session.client.name, "me");
    assert_eq!(node.say("client setname "), "+OK\r\n");
    assert_eq!(node.say("client getname"), "_\r\n");
    let info = node.say("client info");
    assert!(info.starts_with('=') && info.contains("\r\ntxt:id=7 addr=127.0.0.1:5000 "));
    assert!(node.say("info clients").contains("\r\ntxt:# Clients\r\n"));
}

#[test]
fn a_password_keeps_everything_but_the_door_shut() {
    let mut node = Node::new();
    node.password = Some("secret");
    node.session.authenticated = false;
    let noauth = "-NOAUTH Authentication required.\r\n";
    assert_eq!(node.say("ping"), noauth);
    assert_eq!(node.say("get k"), noauth);
    assert!(
        node.say("hello 3")
            .starts_with("-NOAUTH HELLO must be called")
    );
    assert_eq!(node.session.protocol(), Protocol::Resp2);
    assert!(node.say("auth wrong").starts_with("-WRONGPASS"));
    assert!(
        node.say("hello 3 auth default wrong")
            .starts_with("-WRONGPASS")
    );
    assert_eq!(node.say("auth secret"), "+OK\r\n");
    assert_eq!(node.say("ping"), "+PONG\r\n");
    node.say("reset");
    assert_eq!(node.say("ping"), noauth);
    assert!(node.say("hello 2 auth default secret").starts_with('*'));
    assert_eq!(node.say("ping"), "+PONG\r\n");
}

#[test]
fn clients_are_listed_and_killed() {
    let mut node = Node::new();
    node.say("get k");
    let list = node.say("client list");
    let own = "id=7 addr=127.0.0.1:5000 laddr=127.0.0.1:7379 name= age=1 idle=0 flags=N db=0 sub=0 psub=0 ssub=0 multi=-1 \
               events=r cmd=client|list user=default redir=-1 resp=2 lib-name= lib-ver=\n";
    assert!(list.contains(own), "{list}");
    assert_eq!(list.matches("id=").count(), 2);
    assert_eq!(
        node.say("client list id 9")
            .matches("addr=127.0.0.1:6000")
            .count(),
        1
    );
    for (line, reply, ids) in [
        ("client kill id 9", ":1\r\n", vec![9]),
        ("client kill id 7 skipme no", ":1\r\n", vec![7]),
        ("client kill type normal skipme no", ":2\r\n", vec![9, 7]),
        ("client kill 127.0.0.1:5000", "+OK\r\n", vec![7]),
    ] {
        assert_eq!(node.say(line), reply, "{line}");
        assert_eq!(node.next, Next::Replied(After::Kill(ids)), "{line}");
    }
    for line in [
        "client kill id 7 type normal",
        "client kill type pubsub skipme no",
    ] {
        assert_eq!(node.say(line), ":0\r\n", "{line}");
        assert_eq!(node.next, Next::Replied(After::Continue));
    }
}

#[test]
fn replies_can_be_switched_off() {
    let mut node = Node::new();
    assert_eq!(node.say("client reply skip"), "");
    assert_eq!(node.say("ping"), "");
    assert_eq!(node.say("ping"), "+PONG\r\n");
    assert_eq!(node.say("client reply off"), "");
    assert_eq!(node.say("client reply skip"), "");
    assert_eq!(node.say("ping"), "");
    assert_eq!(node.say("ping"), "");
    assert_eq!(node.say("client reply on"), "+OK\r\n");
    assert_eq!(node.say("ping"), "+PONG\r\n");
}

#[test]
fn guest_commands_are_documented_like_redis_own() {
    let mut node = Node::new();
    let info = "*1\r\n*10\r\n$3\r\ndel\r\n:-2\r\n*1\r\n+write\r\n:1\r\n:-1\r\n:1\r\n*3\r\n+@write\r\n+@slow\r\n+@kv\r\n*0\r\n\
                *1\r\n*6\r\n$5\r\nflags\r\n*2\r\n+RW\r\n+update\r\n$12\r\nbegin_search\r\n*4\r\n$4\r\ntype\r\n$5\r\nindex\r\n\
                $4\r\nspec\r\n*2\r\n$5\r\nindex\r\n:1\r\n$9\r\nfind_keys\r\n*4\r\n$4\r\ntype\r\n$5\r\nrange\r\n$4\r\nspec\r\n\
                *6\r\n$7\r\nlastkey\r\n:-1\r\n$7\r\nkeystep\r\n:1\r\n$5\r\nlimit\r\n:0\r\n*0\r\n";
    assert_eq!(node.say("command info DEL"), info);
    let docs = "*2\r\n$6\r\nkv.del\r\n*10\r\n$7\r\nsummary\r\n$10\r\nAbout DEL.\r\n$5\r\nsince\r\n$5\r\n1.2.3\r\n$5\r\ngroup\r\n\
                $2\r\nkv\r\n$6\r\nmodule\r\n$2\r\nkv\r\n$9\r\narguments\r\n*1\r\n*8\r\n$4\r\nname\r\n$3\r\nkey\r\n$4\r\ntype\r\n\
                $3\r\nkey\r\n$14\r\nkey_spec_index\r\n:0\r\n$5\r\nflags\r\n*1\r\n+multiple\r\n";
    assert_eq!(node.say("command docs kv.del nosuch"), docs);
    assert!(
        node.say("command docs client|id")
            .starts_with("*2\r\n$9\r\nclient|id\r\n")
    );
    let commands = TABLE.len() + 5 + 3;
    assert_eq!(node.say("command count"), format!(":{commands}\r\n"));
    assert!(node.say("command").starts_with(&format!("*{commands}\r\n")));
}

#[test]
fn info_stays_in_its_lines() {
    let mut node = Node::new();
    let all = node.say("info everything");
    for section in [
        "Server",
        "Clients",
        "Memory",
        "Stats",
        "Commandstats",
        "Cluster",
        "Guests",
        "Keyspace",
    ] {
        assert!(all.contains(&format!("# {section}\r\n")), "{section}");
    }
    assert!(
        all.contains("redis_version:7.0.0\r\n") && all.contains("used_memory_human:117.73M\r\n")
    );
    assert!(all.contains("guest_kv:version=1x:y,digest=,"));
    assert!(all.contains(
        "cmdstat_get:calls=3,usec=10,usec_per_call=3.33,rejected_calls=0,failed_calls=0\r\n"
    ));
    assert!(!node.say("info").contains("Commandstats"));
    let keyspace = "# Keyspace\r\ndb0:keys=3,expires=0,avg_ttl=0\r\nservice_kv:keys=3\r\n";
    assert_eq!(node.say("info KEYSPACE"), format!("$63\r\n{keyspace}\r\n"));
}

#[test]
fn every_reply_is_one_value_and_no_words_panic() {
    let table = TABLE
        .iter()
        .flat_map(|builtin| std::iter::once(builtin).chain(builtin.subcommands));
    let fillers: [&[u8]; 6] = [b"", b"0", b"-1", b"id", b"\xff\r\n", b"9223372036854775808"];
    for builtin in table {
        for filler in fillers {
            for extra in 0..6 {
                let mut words: Vec<&[u8]> = builtin.name.split('|').map(str::as_bytes).collect();
                words.extend(std::iter::repeat_n(filler, extra));
                let mut node = Node::new();
                node.session.client.protocol = Protocol::Resp3;
                let reply = node.say_bytes(&words);
                if !reply.is_empty() {
                    let checked = check(&reply, &ReplyLimits::default());
                    assert_eq!(checked, Ok(()), "{} {extra} {filler:?}", builtin.name);
                }
            }
        }
    }
}
