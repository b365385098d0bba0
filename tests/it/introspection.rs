//! What clients and their libraries ask about the node, the connection and the commands.

use redis::Value;
use tests::resp::{Client, Protocol, Reply, encode};
use tests::{Node, eventually};

#[test]
fn hello_introduces_a_standalone_server_in_both_protocols() {
    let node = Node::in_memory();
    let mut client = node.client();
    for (words, proto) in [("HELLO", 2), ("HELLO 3", 3), ("HELLO", 3), ("HELLO 2", 2)] {
        let reply = client.run(words);
        assert_eq!(
            matches!(reply, Reply::Map(_)),
            proto == 3,
            "{words}: {reply:?}"
        );
        assert_eq!(reply.at("server"), Some(&"vnode-host".into()));
        assert_eq!(reply.at("proto"), Some(&proto.into()));
        assert_eq!(reply.at("mode"), Some(&"standalone".into()));
        assert_eq!(reply.at("role"), Some(&"master".into()));
        assert!(reply.at("id").unwrap().int() > 0);
        let modules = reply.at("modules").unwrap().clone().items();
        let names: Vec<_> = modules
            .iter()
            .map(|module| module.at("name").unwrap().text())
            .collect();
        assert_eq!(names, ["kv", "ping", "counter"]);
    }
    assert!(client.run("HELLO 4").is_error("NOPROTO"));
    assert!(client.run("HELLO x").is_error("ERR"));
    assert!(
        client
            .run("HELLO 3 AUTH default x SETNAME me")
            .at("server")
            .is_some()
    );
    assert_eq!(client.run("CLIENT GETNAME"), "me".into());
}

#[test]
fn the_built_in_commands_answer_as_in_redis() {
    let node = Node::in_memory();
    let mut client = node.client();
    let table: [(&str, Reply); 16] = [
        ("PING", Reply::Simple("PONG".into())),
        ("ECHO x", "x".into()),
        ("SELECT 0", Reply::ok()),
        (
            "SELECT 1",
            Reply::Error("ERR DB index is out of range".into()),
        ),
        ("CLIENT GETNAME", Reply::Nil),
        ("CLIENT SETNAME me", Reply::ok()),
        ("CLIENT GETNAME", "me".into()),
        ("CLIENT SETINFO LIB-NAME it", Reply::ok()),
        ("CLIENT SETINFO LIB-VER 1", Reply::ok()),
        ("CLIENT NO-EVICT ON", Reply::ok()),
        ("CLIENT NO-TOUCH ON", Reply::ok()),
        ("WAIT 0 0", 0.into()),
        ("CONFIG GET save", ["save", ""].into()),
        ("CONFIG GET appendonly", ["appendonly", "no"].into()),
        ("CLUSTER INFO", "cluster_enabled:0\r\n".into()),
        ("RESET", Reply::Simple("RESET".into())),
    ];
    for (words, expected) in table {
        assert_eq!(client.run(words), expected, "{words}");
    }
    assert_eq!(
        client.run("CLIENT GETNAME"),
        Reply::Nil,
        "RESET forgets the name"
    );
    assert!(client.run("CONFIG SET save x").is_error("ERR"));
    assert!(client.run("CLUSTER SLOTS").text().contains("VNODE.RING"));
    assert!(
        client.run("AUTH secret").is_error("ERR"),
        "no password is set"
    );
    let time = client.run("TIME").items();
    assert!(time[0].text().parse::<u64>().unwrap() > 1_600_000_000);
    assert!(time[1].text().parse::<u64>().unwrap() < 1_000_000);
    assert_eq!(client.run("QUIT"), Reply::ok());
    assert_eq!(client.try_reply(), None);
}

#[test]
fn info_counts_the_bytes_of_clients() {
    let node = Node::in_memory();
    let mut client = node.client();
    let mut totals = || {
        let text = client.run("INFO stats").text();
        let total = |name: &str| -> usize {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            line.expect("a total").parse().expect("a number")
        };
        let totals = (
            total("total_net_input_bytes:"),
            total("total_net_output_bytes:"),
        );
        (text.len(), totals)
    };
    let (reply, (read, written)) = totals();
    let (_, (read_then, written_then)) = totals();
    assert_eq!(read_then - read, encode(&["INFO", "stats"]).len());
    // A bulk string has its length before it, and two line ends.
    let head = format!("${reply}\r\n\r\n").len();
    assert_eq!(written_then - written, reply + head);
}

