//! A line of text as words, with etcdctl's quoting.

use anyhow::{Result, bail};

/// Splits at blanks. `"…"` takes Go's escapes (`\n`, `\t`, `\xff`, `\"`, `\\` …), `'…'` takes
/// everything as it is.
pub(crate) fn words(line: &str) -> Result<Vec<Vec<u8>>> {
    let mut rest = line.trim_start();
    let mut found = Vec::new();
    while let Some(first) = rest.chars().next() {
        let word;
        (word, rest) = match first {
            '"' => quoted(rest)?,
            '\'' => match rest[1..].split_once('\'') {
                Some((word, after)) => (word.as_bytes().to_vec(), after),
                None => bail!("a closing ' is missing"),
            },
            _ => {
                let (word, after) =
                    rest.split_at(rest.find(char::is_whitespace).unwrap_or(rest.len()));
                (word.as_bytes().to_vec(), after)
            }
        };
        found.push(word);
        rest = rest.trim_start();
    }
    Ok(found)
}

/// Reads a string in double quotes from the start of `text`; returns it and what follows.
pub(crate) fn quoted(text: &str) -> Result<(Vec<u8>, &str)> {
    let Some(body) = text.strip_prefix('"') else { bail!("expected a \" before {text:?}") };
    let mut value = Vec::new();
    let mut letters = body.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return Ok((value, &body[at + 1..])),
            '\\' => {
                let Some((at, escape)) = letters.next() else { break };
                let skipped = unescape(escape, &body[at + escape.len_utf8()..], &mut value)?;
                if 0 < skipped {
                    letters.nth(skipped - 1);
                }
            }
            letter => value.extend(letter.encode_utf8(&mut [0; 4]).bytes()),
        }
    }
    bail!("a closing \" is missing")
}

/// Pushes what an escape stands for; returns how many of the letters after it belong to it.
fn unescape(escape: char, after: &str, value: &mut Vec<u8>) -> Result<usize> {
    let byte = match escape {
        'a' => 0x07,
        'b' => 0x08,
        'f' => 0x0c,
        'n' => b'\n',
        'r' => b'\r',
        't' => b'\t',
        'v' => 0x0b,
        '\\' => b'\\',
        '"' => b'"',
        'x' => {
            let digits =
                after.get(..2).filter(|digits| digits.bytes().all(|d| d.is_ascii_hexdigit()));
            let Some(digits) = digits else { bail!("\\x needs two hexadecimal digits") };
            value.push(u8::from_str_radix(digits, 16)?);
            return Ok(2);
        }
        'u' => {
            let Some(digits) = after.get(..4) else { bail!("\\u needs four hexadecimal digits") };
            let Some(letter) = char::from_u32(u32::from_str_radix(digits, 16)?) else {
                bail!("\\u{digits} is not a character")
            };
            value.extend(letter.encode_utf8(&mut [0; 4]).bytes());
            return Ok(4);
        }
        other => bail!("unknown escape \\{other}"),
    };
    value.push(byte);
    Ok(0)
}
