//! The state of a server as text without what the model abstracts from.
//!
//! Why through `Debug`: the derived output names every field of the production value, private ones
//! too, and a field that is added tomorrow is part of the state without anyone having to think of
//! it. What is left out is listed here, and nothing else is.
//!
//! Left out or rewritten:
//! - instants and durations: when a timer fires is an action of the model;
//! - the random numbers, which only draw durations, and the seed of the read contexts;
//! - write ids count from the last completed one: only their order to it matters;
//! - checksums follow from the rest of an entry, and the greatest id ever used is always 3;
//! - promises that are held are a set: the network neither orders nor counts what it is given;
//! - maps and sets are sorted by their renamed keys, so that a mirrored state reads the same.

use std::fmt::Write as _;

use crate::names::Renaming;

/// One value as `Debug` prints it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Tree {
    /// A number, a name, a string.
    Atom(String),
    /// `Name(a, b)`; the name is empty for a plain tuple.
    Tuple(String, Vec<Self>),
    /// `Name { field: a }`.
    Struct(String, Vec<(String, Self)>),
    /// `[a, b]`.
    List(Vec<Self>),
    /// `{a: b}` or `{a}`.
    Map(Vec<(Self, Option<Self>)>),
}

/// Renames the servers that the payload of an entry speaks of.
pub(crate) type RenamePayload = fn(&[u8], &Renaming) -> Vec<u8>;

impl Tree {
    /// Reads what `{:?}` printed.
    ///
    /// # Panics
    /// When the text is not what derived `Debug` prints.
    #[must_use]
    pub(crate) fn parse(text: &str) -> Self {
        let mut parser = Parser { rest: text };
        let tree = parser.value();
        assert!(parser.rest.is_empty(), "derived Debug prints one value: {}", parser.rest);
        tree
    }

    /// The normal form: equal for states between which the model does not distinguish.
    #[must_use]
    pub(crate) fn normal(&self, renaming: &Renaming, rename_payload: RenamePayload) -> String {
        let done = self.find("done").map_or(0, Self::number);
        let mut out = String::with_capacity(1024);
        self.render(&Context { renaming, done, rename_payload }, &mut out);
        out
    }

    fn field(&self, name: &str) -> Option<&Self> {
        let Self::Struct(_, fields) = self else { return None };
        fields.iter().find(|(field, _)| field == name).map(|(_, value)| value)
    }

    /// The first field of that name, anywhere.
    fn find(&self, name: &str) -> Option<&Self> {
        match self {
            Self::Struct(_, fields) => {
                self.field(name).or_else(|| fields.iter().find_map(|(_, value)| value.find(name)))
            }
            Self::Tuple(_, values) | Self::List(values) => {
                values.iter().find_map(|value| value.find(name))
            }
            Self::Atom(_) | Self::Map(_) => None,
        }
    }

    /// The number in `Name(7)` or `7`.
    fn number(&self) -> u64 {
        match self {
            Self::Tuple(_, values) if values.len() == 1 => values[0].number(),
            Self::Atom(text) => text.parse().expect("a newtype of a number prints one"),
            other => panic!("not a number: {other:?}"),
        }
    }

    fn is_member(&self) -> bool {
        matches!(self, Self::Tuple(name, _) if name == "MemberId")
    }

    fn render(&self, context: &Context<'_>, out: &mut String) {
        match self {
            Self::Atom(text) if is_duration(text) => out.push('~'),
            Self::Atom(text) => out.push_str(text),
            Self::Tuple(name, _) if name == "Instant" => out.push('~'),
            Self::Tuple(name, _) if name == "MemberId" => {
                let name = usize::try_from(self.number()).unwrap_or(usize::MAX);
                let renamed = context.renaming.get(name).expect("names of servers are small");
                write!(out, "#{renamed}").expect("writing to a string succeeds");
            }
            Self::Tuple(name, _) if name == "WriteId" => {
                let ahead = self.number().saturating_sub(context.done);
                write!(out, "w{ahead}").expect("writing to a string succeeds");
            }
            Self::Tuple(name, values) => {
                out.push_str(name);
                render_all(values, context, out, '(', ')');
            }
            Self::Struct(name, fields) => render_struct(name, fields, context, out),
            Self::List(values) if !values.is_empty() && values.iter().all(Self::is_member) => {
                render_sorted(values.iter().map(|value| (value, None)), context, out);
            }
            Self::List(values) => render_all(values, context, out, '[', ']'),
            Self::Map(entries) => {
                let entries = entries.iter().map(|(key, value)| (key, value.as_ref()));
                render_sorted(entries, context, out);
            }
        }
    }
}

