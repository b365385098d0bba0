use super::*;
use proptest::prelude::*;
use redis_protocol::resp2::decode::decode;
use redis_protocol::resp2::types::OwnedFrame;

/// What one buffer holds: requests, and how it ends.
#[derive(Debug, PartialEq)]
struct Read {
    requests: Vec<Vec<Vec<u8>>>,
    error: Option<ProtocolError>,
}

/// Reads chunks as a connection would: nothing is parsed before `needed` bytes are there.
fn read<'a>(chunks: impl IntoIterator<Item = &'a [u8]>, limits: &Limits) -> Read {
    let (mut buf, mut args, mut needed) = (Vec::new(), Args::default(), 0);
    let mut read = Read {
        requests: Vec::new(),
        error: None,
    };
    for chunk in chunks {
        buf.extend_from_slice(chunk);
        while buf.len() >= needed {
            match parse(&buf, limits, &mut args) {
                Ok(Progress::Complete { consumed }) => {
                    let words = args.of(&buf).iter().map(<[u8]>::to_vec).collect();
                    read.requests.push(words);
                    buf.drain(..consumed);
                    needed = 0;
                }
                Ok(Progress::Incomplete { needed: more }) => {
                    assert!(more > buf.len(), "needed {more} of {}", buf.len());
                    needed = more;
                }
                Err(error) => {
                    read.error = Some(error);
                    return read;
                }
            }
        }
    }
    read
}

fn one(buf: &str) -> Result<Vec<String>, String> {
    let read = read([buf.as_bytes()], &Limits::default());
    match (read.error, read.requests.into_iter().next()) {
        (Some(error), _) => {
            let mut out = Vec::new();
            error.reply(&mut out);
            Err(String::from_utf8(out).unwrap().trim_end().to_owned())
        }
        (None, Some(words)) => Ok(words
            .into_iter()
            .map(|word| String::from_utf8(word).unwrap())
            .collect()),
        (None, None) => Ok(vec!["(incomplete)".into()]),
    }
}