#[test]
fn info_has_the_sections_that_redis_tools_read() {
    let node = Node::in_memory();
    let mut client = node.client();
    client.run("SET k v");
    let info = client.run("INFO").text();
    for line in [
        "redis_version:7",
        "vnode_host_version:",
        "node:a@test",
        "connected_clients:1",
        "cluster_enabled:0",
    ] {
        assert!(info.contains(line), "{line}: {info}");
    }
    assert!(
        info.contains("# Server\r\n") && info.contains("# Keyspace"),
        "{info}"
    );
    let stats = client.run("INFO commandstats").text();
    assert!(stats.contains("cmdstat_kv.set:calls=1,"), "{stats}");
    assert_eq!(client.run("INFO nothing"), "".into());
    let pid = format!("process_id:{}\r\n", node.pid());
    assert!(client.run("INFO server").text().contains(&pid));
}

fn id_of(client: &mut Client) -> i64 {
    client.run("CLIENT ID").int()
}

#[test]
fn clients_see_each_other_and_can_end_each_other() {
    let node = Node::in_memory();
    // More than there are executors, so that some are served by another thread.
    let mut clients: Vec<_> = (0..5).map(|_| node.client()).collect();
    let ids: Vec<_> = clients.iter_mut().map(id_of).collect();
    for (client, id) in clients.iter_mut().zip(&ids) {
        client.run(&format!("CLIENT SETNAME c{id}"));
    }
    let (first, others) = clients.split_first_mut().unwrap();
    let list = first.run("CLIENT LIST").text();
    assert_eq!(list.lines().count(), 5, "{list}");
    for id in &ids {
        assert!(list.contains(&format!("id={id} addr=127.0.0.1:")), "{list}");
        assert!(list.contains(&format!(" name=c{id} ")), "{list}");
    }
    let one = first.run(&format!("CLIENT LIST ID {}", ids[2])).text();
    assert!(
        one.starts_with(&format!("id={} ", ids[2])) && one.lines().count() == 1,
        "{one}"
    );
    assert_eq!(first.run(&format!("CLIENT KILL ID {}", ids[1])), 1.into());
    assert_eq!(others[0].try_reply(), None);
    let address = others[1].stream().local_addr().unwrap();
    assert_eq!(first.run(&format!("CLIENT KILL {address}")), Reply::ok());
    assert_eq!(others[1].try_reply(), None);
    assert_eq!(
        first.run("CLIENT KILL 127.0.0.1:1"),
        Reply::Error("ERR No such client".into())
    );
    eventually("the killed ones to be gone", || {
        (first.run("CLIENT LIST").text().lines().count() == 3).then_some(())
    });
    assert_eq!(first.run("CLIENT KILL TYPE normal"), 2.into());
    assert_eq!(others[3].try_reply(), None);
    assert_eq!(
        first.run("PING"),
        Reply::Simple("PONG".into()),
        "it spares itself"
    );
    assert_eq!(first.run("CLIENT KILL TYPE normal SKIPME no"), 1.into());
    assert_eq!(first.try_reply(), None);
}

#[test]
fn a_client_hears_no_more_than_it_asks_for() {
    let node = Node::in_memory();
    let mut client = node.client();
    client.send(b"CLIENT REPLY OFF\r\nSET k 1\r\nNOPE\r\nMGET k\r\nDBSIZE\r\nPING\r\nCLIENT REPLY ON\r\nGET k\r\n");
    assert_eq!(client.reply(), Reply::ok());
    assert_eq!(client.reply(), "1".into());
    client.send(b"CLIENT REPLY SKIP\r\nSET k 2\r\nGET k\r\n");
    assert_eq!(client.reply(), "2".into());
    client.send(b"CLIENT REPLY SKIP\r\nKEYS\r\nPING\r\n");
    assert_eq!(client.reply(), Reply::Simple("PONG".into()));
}

