//! What `etcdctl` 3.4 really sends, in pieces of every size, and what must pass untouched.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{Lenient, PREFACE, URL_PLAIN};

/// SETTINGS, an acknowledgement, the HEADERS of `endpoint status` for `http://127.0.0.1:14389`, and
/// its DATA: captured from `etcdctl` 3.4.23.
const CAPTURED: &[u8] = b"\x00\x00\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x04\x01\x00\x00\x00\x00\
    \x00\x00w\x01\x04\x00\x00\x00\x01\x83\x86E\x97`\xa9$\x88-\x9d\xcbeq\xaf\xa0f\xa9%\xa8u\x10\xac\
    nH\xd3j?A\x90\x9d)\xae\xe3\x0c\x04N\xae\x05\xc0\xb8n\x05\xa6^\x7f_\x8b\x1du\xd0b\r&=LMedz\x8b\
    \x9a\xca\xc8\xb4\xc7`+\xb2\xca\xec\xff@\x02te\x86M\x835\x05\xb1\x1f@\x89\x9a\xca\xc8\xb2MIOj\
    \x7f\x86\x0b\xef4\xd3\xce\xdb@\x8d%\x06-IXu\x99n\xe5\xb1\x06=_\x033.4\x00\x00\x05\x00\x01\x00\
    \x00\x00\x01\x00\x00\x00\x00\x00";

/// What a server reads of `sent`, written in pieces of `size`.
async fn passed(sent: &[u8], size: usize) -> Vec<u8> {
    let (mut client, server) = tokio::io::duplex(size);
    let mut server = Lenient::new(server);
    let mut read = Vec::new();
    let write = async {
        client.write_all(sent).await.unwrap();
        client.shutdown().await.unwrap();
    };
    let (_, result) = tokio::join!(write, server.read_to_end(&mut read));
    result.unwrap();
    read
}

fn request(block: &[u8], flags: u8) -> Vec<u8> {
    let head = [0, 0, u8::try_from(block.len()).unwrap(), 1, flags, 0, 0, 0, 1];
    [PREFACE, &head, block].concat()
}

#[tokio::test]
async fn captured_url_becomes_a_name_whatever_the_pieces() {
    let sent = [PREFACE, CAPTURED].concat();
    let mut expected = sent.clone();
    let at = sent.windows(3).position(|bytes| bytes == [0xae, 0xe3, 0x0c]).unwrap();
    expected[at + 1..at + 3].copy_from_slice(&[0xea, 0xcb]);
    for size in [1, 2, 7, 33, 64, 4096] {
        assert_eq!(passed(&sent, size).await, expected, "pieces of {size}");
    }
    // A second block with the same authority is mended too: header tables forget.
    let twice = [&sent[..], &CAPTURED[18..]].concat();
    let mended = passed(&twice, 64).await;
    assert_eq!(mended.windows(3).filter(|bytes| *bytes == [0xae, 0xea, 0xcb]).count(), 2);
}

#[tokio::test]
async fn url_in_plain_text_behind_padding_and_priority_becomes_a_name() {
    let field = [&[0x41, 11], &URL_PLAIN[..], b"a:80"].concat();
    let block = [&[2, 0, 0, 0, 0, 7, 0x83, 0x40, 1, b'x', 1, b'y'], &field[..], &[0, 0]].concat();
    let read = passed(&request(&block, 0x04 | 0x08 | 0x20), 5).await;
    assert!(read.windows(11).any(|bytes| bytes == b"httpB--a:80"), "{read:?}");
    assert_eq!(read.len(), PREFACE.len() + 9 + block.len());
}

#[tokio::test]
async fn everything_else_passes_as_it_is() {
    let name = [&[0x83, 0x41, 9], &b"localhost"[..]].concat();
    let url_elsewhere = [&[0x83, 0x44, 9], &b"http://ab"[..]].concat();
    let cut_short = [0x83, 0x41, 0xff, 0xff, 0xff, 0xff, 0xff];
    let cases = [
        request(&name, 4),
        request(&url_elsewhere, 4),
        request(&cut_short, 4),
        request(&[], 4),
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        PREFACE[..10].to_vec(),
        Vec::new(),
        // A frame beyond what was agreed is for the library to judge.
        [PREFACE, &[1, 0, 0, 1, 4, 0, 0, 0, 1], &[0; 50]].concat(),
    ];
    for sent in cases {
        for size in [1, 16, 4096] {
            assert_eq!(passed(&sent, size).await, sent, "pieces of {size}");
        }
    }
}
