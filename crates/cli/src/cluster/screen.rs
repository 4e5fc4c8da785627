//! What a local cluster prints: its own lines and those of its servers, a colour for each.
//!
//! With logs in JSON, standard output carries those and nothing else, so that it can be piped.

use std::io::{IsTerminal, Write};

/// Where lines go, and how.
#[derive(Clone, Copy, Debug)]
pub(super) struct Screen {
    json: bool,
    coloured: bool,
}

impl Screen {
    pub(super) fn new(json: bool) -> Self {
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self { json, coloured: !json && wanted && std::io::stdout().is_terminal() }
    }

    pub(super) fn is_coloured(self) -> bool {
        self.coloured
    }

    /// A line of the cluster's own.
    pub(super) fn say(self, text: &str) {
        if self.json {
            write(&mut std::io::stderr().lock(), text);
        } else {
            write(&mut std::io::stdout().lock(), text);
        }
    }

    /// A line of a server.
    pub(super) fn relay(self, number: u64, line: &str) {
        let mut out = std::io::stdout().lock();
        if self.json {
            // Which server it is becomes the first field of the object.
            let named = line
                .strip_prefix('{')
                .map(|rest| format!("{{\"server\":\"server-{number}\",{rest}"));
            write(&mut out, named.as_deref().unwrap_or(line));
        } else if self.coloured {
            let colour = COLOURS[usize::try_from(number).unwrap_or_default() % COLOURS.len()];
            write(&mut out, &format!("\x1b[{colour}mserver-{number} |\x1b[0m {line}"));
        } else {
            write(&mut out, &format!("server-{number} | {line}"));
        }
    }
}

/// Whoever read the output may have gone; the cluster goes on.
fn write(out: &mut impl Write, line: &str) {
    drop(writeln!(out, "{line}"));
    drop(out.flush());
}

/// ANSI foreground colours that read well on dark and light: none is a level's colour.
const COLOURS: [u8; 7] = [36, 35, 34, 96, 95, 94, 90];
