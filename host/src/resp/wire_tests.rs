use super::*;
use proptest::prelude::*;

fn checked(text: &str) -> Result<(), ReplyError> {
    check(text.as_bytes(), &ReplyLimits::default())
}

#[test]
fn well_formed_values_pass() {
    let values = [
        "_\r\n",
        "#t\r\n",
        ":-5\r\n",
        ":9223372036854775807\r\n",
        ",1\r\n",
        ",-1.5e+300\r\n",
        ",inf\r\n",
        ",nan\r\n",
        "(-123456789012345678901234567890\r\n",
        "+\r\n",
        "+OK\r\n",
        "$0\r\n\r\n",
        "$2\r\n\r\n\r\n",
        "-ERR\r\n",
        "-WRONGTYPE no\r\n",
        "=4\r\ntxt:\r\n",
        "*0\r\n",
        "%0\r\n",
        "~1\r\n_\r\n",
        "%1\r\n+a\r\n*2\r\n:1\r\n*1\r\n_\r\n",
    ];
    for value in values {
        assert_eq!(checked(value), Ok(()), "{value:?}");
    }
}

#[test]
fn anything_else_is_refused() {
    use ReplyError::{Kind, Malformed, Trailing, Truncated};
    let table = [
        ("", Truncated),
        ("+OK", Truncated),
        ("+OK\r", Truncated),
        ("+O\rK\r\n", Malformed("line end")),
        ("+O\nK\r\n", Malformed("line end")),
        ("+OK\r\n+OK\r\n", Trailing(5)),
        ("$5\r\nabc\r\n", Truncated),
        ("$1\r\nabc\r\n", Malformed("line end")),
        ("$-1\r\n", Malformed("bulk")),
        ("$?\r\n", Malformed("bulk")),
        ("$99999999999999999999\r\n", Malformed("bulk")),
        ("*-1\r\n", Malformed("length of an aggregate")),
        ("*?\r\n", Malformed("length of an aggregate")),
        ("*2\r\n_\r\n", Truncated),
        ("*4000000000\r\n_\r\n", Truncated),
        ("%9223372036854775807\r\n", Truncated),
        ("%1\r\n_\r\n:1234\r\n_\r\n", Trailing(3)),
        ("_x\r\n", Malformed("null")),
        ("#1\r\n", Malformed("boolean")),
        (":1.5\r\n", Malformed("integer")),
        (":9223372036854775808\r\n", Malformed("integer")),
        (",.5\r\n", Malformed("double")),
        (",5.\r\n", Malformed("double")),
        (",1.e5\r\n", Malformed("double")),
        (",infinity\r\n", Malformed("double")),
        ("(1x\r\n", Malformed("big number")),
        ("+\u{fffd}\r\n-\r\n", Trailing(3)),
        ("-no code\r\n", Malformed("error code")),
        ("=3\r\ntxt\r\n", Malformed("verbatim string")),
        ("|1\r\n_\r\n_\r\n_\r\n", Kind(b'|')),
        (">1\r\n_\r\n", Kind(b'>')),
        ("!3\r\nERR\r\n", Kind(b'!')),
    ];
    for (value, error) in table {
        assert_eq!(checked(value), Err(error), "{value:?}");
    }
    assert_eq!(
        check(b"+\xff\r\n", &ReplyLimits::default()),
        Err(Malformed("simple string"))
    );
}

#[test]
fn depth_and_size_are_bounded() {
    let nested = |depth: usize| format!("{}_\r\n", "*1\r\n".repeat(depth));
    assert_eq!(checked(&nested(DEPTH_MAX)), Ok(()));
    assert_eq!(checked(&nested(DEPTH_MAX + 1)), Err(ReplyError::TooDeep));
    assert_eq!(checked(&nested(1_000_000)), Err(ReplyError::TooDeep));
    let limits = ReplyLimits {
        bytes_max: 100,
        values_max: 5,
    };
    let values = |text: &str| check(text.as_bytes(), &limits);
    assert_eq!(values("*4\r\n_\r\n_\r\n_\r\n_\r\n"), Ok(()));
    assert_eq!(
        values("*5\r\n_\r\n_\r\n_\r\n_\r\n_\r\n"),
        Err(ReplyError::TooMany(5))
    );
    assert_eq!(
        values("*2\r\n*2\r\n_\r\n_\r\n*1\r\n_\r\n"),
        Err(ReplyError::TooMany(5))
    );
    assert_eq!(
        values(&"+".repeat(101)),
        Err(ReplyError::TooLong {
            bytes: 101,
            max: 100
        })
    );
}

#[test]
fn resp2_gets_the_older_types() {
    let table = [
        ("+OK\r\n", "+OK\r\n"),
        ("_\r\n", "$-1\r\n"),
        ("#t\r\n", ":1\r\n"),
        ("#f\r\n", ":0\r\n"),
        (",1.50\r\n", "$4\r\n1.50\r\n"),
        ("(12\r\n", "$2\r\n12\r\n"),
        ("=6\r\ntxt:ab\r\n", "$2\r\nab\r\n"),
        ("~2\r\n:1\r\n-ERR x y\r\n", "*2\r\n:1\r\n-ERR x y\r\n"),
        (
            "%2\r\n+a\r\n%1\r\n+b\r\n_\r\n+c\r\n*0\r\n",
            "*4\r\n+a\r\n*2\r\n+b\r\n$-1\r\n+c\r\n*0\r\n",
        ),
    ];
    for (resp3, resp2) in table {
        assert_eq!(checked(resp3), Ok(()));
        let mut out = Vec::new();
        transcode(resp3.as_bytes(), Protocol::Resp2, &mut out);
        assert_eq!(String::from_utf8(out).unwrap(), resp2);
        let mut out = Vec::new();
        transcode(resp3.as_bytes(), Protocol::Resp3, &mut out);
        assert_eq!(String::from_utf8(out).unwrap(), resp3);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn random_bytes_do_not_panic(bytes in "[-*$+:_#,(=%~0-9a\r\n]{0,60}") {
        let verdict = checked(&bytes);
        let mut out = Vec::new();
        transcode(bytes.as_bytes(), Protocol::Resp2, &mut out);
        // The other decoder cannot hold every map and set.
        if verdict.is_ok() && !bytes.contains(['%', '~']) {
            let (_, consumed) = redis_protocol::resp3::decode::complete::decode(bytes.as_bytes()).unwrap().unwrap();
            prop_assert_eq!(consumed, bytes.len());
        }
    }
}
