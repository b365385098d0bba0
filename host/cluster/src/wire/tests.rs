use proptest::prelude::*;

use super::*;

fn name(text: &str) -> NodeName {
    text.parse().unwrap()
}

fn a_hello() -> Hello {
    Hello {
        protocol: PROTOCOL,
        cluster: Some(ClusterId([7; 16])),
        node: name("a@10.0.0.1:7100"),
        purpose: Purpose::Bulk,
        to: Some(name("b")),
    }
}

/// Reads one frame from bytes that all came at once.
fn frame_of(mut bytes: &[u8], bytes_max: usize) -> Result<Option<Vec<u8>>, WireError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let mut frame = Vec::new();
    let read = runtime.block_on(read_frame(&mut bytes, bytes_max, &mut frame))?;
    assert!(
        frame.capacity() <= (2 * bytes.len()).max(64 * 1024),
        "memory was taken for bytes that did not come"
    );
    Ok(read.then_some(frame))
}

fn any_message() -> impl Strategy<Value = (u8, u64, Vec<u8>)> {
    (
        0..6_u8,
        any::<u64>(),
        proptest::collection::vec(any::<u8>(), 0..2000),
    )
}

fn built(kind: u8, id: u64, body: &[u8]) -> Message<'_> {
    match kind {
        0 => Message::Request { id, body },
        1 => Message::Reply { id, body },
        2 => Message::Busy { id },
        3 => Message::Tell { body },
        4 => Message::Ping,
        _ => Message::Pong,
    }
}

proptest! {
    #[test]
    fn every_message_comes_back_as_it_was((kind, id, body) in any_message()) {
        let sent = built(kind, id, &body);
        let mut bytes = Vec::new();
        put_message(&sent, &mut bytes).unwrap();
        let frame = frame_of(&bytes, CONTROL_BYTES_MAX).unwrap().unwrap();
        prop_assert_eq!(message(&frame).unwrap(), sent);
    }

    #[test]
    fn a_message_cut_short_or_followed_by_bytes_is_refused((kind, id, body) in any_message(), cut in any::<prop::sample::Index>()) {
        let mut bytes = Vec::new();
        put_message(&built(kind, id, &body), &mut bytes).unwrap();
        let frame = bytes.split_off(4);
        prop_assert!(message(&frame[..cut.index(frame.len())]).is_err());
        prop_assert!(message(&[&frame[..], &[0]].concat()).is_err());
    }

    #[test]
    fn any_bytes_are_read_or_refused_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = message(&bytes);
        let _ = hello(&bytes);
        let _ = answer(&bytes);
        let _ = protocol_of(&bytes);
        let _ = foca::Codec::decode_header(&mut PacketCodec, &bytes[..]);
        let _ = foca::Codec::decode_member(&mut PacketCodec, &bytes[..]);
        let _ = frame_of(&bytes, CONTROL_BYTES_MAX);
    }

    #[test]
    fn a_hello_with_changed_bytes_is_read_or_refused_without_panic(at in 0..40_usize, byte in any::<u8>()) {
        let mut bytes = Vec::new();
        put_hello(&a_hello(), &mut bytes).unwrap();
        let mut frame = bytes.split_off(4);
        let at = at % frame.len();
        frame[at] = byte;
        let _ = hello(&frame);
    }
}

#[test]
fn a_hello_comes_back_as_it_was() {
    for sent in [
        a_hello(),
        Hello {
            cluster: None,
            to: None,
            ..a_hello()
        },
    ] {
        let mut bytes = Vec::new();
        put_hello(&sent, &mut bytes).unwrap();
        let frame = frame_of(&bytes, HELLO_BYTES_MAX).unwrap().unwrap();
        assert_eq!(hello(&frame), Ok(sent));
        assert_eq!(protocol_of(&frame), Ok(PROTOCOL));
    }
}

#[test]
fn the_longest_names_fit_into_a_hello() {
    let long = name(&"n".repeat(NodeName::CHARS_MAX));
    let sent = Hello {
        node: long.clone(),
        to: Some(long),
        ..a_hello()
    };
    let mut bytes = Vec::new();
    put_hello(&sent, &mut bytes).unwrap();
    assert_eq!(hello(&bytes[4..]), Ok(sent));
}

#[test]
fn unknown_variants_and_bad_names_are_refused() {
    assert!(matches!(message(&[6]), Err(WireError::Malformed { .. })));
    assert!(matches!(message(&[250]), Err(WireError::Malformed { .. })));
    let mut bytes = Vec::new();
    put_hello(&a_hello(), &mut bytes).unwrap();
    let mut frame = bytes.split_off(4);
    let at = frame.iter().position(|&byte| byte == b'a').unwrap();
    frame[at] = b'/';
    assert!(
        hello(&frame)
            .unwrap_err()
            .to_string()
            .contains("visible ASCII")
    );
}

#[test]
fn a_body_that_claims_more_than_is_there_takes_no_memory() {
    // Variant, then a length of 4 GiB - 1 as bincode writes it, then nothing.
    assert!(message(&[3, 252, 255, 255, 255, 255]).is_err());
    assert!(answer(&[1, 252, 255, 255, 255, 127]).is_err());
}

#[test]
fn frames_that_are_too_long_or_cut_say_so() {
    assert_eq!(
        frame_of(b"GET / HTTP/1.1\r\n", 1000),
        Err(WireError::FrameTooLong {
            found: 0x2054_4547,
            max: 1000
        })
    );
    assert_eq!(
        frame_of(&[9, 0], 1000),
        Err(WireError::FrameCut {
            found: 2,
            expected: 4
        })
    );
    assert_eq!(
        frame_of(&[9, 0, 0, 0, 1, 2], 1000),
        Err(WireError::FrameCut {
            found: 2,
            expected: 9
        })
    );
    assert_eq!(frame_of(&[], 1000), Ok(None));
}

#[test]
fn a_message_that_is_too_long_leaves_no_trace() {
    let body = vec![0; CONTROL_BYTES_MAX];
    let mut bytes = vec![1, 2, 3];
    assert!(matches!(
        put_message(&Message::Tell { body: &body }, &mut bytes),
        Err(WireError::MessageTooLong { .. })
    ));
    assert_eq!(bytes, [1, 2, 3]);
    put_message(
        &Message::Request {
            id: u64::MAX,
            body: &body[..BODY_BYTES_MAX],
        },
        &mut bytes,
    )
    .unwrap();
}
