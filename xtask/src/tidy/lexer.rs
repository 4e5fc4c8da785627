//! Tells code, comments and strings of a Rust file apart.
//!
//! Why: `std::fs` in a sentence is harmless, in code it is a breach.
//!
//! Invariant: every view has as many bytes and the same line ends as the source, so that an offset
//! or a line number in one is an offset or a line number in all.
//!
//! What it deliberately lacks: tokens. A file that does not compile may confuse it.

/// A source file, seen twice.
#[derive(Debug)]
pub(super) struct Views {
    /// Code only: comments and the contents of strings are blanks.
    pub(super) code: String,
    /// Comments only.
    pub(super) comments: String,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Code,
    Comment,
    Text,
}

/// Splits `source` into its views.
pub(super) fn views(source: &str) -> Views {
    let kinds = kinds(source.as_bytes());
    Views { code: only(source, &kinds, Kind::Code), comments: only(source, &kinds, Kind::Comment) }
}

fn only(source: &str, kinds: &[Kind], wanted: Kind) -> String {
    let bytes = source
        .bytes()
        .zip(kinds)
        .map(|(byte, kind)| if byte == b'\n' || *kind == wanted { byte } else { b' ' })
        .collect();
    String::from_utf8(bytes).expect("a character lies within one kind as a whole, or is blanked")
}

/// The kind of each byte.
fn kinds(bytes: &[u8]) -> Vec<Kind> {
    let mut kinds = Vec::with_capacity(bytes.len());
    while kinds.len() < bytes.len() {
        let at = kinds.len();
        let (kind, size) = next(bytes, at);
        let size = size.clamp(1, bytes.len() - at);
        kinds.extend(std::iter::repeat_n(kind, size));
    }
    kinds
}

/// The piece that begins at `at`, and its size in bytes.
fn next(bytes: &[u8], at: usize) -> (Kind, usize) {
    let rest = &bytes[at..];
    let after_word = at > 0 && is_word(bytes[at - 1]);
    if rest.starts_with(b"//") {
        return (Kind::Comment, rest.iter().position(|b| *b == b'\n').unwrap_or(rest.len()));
    }
    if rest.starts_with(b"/*") {
        return (Kind::Comment, block_comment_size(rest));
    }
    if rest[0] == b'"' {
        return (Kind::Text, string_size(rest));
    }
    if rest[0] == b'r' && !after_word_but_byte(bytes, at, after_word) {
        let hashes = rest[1..].iter().take_while(|b| **b == b'#').count();
        if rest.get(1 + hashes) == Some(&b'"') {
            return (Kind::Text, raw_string_size(rest, hashes));
        }
    }
    if rest[0] == b'\'' {
        return char_size(rest).map_or((Kind::Code, 1), |size| (Kind::Text, size));
    }
    (Kind::Code, 1)
}

fn is_word(byte: u8) -> bool {
    byte == b'_' || byte.is_ascii_alphanumeric()
}

/// Whether the `r` at `at` ends a longer word; `br"…"` and `cr"…"` are strings still.
fn after_word_but_byte(bytes: &[u8], at: usize, after_word: bool) -> bool {
    let prefixed = at > 0 && matches!(bytes[at - 1], b'b' | b'c');
    let alone = at < 2 || !is_word(bytes[at - 2]);
    after_word && !(prefixed && alone)
}

fn block_comment_size(rest: &[u8]) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while at < rest.len() {
        if rest[at..].starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if rest[at..].starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    at
}

fn string_size(rest: &[u8]) -> usize {
    let mut at = 1;
    while at < rest.len() {
        match rest[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    at
}

fn raw_string_size(rest: &[u8], hashes: usize) -> usize {
    let open = 1 + hashes + 1;
    let mut close = vec![b'"'];
    close.extend(std::iter::repeat_n(b'#', hashes));
    rest[open..]
        .windows(close.len())
        .position(|window| window == close)
        .map_or(rest.len(), |at| open + at + close.len())
}

/// Size of the character literal that begins here; none for a lifetime.
fn char_size(rest: &[u8]) -> Option<usize> {
    if rest.get(1) == Some(&b'\\') {
        return rest.iter().skip(3).position(|b| *b == b'\'').map(|at| at + 4);
    }
    let text = std::str::from_utf8(&rest[1..rest.len().min(6)])
        .or_else(|error| std::str::from_utf8(&rest[1..1 + error.valid_up_to()]))
        .ok()?;
    let first = text.chars().next()?;
    (rest.get(1 + first.len_utf8()) == Some(&b'\'')).then_some(first.len_utf8() + 2)
}

/// Line, from 1, of the byte at `offset`.
pub(super) fn line_of(text: &str, offset: usize) -> usize {
    text.as_bytes()[..offset].iter().filter(|byte| **byte == b'\n').count() + 1
}

/// Offsets at which `word` stands as a word of its own.
pub(super) fn words(code: &str, word: &str) -> Vec<usize> {
    let bytes = code.as_bytes();
    code.match_indices(word)
        .map(|(at, _)| at)
        .filter(|at| *at == 0 || !is_word(bytes[at - 1]))
        .filter(|at| bytes.get(at + word.len()).is_none_or(|after| !is_word(*after)))
        .collect()
}