struct Context<'a> {
    renaming: &'a Renaming,
    /// The last completed write.
    done: u64,
    rename_payload: RenamePayload,
}

fn render_all(values: &[Tree], context: &Context<'_>, out: &mut String, open: char, close: char) {
    out.push(open);
    for value in values {
        value.render(context, out);
        out.push(',');
    }
    out.push(close);
}

fn render_sorted<'a>(
    entries: impl Iterator<Item = (&'a Tree, Option<&'a Tree>)>,
    context: &Context<'_>,
    out: &mut String,
) {
    let mut lines: Vec<String> = entries
        .map(|(key, value)| {
            let mut line = String::new();
            key.render(context, &mut line);
            if let Some(value) = value {
                line.push(':');
                value.render(context, &mut line);
            }
            line
        })
        .collect();
    lines.sort_unstable();
    lines.dedup();
    out.push('{');
    for line in &lines {
        out.push_str(line);
        out.push(',');
    }
    out.push('}');
}

fn render_struct(name: &str, fields: &[(String, Tree)], context: &Context<'_>, out: &mut String) {
    out.push_str(name);
    out.push('{');
    for (field, value) in fields {
        match (field.as_str(), value) {
            ("prng" | "next_context" | "id_max" | "checksum", _) => {}
            // All but the server's own name is the same for every server.
            ("config", config) => {
                if let Some(id) = config.field("id") {
                    id.render(context, out);
                }
            }
            ("payload", Tree::Atom(quoted)) if !quoted.ends_with("b\"\"") && name == "Entry" => {
                let bytes = unquoted(quoted);
                let payload = (context.rename_payload)(&bytes, context.renaming);
                write!(out, "{payload:?}").expect("writing to a string succeeds");
            }
            ("held", Tree::List(promises)) => {
                render_sorted(promises.iter().map(|promise| (promise, None)), context, out);
            }
            _ => {
                out.push_str(field);
                out.push('=');
                value.render(context, out);
            }
        }
        out.push(',');
    }
    out.push('}');
}

/// The bytes that `b"…"` stands for.
fn unquoted(text: &str) -> Vec<u8> {
    let inner = text.strip_prefix("b\"").and_then(|rest| rest.strip_suffix('"'));
    let mut rest = inner.expect("bytes print as a byte string").bytes();
    let mut bytes = Vec::new();
    while let Some(byte) = rest.next() {
        let escaped = (byte == b'\\').then(|| rest.next().expect("an escape goes on"));
        bytes.push(match escaped {
            None => byte,
            Some(b'n') => b'\n',
            Some(b'r') => b'\r',
            Some(b't') => b'\t',
            Some(b'0') => 0,
            Some(b'x') => {
                let digits = [rest.next(), rest.next()].map(|digit| digit.expect("two digits"));
                let digits = str::from_utf8(&digits).expect("digits are text");
                u8::from_str_radix(digits, 16).expect("digits of a byte")
            }
            Some(other) => other,
        });
    }
    bytes
}

/// A number with a unit: `1.5s`, `100ms`.
fn is_duration(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_digit()) && text.ends_with('s')
}

struct Parser<'a> {
    rest: &'a str,
}

