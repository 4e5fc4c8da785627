//! Tokens are read as GoVector writes them, and nothing else is.

use super::*;

/// The first token in the example of KVRaft (Go).
const FIRST: &[u8] = &[
    167, 115, 101, 114, 118, 101, 114, 49, 207, 83, 69, 175, 239, 205, 154, 236, 134, 133, 167, 99,
    108, 105, 101, 110, 116, 49, 205, 9, 125, 167, 115, 101, 114, 118, 101, 114, 49, 205, 14, 253,
    165, 99, 111, 111, 114, 100, 205, 1, 18, 167, 115, 101, 114, 118, 101, 114, 50, 205, 23, 51,
    167, 115, 101, 114, 118, 101, 114, 51, 205, 15, 54,
];

/// A token of KVRaft (Go), with its clock in Go's random order, is understood; written again it
/// is as long, and means the same.
#[test]
fn govectors_tokens_are_read_in_any_order() {
    let token = Token::decode(FIRST).unwrap();
    assert_eq!(token.sender.as_ref(), "server1");
    assert_eq!(token.trace_id, 6_000_395_523_022_580_870);
    let clock = "{\"client1\":2429, \"coord\":274, \"server1\":3837, \"server2\":5939, \
                 \"server3\":3894}";
    assert_eq!(token.clock.to_string(), clock);
    assert_eq!(token.encode().len(), FIRST.len());
    assert_eq!(Token::decode(&token.encode()).unwrap(), token);
    assert_eq!(Token::from_base64(&token.to_base64()).unwrap(), token);
}

/// Every number takes as few bytes as it can, and comes back.
#[test]
fn numbers_of_every_size_come_back() {
    for count in [1, 127, 128, 255, 256, 65_535, 65_536, u64::from(u32::MAX), 1 << 32, u64::MAX] {
        let a = Identity::from("a");
        let clock = VectorClock::from_iter([(Arc::clone(&a), count)]);
        let token = Token { sender: a, trace_id: u64::MAX, clock };
        assert_eq!(Token::decode(&token.encode()).unwrap(), token, "{count}");
    }
}

/// A clock of many nodes has a longer header.
#[test]
fn clocks_of_many_nodes_come_back() {
    let names = (0..300).map(|n| (Identity::from(format!("node-with-a-rather-long-name-{n}")), 7));
    let token = Token { sender: "a".into(), trace_id: 1, clock: names.collect() };
    assert_eq!(Token::decode(&token.encode()).unwrap(), token);
}

/// Whatever is cut off or put in another's place is an error, and never a panic.
#[test]
fn rubbish_is_refused() {
    for size in 0..FIRST.len() {
        assert!(Token::decode(&FIRST[..size]).is_err(), "cut at {size}");
    }
    let longer = [FIRST, &[0]].concat();
    assert_eq!(Token::decode(&longer), Err(TokenError::Trailing(1)));
    for place in 0..FIRST.len() {
        for byte in 0..=255 {
            let mut bytes = FIRST.to_vec();
            bytes[place] = byte;
            drop(Token::decode(&bytes));
        }
    }
    let huge = [&FIRST[..17], &[0xdf, 0xff, 0xff, 0xff, 0xff]].concat();
    assert_eq!(Token::decode(&huge), Err(TokenError::Nodes(u32::MAX as usize)));
    assert_eq!(Token::decode(&[0xa1, 0xff]), Err(TokenError::Name));
    assert_eq!(Token::from_base64("???"), Err(TokenError::Base64));
    let twice = [&[0xa1, b'a', 1, 0x82][..], &[0xa1, b'b', 1, 0xa1, b'b', 2]].concat();
    assert_eq!(Token::decode(&twice), Err(TokenError::Twice("b".into())));
}
