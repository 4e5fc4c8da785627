//! A system of one's own in the simulator: a register on several servers, after Attiya, Bar-Noy and
//! Dolev ("Sharing memory robustly in message-passing systems", 1995), which is not Raft.
//!
//! Each server keeps a value and a stamp. Who writes asks a majority for the greatest stamp, and
//! stores its value with a greater one at a majority; who reads stores what it has seen at a
//! majority, too, so that no later reader sees an older value. With `half_is_enough` two of four
//! are a majority: the simulator finds it, shrinks it to a few lines, and shows it on a page.
//! `cargo run -p kvraft-sim --example register -- PAGE.html`

use kvraft_sim::stage::{
    Asked, Broken, Casting, Heard, Script, Step, System, judge_linear, play, play_and_record,
    shrink_script,
};
use kvraft_sim::{Disk, DiskError, DiskErrorKind, DiskFile, Endpoint, Model, Prng, page};
use std::{collections::BTreeSet, time::Duration};

struct Register {
    half_is_enough: bool,
}

/// What `write NUMBER` writes; everything else is a read.
fn written(operation: &str) -> Option<u64> {
    operation.strip_prefix("write ")?.parse().ok()
}

/// A value with its stamp: a count, and who wrote.
type Stamped = ((u64, u64), u64);

#[derive(Clone, Debug)]
enum Message {
    Ask { round: u64 },
    Store { round: u64, held: Stamped },
    Told { round: u64, held: Stamped },
}

/// A client, and how far its operation is.
#[derive(Default)]
struct Client {
    number: u64,
    write: Option<u64>,
    /// Counts questions to all; answers to earlier ones are void.
    round: u64,
    is_storing: bool,
    newest: Stamped,
    heard: BTreeSet<Endpoint>,
}

impl Client {
    fn ask(&mut self, step: &mut Step<'_, Register>) {
        let (round, held) = (self.round, self.newest);
        let store = Message::Store { round, held };
        step.send_to_all(&if self.is_storing { store } else { Message::Ask { round } });
        step.wake_after(Duration::from_millis(200));
    }

    fn on_majority(&mut self, step: &mut Step<'_, Register>) {
        self.round += 1;
        self.heard.clear();
        if self.is_storing {
            return step.answer(self.newest.1);
        }
        if let Some(value) = self.write {
            self.newest = ((self.newest.0.0 + 1, self.number), value);
        }
        self.is_storing = true;
        self.ask(step);
    }
}

impl System for Register {
    type Operation = String;
    type Answer = u64;
    type Message = Message;
    type Server = (Box<dyn DiskFile>, Stamped);
    type Client = Client;

    fn draw(&self, client: u64, number: u64, prng: &mut Prng) -> String {
        let write = format!("write {}", client * 1_000 + number);
        if prng.chance(1, 3) { write } else { "read".to_owned() }
    }

    fn start(&self, step: &mut Step<'_, Self>) -> Result<Self::Server, DiskError> {
        let mut bytes = [0; 24];
        let file = match step.disk().open("register") {
            Ok(file) => file,
            Err(error) if error.kind == DiskErrorKind::NotFound => {
                step.disk().create("register")?
            }
            Err(error) => return Err(error),
        };
        let size = usize::try_from(file.size()?).expect("a small file");
        file.read_at(0, &mut bytes[..size])?;
        step.disk().sync_dir("")?;
        let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"));
        Ok((file, ((word(0), word(8)), word(16))))
    }

    fn serve(
        &self,
        (file, kept): &mut Self::Server,
        heard: Heard<Self>,
        step: &mut Step<'_, Self>,
    ) -> Result<(), DiskError> {
        let Heard::Message { from, message } = heard else { return Ok(()) };
        let (Message::Ask { round } | Message::Store { round, .. }) = message else {
            return Ok(());
        };
        if let Message::Store { held: held @ ((count, writer), value), .. } = message
            && *kept < held
        {
            // Less than a sector, which disks write whole or not at all.
            file.write_at(0, &[count, writer, value].map(u64::to_le_bytes).concat())?;
            file.sync()?;
            *kept = held;
        }
        step.send(from, Message::Told { round, held: *kept });
        Ok(())
    }

    fn client(&self, number: u64) -> Client {
        Client { number, ..Client::default() }
    }

    fn act(&self, client: &mut Client, heard: Heard<Self>, step: &mut Step<'_, Self>) {
        match heard {
            Heard::Ask(operation) => {
                client.write = written(&operation);
                (client.is_storing, client.newest) = (false, Stamped::default());
                client.ask(step);
            }
            Heard::Wake => client.ask(step),
            Heard::Message { from, message: Message::Told { round, held } }
                if round == client.round =>
            {
                // What is stored stays what it is, whatever others have stored meanwhile.
                client.newest =
                    if client.is_storing { client.newest } else { client.newest.max(held) };
                client.heard.insert(from);
                let (all, heard) = (step.servers().len(), client.heard.len());
                if all < 2 * heard || (all == 2 * heard && self.half_is_enough) {
                    client.on_majority(step);
                }
            }
            Heard::Message { .. } => {}
        }
    }

    fn judge(&self, calls: &[Asked<Self>]) -> Result<(), Broken> {
        judge_linear(&OneRegister, calls, 100_000)
    }
}

/// What a register is: a read returns what was written last.
struct OneRegister;

impl Model for OneRegister {
    type State = u64;
    type Op = (String, Option<u64>);

    fn initial(&self) -> u64 {
        0
    }

    fn apply(&self, state: &mut u64, (operation, seen): &Self::Op) -> bool {
        if let Some(value) = written(operation) {
            *state = value;
        }
        seen.is_none_or(|seen| seen == *state)
    }
}

/// The first of these seeds whose play breaks a rule, made small.
fn find(system: &Register, seeds: std::ops::Range<u64>) -> Option<Script<String>> {
    let mut scripts = seeds.map(|seed| Script::draw(system, seed, Casting::default()));
    let failing = scripts.find(|script| play(system, script).broken.is_some())?;
    Some(shrink_script(system, &failing, 20_000)?.smallest)
}

fn main() {
    let system = Register { half_is_enough: true };
    let smallest = find(&system, 0..1_000).expect("the bug is found");
    let played = play_and_record(&system, &smallest);
    println!("{smallest}\n{}\n\n{:?}", played.lines.join("\n"), played.broken);
    if let (Some(path), Some(run)) = (std::env::args().nth(1), &played.recorded) {
        std::fs::write(&path, page(&[run])).expect("the page can be written");
    }
}

#[cfg(test)]
#[test]
fn only_the_missing_majority_is_found() {
    assert_eq!(find(&Register { half_is_enough: false }, 0..200), None);
    let system = Register { half_is_enough: true };
    let smallest = find(&system, 0..200).expect("the bug is found");
    assert!(smallest.lines.len() + smallest.faults.len() <= 15, "{smallest}");
    let played = play_and_record(&system, &smallest);
    assert_eq!(played.broken.map(|broken| broken.check).as_deref(), Some("linearizable"));
    assert_eq!(played.recorded.expect("it is recorded").check(), Ok(()));
}
