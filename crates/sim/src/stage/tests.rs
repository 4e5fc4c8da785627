use std::collections::BTreeMap;

use kvraft_base::{Disk, DiskError, MemberId, Prng};

use super::*;
use crate::shrink::Shrink;

/// A server counts what it is told on its disk, and says the count; it forgets to sync if told so.
struct Counting {
    syncs: bool,
}

impl System for Counting {
    type Operation = u64;
    type Answer = u64;
    /// A number that the client gives, and the count.
    type Message = (u64, u64);
    type Server = u64;
    type Client = u64;

    fn draw(&self, _client: u64, number: u64, _prng: &mut Prng) -> u64 {
        number
    }

    fn start(&self, step: &mut Step<'_, Self>) -> Result<u64, DiskError> {
        let mut bytes = [0; 8];
        if let Ok(file) = step.disk().open("count") {
            file.read_at(0, &mut bytes)?;
        } else {
            let file = step.disk().create("count")?;
            file.write_at(0, &bytes)?;
            file.sync()?;
            step.disk().sync_dir("")?;
        }
        Ok(u64::from_le_bytes(bytes))
    }

    fn serve(
        &self,
        server: &mut u64,
        heard: Heard<Self>,
        step: &mut Step<'_, Self>,
    ) -> Result<(), DiskError> {
        if let Heard::Message { from, message: (number, _) } = heard {
            *server += 1;
            let file = step.disk().open("count")?;
            file.write_at(0, &server.to_le_bytes())?;
            if self.syncs {
                file.sync()?;
            }
            step.send(from, (number, *server));
        }
        Ok(())
    }

    fn client(&self, _number: u64) -> u64 {
        0
    }

    fn act(&self, client: &mut u64, heard: Heard<Self>, step: &mut Step<'_, Self>) {
        match heard {
            Heard::Ask(_) | Heard::Wake => {
                *client += 1;
                step.send(Endpoint::Server(MemberId(1)), (*client, 0));
                step.wake_after(Duration::from_millis(300));
            }
            Heard::Message { message: (number, count), .. } if number == *client => {
                *client += 1;
                step.answer(count);
            }
            Heard::Message { .. } => {}
        }
    }

    fn check(&self, servers: &BTreeMap<MemberId, &u64>) -> Result<(), Broken> {
        match servers.values().find(|count| 1_000 < ***count) {
            Some(count) => Err(Broken::new("small", format!("{count}"))),
            None => Ok(()),
        }
    }

    /// Who asks after somebody was told is told no less.
    fn judge(&self, calls: &[Asked<Self>]) -> Result<(), Broken> {
        let is_wrong = |early: &Asked<Self>, late: &Asked<Self>| {
            early.returned.is_some_and(|told| told < late.called)
                && late.op.1.is_some_and(|count| Some(count) < early.op.1)
        };
        for early in calls {
            if let Some(late) = calls.iter().find(|late| is_wrong(early, late)) {
                return Err(Broken::new("grows", format!("{early:?}, then {late:?}")));
            }
        }
        Ok(())
    }
}

const SCRIPT: &str = "\
seed 7
set servers 1
set network-delay 0.001s
client 1 after 0.001s 1
client 1 after 0.500s 2
client 1 after 0.500s 3
at 0.700s crash 1
at 0.800s restart 1
";

fn script(text: &str) -> Script<u64> {
    text.parse().expect("the script can be read")
}

/// A script prints to text that reads back as the same script, drawn ones too.
#[test]
fn scripts_are_text() {
    assert_eq!(script(SCRIPT).to_string(), SCRIPT);
    for seed in 0..50 {
        let drawn = Script::draw(&Counting { syncs: true }, seed, Casting::default());
        assert_eq!(script(&drawn.to_string()), drawn, "seed {seed}");
    }
}

/// What cannot be played is said with its line.
#[test]
fn wrong_lines_are_named() {
    let wrong = [
        ("at 1.000s crash leader", "no members, no leader"),
        ("at 1.000s transfer any", "no members, no leader"),
        ("at 9.000s crash 1", "the first phase ends at 5.000s"),
        ("set servants 3", "no such setting: servants"),
        ("client 1 at 0.001s 1", "write client NUMBER after TIME OPERATION"),
        ("client 1 after 0.001s one", "invalid digit"),
    ];
    for (line, reason) in wrong {
        let error = format!("seed 1\n{line}\n").parse::<Script<u64>>().expect_err(line);
        assert_eq!(error.line_number, 2);
        assert!(error.reason.contains(reason), "{error}");
    }
}

/// Equal scripts give equal plays, recorded or not; another seed gives another one.
#[test]
fn a_play_is_a_function_of_its_script() {
    let system = Counting { syncs: true };
    for seed in 0..30 {
        let script = Script::draw(&system, seed, Casting::default());
        let played = play(&system, &script);
        assert_eq!(played.broken, None, "seed {seed}");
        let again = play_and_record(&system, &script);
        assert_eq!(played.trace_hash, again.trace_hash, "seed {seed}");
        assert_eq!(again.recorded.map(|run| run.check()), Some(Ok(())), "seed {seed}");
        let other = play(&system, &Script { seed: seed + 100, ..script });
        assert_ne!(played.trace_hash, other.trace_hash, "seed {seed}");
    }
}

/// What was not synced is lost with the power, and the smallest script that shows it is found.
#[test]
fn a_missing_sync_is_found_and_shrunk() {
    let system = Counting { syncs: false };
    let casting = Casting { servers: Some(1), ..Casting::default() };
    let mut drawn = (0..200).map(|seed| Script::draw(&system, seed, casting));
    let failing = drawn.find(|script| play(&system, script).broken.is_some()).expect("found");
    let shrunk = shrink_script(&system, &failing, 5_000).expect("it fails");
    assert!(shrunk.is_minimal);
    assert_eq!(shrunk.smallest.check.as_deref(), Some("grows"));
    assert!(shrunk.smallest.item_count() <= 10, "{}", shrunk.smallest);
    let broken = play(&system, &shrunk.smallest).broken;
    assert_eq!(broken.map(|broken| broken.check).as_deref(), Some("grows"));
    assert_eq!(shrink_script(&Counting { syncs: true }, &failing, 10), None);
}

/// Who is never answered, what panics and what is broken on the way is said by name.
#[test]
fn what_goes_wrong_has_a_name() {
    let system = Counting { syncs: true };
    let broken = |text: &str| play(&system, &script(text)).broken.map(|broken| broken.check);
    assert_eq!(broken(SCRIPT), None);
    let deaf = format!("{SCRIPT}set first-phase 61.000s\n");
    assert_eq!(broken(&deaf), None, "a long first phase harms nobody");
    let many = "set servers 1\n".to_owned() + &"client 1 after 0.001s 1\n".repeat(1_001);
    assert_eq!(broken(&many).as_deref(), Some("small"));
}