#[test]
fn commands_of_guests_are_listed_beside_the_built_in_ones() {
    let node = Node::in_memory();
    let mut client = node.client();
    let list: Vec<_> = client
        .run("COMMAND LIST")
        .items()
        .iter()
        .map(Reply::text)
        .collect();
    for name in [
        "ping",
        "client",
        "get",
        "kv.get",
        "incr",
        "counter.incr",
        "ping.ping",
        "vnode.ring",
    ] {
        assert!(list.contains(&name.to_owned()), "{name}: {list:?}");
    }
    let count = client.run("COMMAND COUNT").int();
    assert_eq!(
        client.run("COMMAND").items().len(),
        usize::try_from(count).unwrap()
    );
    assert_eq!(list.len(), usize::try_from(count).unwrap());
    let info = client.run("COMMAND INFO get nope kv.del").items();
    assert_eq!(info[1], Reply::Nil);
    let get = info[0].clone().items();
    assert_eq!((get[0].text().as_str(), &get[1]), ("get", &2.into()));
    assert_eq!(get[3..6], [1.into(), 1.into(), 1.into()]);
    let del = info[2].clone().items();
    assert_eq!((del[1].int(), del[4].int()), (-2, -1));
    assert_eq!(
        client.run("COMMAND GETKEYS MGET a b c"),
        ["a", "b", "c"].into()
    );
    assert_eq!(client.run("COMMAND GETKEYS SET a b"), ["a"].into());
}

#[test]
fn a_redis_library_reads_the_documentation_of_guest_commands() {
    let node = Node::in_memory();
    let mut redis = node.redis();
    let docs: Value = redis::cmd("COMMAND")
        .arg("DOCS")
        .arg("get")
        .query(&mut redis)
        .unwrap();
    let text = format!("{docs:?}");
    for part in ["get", "summary", "Get a value", "arguments", "key"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let all: Value = redis::cmd("COMMAND").arg("DOCS").query(&mut redis).unwrap();
    let Value::Array(pairs) = &all else {
        panic!("{all:?}")
    };
    assert!(
        pairs.len() > 60 && pairs.len().is_multiple_of(2),
        "{}",
        pairs.len()
    );
    let docs = node
        .client_in(Protocol::Resp3)
        .run("COMMAND DOCS kv.incr counter.incr");
    assert_eq!(
        docs.at("counter.incr")
            .unwrap()
            .at("summary")
            .unwrap()
            .text(),
        "Add one"
    );
    assert!(docs.at("kv.incr").is_none());
}

#[test]
fn a_redis_library_works_with_its_own_words() {
    use redis::Commands;
    let node = Node::in_memory();
    let mut redis = node.redis();
    let () = redis.set("k", "v").unwrap();
    assert_eq!(
        redis.get::<_, Option<String>>("k").unwrap(),
        Some("v".into())
    );
    assert_eq!(redis.get::<_, Option<String>>("none").unwrap(), None);
    assert_eq!(redis.incr::<_, _, i64>("n", 5).unwrap(), 5);
    assert_eq!(
        redis
            .mget::<_, Vec<Option<String>>>(&["k", "none"])
            .unwrap(),
        [Some("v".into()), None]
    );
    let (a, b): (String, i64) = redis::pipe()
        .set("k", "w")
        .ignore()
        .get("k")
        .incr("n", 1)
        .query(&mut redis)
        .unwrap();
    assert_eq!((a.as_str(), b), ("w", 6));
    for n in 0..200 {
        let () = redis.set(format!("s:{n}"), n).unwrap();
    }
    let scanned = redis.scan_match::<_, String>("s:*").unwrap();
    assert_eq!(scanned.count(), 200);
    let error = redis::cmd("GET").query::<String>(&mut redis).unwrap_err();
    assert!(
        error.to_string().contains("wrong number of arguments"),
        "{error}"
    );
}

#[test]
fn our_own_commands_show_the_ring() {
    let node = Node::in_memory();
    for protocol in [Protocol::Resp2, Protocol::Resp3] {
        let mut client = node.client_in(protocol);
        let ring = client.run("VNODE.RING");
        assert_eq!(ring.at("size"), Some(&64.into()));
        assert_eq!(
            ring.at("owners").unwrap().clone().items(),
            vec![Reply::from("a@test"); 64]
        );
        assert_eq!(client.run("VNODE.STATUS").at("verdict"), Some(&"ok".into()));
        let preflist = client.run("VNODE.PREFLIST user:42").items();
        assert_eq!(preflist.len(), 3);
        let over_http = node.json("/v1/ring/preflist?key=user:42");
        for (ours, theirs) in preflist
            .iter()
            .zip(over_http["replicas"].as_array().unwrap())
        {
            let ours = ours.clone().items();
            assert_eq!(Some(ours[0].int()), theirs["partition"].as_i64());
            assert_eq!(Some(ours[1].text().as_str()), theirs["node"].as_str());
        }
        assert_eq!(
            client.run("VNODE.PREFLIST k SERVICE counter").items().len(),
            3
        );
        assert!(client.run("VNODE.PREFLIST k SERVICE nope").is_error("ERR"));
        assert!(client.run("VNODE.HELP") != Reply::Nil);
    }
}
