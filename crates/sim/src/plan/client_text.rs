//! Clients and their operations as text: one line says what a client is like, one line each what it
//! does.
//!
//! ```text
//! client 1 home 2 pinned session 2.000s
//! client 1 after 0.001s put k0 c1v1
//! client 1 after 0.013s get k0..k9
//! client 1 reserve 0.001s swap k0 c1v2
//! ```

use std::{fmt, time::Duration};

use bytes::Bytes;
use kvraft_base::MemberId;

use super::{
    ClientPlan, Intent, PlannedOperation,
    clients::{CLIENT_MAX, PAUSE_MIN},
    text::{Words, seconds},
};
use crate::history::Action;

/// A line about a client.
pub(super) enum ClientLine {
    /// What it is like.
    Is(ClientPlan),
    /// What it does: the client's number and the operation.
    Does(u64, PlannedOperation),
}

/// The longest word that is taken for a key or a value, in bytes.
const WORD_SIZE_BYTES_MAX: usize = 1024;

/// What a client is like, as one line; only what is not plain is said.
pub(super) fn write_client(f: &mut impl fmt::Write, client: &ClientPlan) -> fmt::Result {
    let plain = ClientPlan::plain(client.id);
    write!(f, "client {} home {}", client.id, client.home)?;
    if client.is_pinned {
        f.write_str(" pinned")?;
    }
    if let Some(session) = client.session {
        write!(f, " session {}", seconds(session))?;
    }
    let times = [
        ("pause", client.pause_max, plain.pause_max),
        ("attempt", client.attempt_timeout, plain.attempt_timeout),
        ("operation", client.operation_timeout, plain.operation_timeout),
    ];
    for (word, time, _) in times.into_iter().filter(|(_, time, plain)| time != plain) {
        write!(f, " {word} {}", seconds(time))?;
    }
    f.write_char('\n')?;
    for PlannedOperation { after, is_reserve, intent } in &client.operations {
        let when = if *is_reserve { "reserve" } else { "after" };
        writeln!(f, "client {} {when} {} {intent}", client.id, seconds(*after))?;
    }
    Ok(())
}

impl fmt::Display for Intent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::One(action) => write_action(f, action),
            Self::Stale(action) => {
                f.write_str("stale-")?;
                write_action(f, action)
            }
            Self::Swap { key, value } => write!(f, "swap {} {}", word(key), word(value)),
            Self::Past { key, end, back } => write!(f, "past-get {} {back}", span(key, end)),
            Self::Compact { back } => write!(f, "compact {back}"),
            Self::Together(actions) => {
                for (number, action) in actions.iter().enumerate() {
                    f.write_str(if number == 0 { "together " } else { " + " })?;
                    write_action(f, action)?;
                }
                Ok(())
            }
        }
    }
}

fn write_action(f: &mut fmt::Formatter<'_>, action: &Action) -> fmt::Result {
    match action {
        Action::Put { key, value } => write!(f, "put {} {}", word(key), word(value)),
        Action::Range { key, end } => write!(f, "get {}", span(key, end)),
        Action::Delete { key, end } => write!(f, "delete {}", span(key, end)),
    }
}

fn span(key: &Bytes, end: &Option<Bytes>) -> String {
    end.as_ref().map_or_else(|| word(key), |end| format!("{}..{}", word(key), word(end)))
}

fn word(bytes: &Bytes) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

