use super::*;
use proptest::prelude::*;
use redis_protocol::resp2::types::OwnedFrame as Frame2;
use redis_protocol::resp3::types::OwnedFrame as Frame3;

fn scalar() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Nil),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::Int),
        any::<f64>()
            .prop_filter("NaN equals nothing", |value| !value.is_nan())
            .prop_map(Value::Double),
        "-?[1-9][0-9]{0,40}".prop_map(Value::BigNumber),
        "[^\r\n]{0,20}".prop_map(Value::Simple),
        proptest::collection::vec(any::<u8>(), 0..30).prop_map(Value::Bulk),
        ".{0,20}".prop_map(|text| Value::Verbatim {
            format: *b"txt",
            text
        }),
        ("[A-Z]{1,10}", "[^\r\n]{0,20}").prop_map(|(code, message)| Value::Error { code, message }),
    ]
}

fn tree() -> impl Strategy<Value = Value> {
    scalar().prop_recursive(4, 40, 6, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..6).prop_map(Value::Array),
            proptest::collection::vec(inner.clone(), 0..6).prop_map(Value::Set),
            proptest::collection::vec((inner.clone(), inner), 0..4).prop_map(Value::Map),
        ]
    })
}

/// Trees that the other decoder can hold: it hashes members and keys, so those are scalars.
fn plain_tree() -> impl Strategy<Value = Value> {
    scalar().prop_recursive(4, 40, 6, |inner| {
        let key = || "[a-z]{1,5}".prop_map(Value::Simple);
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..6).prop_map(Value::Array),
            proptest::collection::vec(key(), 0..6).prop_map(Value::Set),
            proptest::collection::vec((key(), inner), 0..4).prop_map(Value::Map),
        ]
    })
}

fn encoded(value: &Value, proto: Protocol) -> Vec<u8> {
    let mut out = Vec::new();
    value.encode(proto, &mut out);
    out
}

/// Whether another decoder's value is ours. It keeps maps and sets without order or duplicates, so those are only
/// counted by their bytes.
fn same(ours: &Value, theirs: &Frame3) -> bool {
    match (ours, theirs) {
        (Value::Nil, Frame3::Null)
        | (Value::Map(_), Frame3::Map { .. })
        | (Value::Set(_), Frame3::Set { .. }) => true,
        (Value::Bool(a), Frame3::Boolean { data, .. }) => a == data,
        (Value::Int(a), Frame3::Number { data, .. }) => a == data,
        (Value::Double(a), Frame3::Double { data, .. }) => a == data,
        (Value::BigNumber(a), Frame3::BigNumber { data, .. }) => a.as_bytes() == data,
        (Value::Simple(a), Frame3::SimpleString { data, .. }) => a.as_bytes() == data,
        (Value::Bulk(a), Frame3::BlobString { data, .. }) => a == data,
        (Value::Verbatim { text, .. }, Frame3::VerbatimString { data, .. }) => {
            text.as_bytes() == data
        }
        (Value::Error { code, message }, Frame3::SimpleError { data, .. }) => {
            *data == format!("{code} {message}") || (message.is_empty() && data == code)
        }
        (Value::Array(a), Frame3::Array { data, .. }) => {
            a.len() == data.len() && a.iter().zip(data).all(|(a, b)| same(a, b))
        }
        _ => false,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn resp3_round_trips(value in tree()) {
        let bytes = encoded(&value, Protocol::Resp3);
        prop_assert_eq!(&Value::parse(&bytes, &ReplyLimits::default()).unwrap(), &value);
    }

    #[test]
    fn resp3_reads_elsewhere(value in plain_tree()) {
        let bytes = encoded(&value, Protocol::Resp3);
        let (frame, consumed) = redis_protocol::resp3::decode::complete::decode(&bytes).unwrap().unwrap();
        prop_assert_eq!(consumed, bytes.len());
        prop_assert!(same(&value, &frame), "{:?} {:?}", value, frame);
    }

    #[test]
    fn both_ways_to_resp2_agree_and_read_elsewhere(value in tree()) {
        let direct = encoded(&value, Protocol::Resp2);
        let mut converted = Vec::new();
        wire::transcode(&encoded(&value, Protocol::Resp3), Protocol::Resp2, &mut converted);
        prop_assert_eq!(&direct, &converted);
        let (frame, consumed) = redis_protocol::resp2::decode::decode(&direct).unwrap().unwrap();
        prop_assert_eq!(consumed, direct.len());
        if let (Value::Map(pairs), Frame2::Array(members)) = (&value, &frame) {
            prop_assert_eq!(pairs.len() * 2, members.len());
        }
        let old = matches!(
            frame,
            Frame2::Null | Frame2::Integer(_) | Frame2::SimpleString(_) | Frame2::BulkString(_) | Frame2::Error(_) | Frame2::Array(_)
        );
        prop_assert!(old);
    }
}

#[test]
fn json_is_what_a_person_would_write() {
    let value = Value::map([
        ("ok", Value::ok()),
        ("raw", Value::bulk(vec![0xff, 0])),
        ("list", Value::array([1_i64, 2])),
        (
            "ring",
            Value::BigNumber("1461501637330902918203684832716283019655932542975".into()),
        ),
        ("nan", Value::Double(f64::NAN)),
        ("none", Value::Nil),
        ("bad", Value::error("ERR", "no")),
    ]);
    let expected = json!({
        "ok": "OK", "raw": {"base64": "/wA="}, "list": [1, 2], "ring": "1461501637330902918203684832716283019655932542975",
        "nan": "nan", "none": null, "bad": {"error": {"code": "ERR", "message": "no"}},
    });
    assert_eq!(value.to_json(), expected);
    let keyed = Value::Map(vec![(Value::Int(1), Value::Bool(true))]);
    assert_eq!(keyed.to_json(), json!([[1, true]]));
    let twice = Value::map([("a", Value::Int(1)), ("a", Value::Int(2))]);
    assert_eq!(twice.to_json(), json!([["a", 1], ["a", 2]]));
}

#[test]
fn doubles_are_spelled_as_resp3_wants() {
    for (value, text) in [
        (0.1, ",0.1\r\n"),
        (3.0, ",3\r\n"),
        (1e300, ",1e300\r\n"),
        (-1.5e-9, ",-1.5e-9\r\n"),
        (0.0, ",0\r\n"),
        (f64::NEG_INFINITY, ",-inf\r\n"),
        (f64::NAN, ",nan\r\n"),
    ] {
        assert_eq!(
            String::from_utf8(encoded(&Value::Double(value), Protocol::Resp3)).unwrap(),
            text
        );
    }
    assert_eq!(
        encoded(&Value::Double(0.1), Protocol::Resp2),
        b"$3\r\n0.1\r\n"
    );
}

#[test]
fn no_text_breaks_the_framing() {
    let value = Value::array([Value::simple("a\r\n+b"), Value::error("ERR", "x\r\n-y")]);
    assert_eq!(
        encoded(&value, Protocol::Resp2),
        b"*2\r\n+a  +b\r\n-ERR x  -y\r\n"
    );
}