impl Parser<'_> {
    fn skip(&mut self, what: char) -> bool {
        self.rest = self.rest.trim_start();
        let found = self.rest.strip_prefix(what);
        if let Some(rest) = found {
            self.rest = rest;
        }
        found.is_some()
    }

    fn value(&mut self) -> Tree {
        self.rest = self.rest.trim_start();
        let name = self.word();
        if self.rest.starts_with('"') {
            return Tree::Atom(name + &self.quoted());
        }
        if self.rest.starts_with('(') {
            return Tree::Tuple(name, self.list('(', ')'));
        }
        if name.is_empty() && self.rest.starts_with('[') {
            return Tree::List(self.list('[', ']'));
        }
        if name.is_empty() && self.skip('{') {
            return Tree::Map(self.entries());
        }
        if self.rest.starts_with(" {") {
            self.skip('{');
            return Tree::Struct(name, self.fields());
        }
        assert!(!name.is_empty(), "derived Debug prints a value here: {}", self.rest);
        Tree::Atom(name)
    }

    fn word(&mut self) -> String {
        let is_part = |c: char| c.is_alphanumeric() || matches!(c, '_' | '.' | '-');
        let end = self.rest.find(|c| !is_part(c)).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        word.to_owned()
    }

    /// A string, with its quotes and escapes.
    fn quoted(&mut self) -> String {
        let mut escaped = false;
        let inner = &self.rest[1..];
        let end = inner.find(|c| {
            let ends = c == '"' && !escaped;
            escaped = c == '\\' && !escaped;
            ends
        });
        let end = end.expect("a string ends") + 2;
        let (text, rest) = self.rest.split_at(end);
        self.rest = rest;
        text.to_owned()
    }

    fn list(&mut self, open: char, close: char) -> Vec<Tree> {
        self.skip(open);
        let mut values = Vec::new();
        while !self.skip(close) {
            values.push(self.value());
            self.skip(',');
        }
        values
    }

    fn fields(&mut self) -> Vec<(String, Tree)> {
        let mut fields = Vec::new();
        while !self.skip('}') {
            self.rest = self.rest.trim_start();
            let name = self.word();
            assert!(self.skip(':'), "a field has a name: {}", self.rest);
            fields.push((name, self.value()));
            self.skip(',');
        }
        fields
    }

    fn entries(&mut self) -> Vec<(Tree, Option<Tree>)> {
        let mut entries = Vec::new();
        while !self.skip('}') {
            let key = self.value();
            let value = self.skip(':').then(|| self.value());
            entries.push((key, value));
            self.skip(',');
        }
        entries
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::{AS_IS, MIRRORED};

    fn normal(text: &str, renaming: &Renaming) -> String {
        Tree::parse(text).normal(renaming, |bytes, _| bytes.to_vec())
    }

    /// Times, draws and absolute write ids are gone; everything else stays.
    #[test]
    fn what_is_abstracted_is_gone_and_nothing_else() {
        let text = "Core { prng: Prng { state: [1, 2] }, now: Instant(7), wait: 1.5s, \
                    term: Term(3), done: WriteId(4), needs: [WriteId(3), WriteId(6)], \
                    payload: b\"a\\\"}\", none: None }";
        let expected = "Core{,now=~,wait=~,term=Term(3,),done=w0,needs=[w0,w2,],\
                        payload=b\"a\\\"}\",none=None,}";
        assert_eq!(normal(text, &AS_IS), expected);
    }

    /// Payloads are bytes again before they are renamed.
    #[test]
    fn bytes_are_read_back() {
        let bytes: Vec<u8> = (0..=255).collect();
        let printed = format!("{:?}", bytes::Bytes::from(bytes.clone()));
        assert_eq!(unquoted(&printed), bytes);
    }

    /// Mirroring a state is the same as having reached the mirrored one.
    #[test]
    fn maps_and_held_promises_are_mirrored() {
        let left = "R { p: {MemberId(2): A, MemberId(3): B}, v: [MemberId(1), MemberId(3)], \
                    held: [P { m: M { to: MemberId(2), x: 1 } }, P { m: M { to: MemberId(3), x: 2 } }] }";
        let right = "R { p: {MemberId(2): B, MemberId(3): A}, v: [MemberId(1), MemberId(2)], \
                     held: [P { m: M { to: MemberId(2), x: 2 } }, P { m: M { to: MemberId(3), x: 1 } }] }";
        assert_eq!(normal(left, &MIRRORED), normal(right, &AS_IS));
        assert_ne!(normal(left, &AS_IS), normal(right, &AS_IS));
    }
}
