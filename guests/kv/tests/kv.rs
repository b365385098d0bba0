//! The commands of the store, as a client meets them.

use guest_sdk::prelude::*;
use guest_sdk::testing::{Door, TestVnode, sorted};
use kv::Kv;

fn filled(keys: usize) -> Result<TestVnode<Kv>> {
    let mut kv = TestVnode::new();
    for key in 0..keys {
        kv.call(format!("SET key{key} value{key}"))?;
    }
    Ok(kv)
}

#[test]
fn values_come_back_until_they_are_deleted() -> Result<()> {
    for door in [Door::Batch, Door::Typed] {
        let mut kv = TestVnode::<Kv>::new().through(door);
        assert_eq!(kv.call("GET a")?, Reply::nil());
        assert_eq!(kv.call("SET a 1")?, "OK");
        assert_eq!(kv.call("PUT b 2")?, "OK");
        kv.restart();
        assert_eq!(kv.call("kv.get a")?, "1");
        assert_eq!(
            kv.call("MGET a x b")?,
            Reply::array([Some("1"), None, Some("2")])
        );
        assert_eq!(kv.call("EXISTS a x b a")?, 3);
        assert_eq!(kv.call("DELETE a")?, "1");
        assert_eq!(kv.call("DELETE a")?, Reply::nil());
        assert_eq!(kv.call("DEL a b b")?, 1);
        assert_eq!(kv.call("EXISTS a b")?, 0);
        assert_eq!(kv.rows().len(), 0);
    }
    Ok(())
}

#[test]
fn any_bytes_are_a_value() -> Result<()> {
    let mut kv = TestVnode::<Kv>::new();
    let all: Vec<u8> = (0..=255).collect();
    kv.call([b"SET", &all[..], &all[..]])?;
    assert_eq!(kv.call([b"GET", &all[..]])?, Reply::bulk(all));
    kv.call(["SET", "empty", ""])?;
    assert_eq!(kv.call("GET empty")?, "");
    Ok(())
}

#[test]
fn options_of_redis_are_refused_and_not_ignored() {
    let mut kv = TestVnode::<Kv>::new();
    for line in [
        "SET a 1 EX 10",
        "SET a 1 NX",
        "SCAN 0 COUNT",
        "SCAN 0 COUNT 0",
        "SCAN 0 TYPE string",
    ] {
        assert_eq!(kv.call(line), Err(Error::syntax()), "{line}");
    }
    assert_eq!(kv.call("SCAN 0 COUNT many"), Err(Error::not_an_integer()));
    for line in ["GET", "SET a", "KEYS a b", "CLEAR now", "PUT a 1 NX"] {
        let error = kv.call(line).unwrap_err();
        assert!(
            error.message().starts_with("wrong number of arguments for '"),
            "{line}: {error}"
        );
    }
    assert!(kv.rows().is_empty());
}

#[test]
fn coverage_sees_every_row_once() -> Result<()> {
    let mut kv = filled(2500)?;
    let all: Vec<_> = kv.rows().into_keys().map(|key| String::from_utf8(key).unwrap()).collect();
    assert_eq!(sorted(&kv.call("KEYS")?), all);
    assert_eq!(sorted(&kv.call("SCAN 0")?.items()[1]), all);
    assert_eq!(sorted(&kv.call("KEYS key?")?).len(), 10);
    assert_eq!(
        sorted(&kv.call("SCAN 0 match key[12] count 100")?.items()[1]),
        ["key1", "key2"]
    );
    assert_eq!(sorted(&kv.call("VALUES")?).len(), 2500);
    assert_eq!(kv.call("DBSIZE")?, 2500);
    assert_eq!(kv.call("CLEAR")?, "OK");
    assert_eq!(kv.call("DBSIZE")?, 0);
    assert_eq!(kv.call("KEYS *")?, Reply::Array(vec![]));
    Ok(())
}

#[test]
fn a_page_of_scan_has_as_many_rows_as_asked() -> Result<()> {
    let mut kv = filled(30)?;
    for (line, expected) in [
        ("SCAN 0", 10),
        ("SCAN 0 COUNT 7", 7),
        ("SCAN 0 COUNT 99999", 30),
    ] {
        let page = kv.page(line, None)?;
        assert_eq!(page.items.len(), expected, "{line}");
        assert_eq!(page.next.is_none(), expected == 30, "{line}");
    }
    Ok(())
}

#[test]
fn concurrent_values_stay_until_a_context_replaces_them() -> Result<()> {
    let at = |node: &str, actor| {
        TestVnode::<Kv>::with(Identity {
            node: node.into(),
            actor,
            ..Identity::default()
        })
    };
    let (mut east, mut west) = (at("east", 1), at("west", 2));
    east.call("SET cart milk")?;
    west.call("SET cart bread")?;
    east.merge_from(&west);
    assert_eq!(east.call("GET cart")?, "bread", "the latest");

    let reply = east.call("VGET cart")?;
    let [Reply::Bulk(context), values] = reply.items() else {
        panic!("{reply:?}")
    };
    assert_eq!(sorted(values), ["bread", "milk"]);
    east.call(["VPUT", "cart", "milk+bread", context.text()?])?;
    west.call("SET cart eggs")?;
    east.merge_from(&west);
    let reply = east.call("VGET cart")?;
    assert_eq!(
        sorted(&reply.items()[1]),
        ["eggs", "milk+bread"],
        "eggs were not in the context"
    );

    east.call("SET cart all")?;
    east.merge_from(&west);
    assert_eq!(
        sorted(&east.call("VGET cart")?.items()[1]),
        ["all"],
        "a plain write replaces what it sees"
    );
    Ok(())
}

#[test]
fn vput_answers_the_context_for_the_next_one() -> Result<()> {
    let mut kv = TestVnode::<Kv>::new();
    assert_eq!(
        kv.call("VGET k")?,
        Reply::array([Reply::bulk(""), Reply::Array(vec![])])
    );
    let first = kv.call(["VPUT", "k", "1", ""])?;
    kv.call(["VPUT", "k", "2", ""])?;
    assert_eq!(kv.call("VGET k")?.items()[1], Reply::array(["2", "1"]));
    kv.call([b"VPUT", &b"k"[..], b"3", first.as_bytes().unwrap()])?;
    assert_eq!(kv.call("VGET k")?.items()[1], Reply::array(["3", "2"]));
    assert!(kv.call(["VPUT", "k", "4", "no hex"]).is_err());
    assert!(kv.call(["VPUT", "k", "4", "00ff"]).is_err());
    Ok(())
}
