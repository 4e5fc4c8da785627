//! The thread that owns a live run, and what it is told.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use kvraft_sim::{Ending, Fault, Live, Scenario};
use serde_json::{Value, json};
use tokio::sync::oneshot;

/// How often a run that goes on looks for commands.
const TURN: Duration = Duration::from_millis(10);

/// Events between two such looks, at most.
const TURN_EVENT_COUNT_MAX: u64 = 2_000;

/// Slowest and fastest: virtual seconds a second.
const SPEEDS: (f64, f64) = (0.000_01, 100.0);

/// A live run, wherever it is asked from.
#[derive(Clone)]
pub(super) struct Session {
    commands: Sender<Asked>,
}

/// What comes of a command.
pub(super) struct Answer {
    /// How things stand.
    pub(super) status: Value,
    /// The run up to now, if it was asked for.
    pub(super) run: Option<Vec<u8>>,
}

enum Asked {
    Command(String, oneshot::Sender<Answer>),
    Page(oneshot::Sender<String>),
}

impl Session {
    /// A run that stands still at its beginning.
    ///
    /// # Errors
    /// In words, when it cannot be run.
    pub(super) fn start(scenario: Scenario, replay: String) -> Result<Self, String> {
        let (commands, asked) = channel();
        let (ready, is_ready) = channel();
        // The run never leaves the thread that made it.
        std::thread::spawn(move || match Live::new(scenario) {
            Ok(live) => {
                let _told = ready.send(Ok(()));
                Owner { live, replay, speed: 0.1, running: None }.work(&asked);
            }
            Err(error) => drop(ready.send(Err(error))),
        });
        is_ready.recv().map_err(|_| "the run did not begin".to_owned())??;
        Ok(Self { commands })
    }

    /// Gives a command. `None`: the run is gone.
    pub(super) async fn ask(&self, command: String) -> Option<Answer> {
        let (answer, told) = oneshot::channel();
        self.commands.send(Asked::Command(command, answer)).ok()?;
        told.await.ok()
    }

    /// The page for the run as it is.
    pub(super) async fn page(&self) -> Option<String> {
        let (answer, told) = oneshot::channel();
        self.commands.send(Asked::Page(answer)).ok()?;
        told.await.ok()
    }
}

struct Owner {
    live: Live,
    replay: String,
    /// Virtual seconds a second.
    speed: f64,
    /// Since when it runs, and the virtual time then.
    running: Option<(Instant, Duration)>,
}

impl Owner {
    fn work(mut self, asked: &Receiver<Asked>) {
        loop {
            let next = if self.running.is_some() {
                asked.recv_timeout(TURN)
            } else {
                asked.recv().map_err(|_| RecvTimeoutError::Disconnected)
            };
            match next {
                Ok(Asked::Command(text, answer)) => {
                    let result = self.obey(&text);
                    // Who has gone does not hear it.
                    let _heard = answer.send(self.answer(result));
                }
                Ok(Asked::Page(answer)) => {
                    let _heard = answer.send(kvraft_trace::run::live_page(&self.recorded()));
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            self.go_on();
        }
    }

    /// Runs up to where it should be by now; if that is far, the rest is given up.
    fn go_on(&mut self) {
        let Some((since, from)) = self.running else { return };
        let until = from + since.elapsed().mul_f64(self.speed);
        if !self.live.run_until(until, TURN_EVENT_COUNT_MAX) {
            self.running = Some((Instant::now(), self.live.now()));
        }
        if self.live.ending().is_some() {
            self.running = None;
        }
    }

    fn start(&mut self) {
        self.running = Some((Instant::now(), self.live.now()));
    }

    /// Does what a command says; true: the run is to be shown.
    fn obey(&mut self, text: &str) -> Result<bool, String> {
        let command: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let time = || {
            let nanos = command["at"].as_u64().ok_or("a command has no time")?;
            Ok::<_, String>(Duration::from_nanos(nanos))
        };
        match command["do"].as_str().unwrap_or_default() {
            "look" => {}
            "run" => self.start(),
            "pause" => self.running = None,
            "speed" => {
                let speed = command["speed"].as_f64().ok_or("a speed is a number")?;
                self.speed = speed.clamp(SPEEDS.0, SPEEDS.1);
                if self.running.is_some() {
                    self.start();
                }
            }
            "step" => {
                self.running = None;
                self.live.step();
            }
            "until" => {
                self.running = None;
                let _there = self.live.run_until(time()?, u64::MAX);
            }
            "fault" => {
                let text = command["text"].as_str().ok_or("a fault has a text")?;
                self.live.inject(text.parse::<Fault>()?)?;
                // What was clicked is seen at once.
                self.live.step();
                if self.running.is_some() {
                    self.start();
                }
            }
            "back" => {
                self.running = None;
                self.live.go_back(time()?)?;
            }
            "plan" => return Ok(false),
            other => return Err(format!("no such command: {other}")),
        }
        Ok(true)
    }

    fn answer(&self, result: Result<bool, String>) -> Answer {
        let (is_shown, error) = match result {
            Ok(is_shown) => (is_shown, None),
            Err(error) => (true, Some(error)),
        };
        let ending = self.live.ending().map(|ending| match ending {
            Ending::Clean => "the run is over, and no rule was broken".to_owned(),
            Ending::Broken(violation) => violation.to_string(),
            Ending::Long => "the run is as long as can be shown".to_owned(),
        });
        let status = json!({
            "now": u64::try_from(self.live.now().as_nanos()).unwrap_or(u64::MAX),
            "running": self.running.is_some(),
            "speed": self.speed,
            "ending": ending,
            "error": error,
            "done": self.live.done().iter().map(ToString::to_string).collect::<Vec<_>>(),
            "plan": (!is_shown).then(|| self.live.scenario().to_string()),
        });
        Answer { status, run: is_shown.then(|| self.recorded().encode_quickly()) }
    }

    fn recorded(&self) -> kvraft_trace::run::Run {
        let mut run = self.live.recorded();
        run.command = format!("{} --ui", self.replay);
        run.version = format!("kvraft {}", env!("CARGO_PKG_VERSION"));
        run
    }
}
