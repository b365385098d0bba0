//! Requests from bytes, replies to bytes.

use divan::counter::{BytesCount, ItemsCount};
use divan::{Bencher, black_box};
use vnode_host::resp::Protocol;
use vnode_host::resp::codec::{Args, Limits, Progress, parse};
use vnode_host::resp::wire::{ReplyLimits, check, transcode};

use crate::rig::{VALUE, key};

/// A request as clients send it.
fn request(words: &[&[u8]]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend_from_slice(&bulk(word));
    }
    bytes
}

fn bulk(bytes: &[u8]) -> Vec<u8> {
    [format!("${}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat()
}

fn array(members: usize, member: &[u8]) -> Vec<u8> {
    let mut bytes = format!("*{members}\r\n").into_bytes();
    for _ in 0..members {
        bytes.extend_from_slice(member);
    }
    bytes
}

#[divan::bench(args = ["PING", "GET", "SET"])]
fn parse_one(bencher: Bencher, command: &str) {
    let key = key(7);
    let words: &[&[u8]] = match command {
        "PING" => &[b"PING"],
        "GET" => &[b"GET", &key],
        _ => &[b"SET", &key, &VALUE],
    };
    let bytes = request(words);
    let (limits, mut args) = (Limits::default(), Args::default());
    bencher
        .counter(BytesCount::new(bytes.len()))
        .bench_local(|| parse(black_box(&bytes), &limits, &mut args));
}

#[divan::bench(args = ["GET", "SET"])]
fn parse_pipeline_of_16(bencher: Bencher, command: &str) {
    let one = |number| match command {
        "GET" => request(&[b"GET", &key(number)]),
        _ => request(&[b"SET", &key(number), &VALUE]),
    };
    let bytes: Vec<u8> = (0..16).flat_map(one).collect();
    let (limits, mut args) = (Limits::default(), Args::default());
    bencher.counter(ItemsCount::new(16_u32)).bench_local(|| {
        let (mut rest, mut words) = (black_box(bytes.as_slice()), 0);
        while let Ok(Progress::Complete { consumed }) = parse(rest, &limits, &mut args) {
            words += args.of(rest).len();
            rest = &rest[consumed..];
        }
        words
    });
}

/// What a guest's reply goes through on its way to a client of RESP2.
#[divan::bench(args = ["OK", "bulk of 100 B", "array of 100 bulks", "map of 100 pairs"])]
fn check_and_transcode(bencher: Bencher, reply: &str) {
    let bytes = match reply {
        "OK" => b"+OK\r\n".to_vec(),
        "bulk of 100 B" => bulk(&VALUE),
        "array of 100 bulks" => array(100, &bulk(&VALUE)),
        _ => [b"%100\r\n", &array(200, &bulk(&key(7)))[6..]].concat(),
    };
    let limits = ReplyLimits::default();
    check(&bytes, &limits).unwrap();
    let mut out = Vec::with_capacity(64 * 1024);
    bencher
        .counter(BytesCount::new(bytes.len()))
        .bench_local(|| {
            out.clear();
            check(black_box(&bytes), &limits).unwrap();
            transcode(&bytes, Protocol::Resp2, &mut out);
        });
}