#[test]
fn requests_that_redis_takes() {
    let table: &[(&str, &[&str])] = &[
        ("*1\r\n$4\r\nPING\r\n", &["PING"]),
        ("*2\r\n$3\r\nGET\r\n$0\r\n\r\n", &["GET", ""]),
        ("*0\r\n", &[]),
        ("*-1\r\n", &[]),
        ("*-10\r\n", &[]),
        ("\r\n", &[]),
        ("\n", &[]),
        ("  \t \r\n", &[]),
        ("PING\r\n", &["PING"]),
        ("  set\tk v \n", &["set", "k", "v"]),
        (r#"set k "a b\r\n\x41\"\q""#, &["(incomplete)"]),
        (
            "set k \"a b\\r\\n\\x41\\\"\\q\\xzz\"\r\n",
            &["set", "k", "a b\r\nA\"qxzz"],
        ),
        ("set k 'a\\'b\\n' \"\"\n", &["set", "k", "a'b\\n", ""]),
        ("set k a\"b c\"\n", &["set", "k", "ab c"]),
        (
            "set a'b\n",
            &["-ERR Protocol error: unbalanced quotes in request"],
        ),
        ("$5\r\n", &["$5"]),
    ];
    for (buf, words) in table {
        let got = one(buf).unwrap_or_else(|error| vec![error]);
        assert_eq!(&got, words, "{buf:?}");
    }
}

#[test]
fn requests_that_redis_refuses() {
    let table = [
        ("*\r\n", "invalid multibulk length"),
        ("*x\r\n", "invalid multibulk length"),
        ("*+1\r\n", "invalid multibulk length"),
        ("*01\r\n", "invalid multibulk length"),
        ("*-0\r\n", "invalid multibulk length"),
        ("*2147483648\r\n", "invalid multibulk length"),
        ("*99999999999999999999\r\n", "invalid multibulk length"),
        ("*1\n$4\nPING\n", "invalid multibulk length"),
        ("*1\r\r", "invalid multibulk length"),
        ("*1\r\n*1\r\n", "expected '$', got '*'"),
        ("*1\r\n\r\n", "expected '$', got '?'"),
        (
            "*3\r\n$3\r\nSET\r\n$1\r\nx\r\nfooz\r\n",
            "expected '$', got 'f'",
        ),
        ("*1\r\n$-5\r\n", "invalid bulk length"),
        ("*1\r\n$99999999999\r\n", "invalid bulk length"),
        ("*1\r\n$536870913\r\n", "invalid bulk length"),
        ("*1\r\n$\r\n", "invalid bulk length"),
        ("*1\r\n$4\r\nPINGxx", "expected CRLF after an argument"),
        ("*1\r\n$4\r\nPING\rx", "expected CRLF after an argument"),
        ("set \"a\"b\n", "unbalanced quotes in request"),
        ("set \"a\n", "unbalanced quotes in request"),
        ("set 'a\n", "unbalanced quotes in request"),
    ];
    for (buf, words) in table {
        assert_eq!(
            one(buf),
            Err(format!("-ERR Protocol error: {words}")),
            "{buf:?}"
        );
    }
}

#[test]
fn limits_hold_before_the_bytes_are_there() {
    let limits = Limits {
        arg_bytes_max: 100,
        args_max: 4,
        inline_bytes_max: 20,
        request_bytes_max: 150,
    };
    let error = |buf: &str| read([buf.as_bytes()], &limits).error;
    assert_eq!(
        error("*5\r\n"),
        Some(TooBig::Arguments { count: 5, max: 4 }.into())
    );
    assert_eq!(
        error("*1\r\n$101\r\n"),
        Some(
            TooBig::Argument {
                bytes: 101,
                max: 100
            }
            .into()
        )
    );
    let two = format!("*2\r\n$100\r\n{}\r\n$90\r\n", "x".repeat(100));
    assert!(matches!(
        error(&two),
        Some(ProtocolError::TooBig(TooBig::Request { max: 150, .. }))
    ));
    assert_eq!(
        error("a b c d e\n"),
        Some(TooBig::Arguments { count: 5, max: 4 }.into())
    );
    let line = "x".repeat(20);
    assert_eq!(error(&format!("{line}\r\n")), None);
    assert_eq!(error(&format!("{line}\r")), None);
    assert_eq!(
        error(&format!("{line}x\n")),
        Some(ProtocolError::InlineTooBig)
    );
    assert_eq!(
        error(&format!("{line}x")),
        Some(ProtocolError::InlineTooBig)
    );
    let mut out = Vec::new();
    ProtocolError::from(TooBig::Argument {
        bytes: 101,
        max: 100,
    })
    .reply(&mut out);
    assert_eq!(out, b"-TOOBIG argument of 101 bytes, the limit is 100\r\n");
}

#[test]
fn a_large_value_is_parsed_a_handful_of_times() {
    let request = format!(
        "*2\r\n$3\r\nSET\r\n$1000000\r\n{}\r\n",
        "x".repeat(1_000_000)
    );
    let (mut args, mut needed, mut parsed) = (Args::default(), 0, 0);
    for held in 0..=request.len() {
        if held >= needed {
            parsed += 1;
            match parse(&request.as_bytes()[..held], &Limits::default(), &mut args).unwrap() {
                Progress::Incomplete { needed: more } => needed = more,
                Progress::Complete { consumed } => assert_eq!(consumed, request.len()),
            }
        }
    }
    assert!(parsed < 30, "{parsed}");
}

#[test]
fn words_are_looked_at_in_several_ways() {
    let mut args = Args::default();
    let buf = b"vnode.with n 3 -- get k\r\n";
    assert!(matches!(
        parse(buf, &Limits::default(), &mut args),
        Ok(Progress::Complete { .. })
    ));
    let words = args.of(buf);
    assert_eq!(
        (words.len(), words.get(2), words.get(6)),
        (6, Some(b"3".as_slice()), None)
    );
    assert_eq!(words.skip(4).to_vec(), [b"get".as_slice(), b"k"]);
    assert!(words.skip(7).is_empty());
}

fn multibulk_of(words: &[Vec<u8>]) -> Vec<u8> {
    let mut out = Vec::new();
    write::array(&mut out, words.len());
    words.iter().for_each(|word| write::bulk(&mut out, word));
    out
}

/// Bytes that are often nearly requests.
fn soup() -> impl Strategy<Value = Vec<u8>> {
    let scrap = prop_oneof![
        4 => Just(b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n".to_vec()),
        2 => proptest::sample::select(vec![
            &b"*1\r\n"[..], b"*3\r\n", b"*0\r\n", b"*-1\r\n", b"$3\r\nabc\r\n", b"$0\r\n\r\n", b"$", b"*", b"\r\n", b"\n",
            b"PING\r\n", b"set 'a b' \"\\x41\"\r\n", b"\"", b"'", b"$60\r\n", b"*9\r\n", b"\0", b"\r",
        ]).prop_map(<[u8]>::to_vec),
        1 => proptest::collection::vec(any::<u8>(), 0..12),
    ];
    proptest::collection::vec(scrap, 0..12).prop_map(|scraps| scraps.concat())
}

fn tight() -> Limits {
    Limits {
        arg_bytes_max: 50,
        args_max: 5,
        inline_bytes_max: 40,
        request_bytes_max: 90,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn chunking_changes_nothing(bytes in soup(), cuts in proptest::collection::vec(any::<proptest::sample::Index>(), 0..8)) {
        let whole = read([bytes.as_slice()], &tight());
        prop_assert_eq!(&whole, &read(bytes.chunks(1), &tight()));
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        cuts.sort_unstable();
        let starts = std::iter::once(0).chain(cuts.iter().copied());
        let ends = cuts.iter().copied().chain(std::iter::once(bytes.len()));
        let chunks: Vec<&[u8]> = starts.zip(ends).map(|(start, end)| &bytes[start..end]).collect();
        prop_assert_eq!(&whole, &read(chunks, &tight()));
    }

    #[test]
    fn random_bytes_do_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        read([bytes.as_slice()], &Limits::default());
        read([[b"*2\r\n".as_slice(), &bytes].concat().as_slice()], &Limits::default());
    }

    #[test]
    fn valid_requests_read_as_another_decoder_reads_them(
        words in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 1..8),
    ) {
        let bytes = multibulk_of(&words);
        let read = read([bytes.as_slice()], &Limits::default());
        let (frame, consumed) = decode(&bytes).unwrap().unwrap();
        let OwnedFrame::Array(members) = frame else { panic!("{frame:?}") };
        let theirs: Vec<Vec<u8>> = members.into_iter().map(|member| match member {
            OwnedFrame::BulkString(word) => word,
            other => panic!("{other:?}"),
        }).collect();
        prop_assert_eq!(consumed, bytes.len());
        prop_assert_eq!(&theirs, &words);
        prop_assert_eq!(read, Read { requests: vec![theirs], error: None });
    }

    #[test]
    fn quoted_words_come_back(words in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..20), 1..5)) {
        let quote = |word: &Vec<u8>| {
            let bytes: String = word.iter().map(|byte| format!("\\x{byte:02x}")).collect();
            format!("\"{bytes}\"")
        };
        let line = words.iter().map(quote).collect::<Vec<_>>().join(" ") + "\r\n";
        let read = read([line.as_bytes()], &Limits::default());
        prop_assert_eq!(read, Read { requests: vec![words], error: None });
    }
}