impl Words<'_> {
    /// What follows the word `client`.
    pub(super) fn client(&mut self) -> Result<ClientLine, String> {
        let id = self.positive("client")?;
        if CLIENT_MAX < id {
            return Err(format!("clients have numbers up to {CLIENT_MAX}: {id}"));
        }
        match self.next("home, after or reserve")? {
            "home" => self.client_character(id).map(ClientLine::Is),
            "after" => self.operation(false).map(|operation| ClientLine::Does(id, operation)),
            "reserve" => self.operation(true).map(|operation| ClientLine::Does(id, operation)),
            word => Err(format!("not home, after or reserve: {word}")),
        }
    }

    fn client_character(&mut self, id: u64) -> Result<ClientPlan, String> {
        let mut client = ClientPlan { home: self.server()?, ..ClientPlan::plain(id) };
        if client.home == MemberId::ZERO {
            return Err("servers have numbers from 1: 0".to_owned());
        }
        while let Some(word) = self.0.next() {
            match word {
                "pinned" => client.is_pinned = true,
                "session" => client.session = Some(self.at_least(Duration::from_millis(1))?),
                "pause" => client.pause_max = self.at_least(PAUSE_MIN)?,
                "attempt" => client.attempt_timeout = self.at_least(Duration::from_millis(1))?,
                "operation" => {
                    client.operation_timeout = self.at_least(Duration::from_millis(1))?
                }
                word => return Err(format!("not a property of clients: {word}")),
            }
        }
        Ok(client)
    }

    fn at_least(&mut self, least: Duration) -> Result<Duration, String> {
        match self.duration()? {
            time if least <= time => Ok(time),
            time => Err(format!("less than {}: {}", seconds(least), seconds(time))),
        }
    }

    fn operation(&mut self, is_reserve: bool) -> Result<PlannedOperation, String> {
        let after = self.duration()?;
        let intent = match self.next("operation")? {
            "together" => Intent::Together(self.together()?),
            "swap" => Intent::Swap { key: self.key()?, value: self.key()? },
            "stale-get" => Intent::Stale(self.action("get")?),
            "past-get" => {
                let (key, end) = self.range()?;
                Intent::Past { key, end, back: self.number("revisions back")? }
            }
            "compact" => Intent::Compact { back: self.number("revisions back")? },
            verb => Intent::One(self.action(verb)?),
        };
        Ok(PlannedOperation { after, is_reserve, intent })
    }

    fn together(&mut self) -> Result<Vec<Action>, String> {
        let mut actions: Vec<Action> = Vec::new();
        loop {
            let verb = self.next("put or get")?;
            let action = self.action(verb)?;
            match &action {
                Action::Delete { .. } => return Err(format!("only puts and gets go {verb}")),
                Action::Put { key, .. } if puts(&actions, key) => {
                    return Err(format!("one key is put once together: {}", word(key)));
                }
                Action::Put { .. } | Action::Range { .. } => actions.push(action),
            }
            match self.0.next() {
                None => return Ok(actions),
                Some("+") => {}
                Some(word) => return Err(format!("steps are joined by +: {word}")),
            }
        }
    }

    fn action(&mut self, verb: &str) -> Result<Action, String> {
        Ok(match verb {
            "put" => Action::Put { key: self.key()?, value: self.key()? },
            "get" => {
                let (key, end) = self.range()?;
                Action::Range { key, end }
            }
            "delete" => {
                let (key, end) = self.range()?;
                Action::Delete { key, end }
            }
            word => return Err(format!("no such operation: {word}")),
        })
    }

    fn key(&mut self) -> Result<Bytes, String> {
        let word = self.next("key or value")?;
        if WORD_SIZE_BYTES_MAX < word.len() || word.contains("..") {
            return Err(format!("not a key or value: {word}"));
        }
        Ok(Bytes::copy_from_slice(word.as_bytes()))
    }

    fn range(&mut self) -> Result<(Bytes, Option<Bytes>), String> {
        let word = self.next("key or range")?;
        let bytes = |text: &str| Bytes::copy_from_slice(text.as_bytes());
        match word.split_once("..") {
            _ if WORD_SIZE_BYTES_MAX < word.len() => Err(format!("not a key: {word}")),
            None => Ok((bytes(word), None)),
            Some((key, end)) if !key.is_empty() && key < end && !end.contains("..") => {
                Ok((bytes(key), Some(bytes(end))))
            }
            Some(_) => Err(format!("not a range such as k0..k9: {word}")),
        }
    }
}

/// Some step sets this key.
pub(super) fn puts(actions: &[Action], wanted: &Bytes) -> bool {
    actions.iter().any(|action| matches!(action, Action::Put { key, .. } if key == wanted))
}
