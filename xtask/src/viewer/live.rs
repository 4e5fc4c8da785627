//! `kvraft sim --ui` in the browser: stepped, run, meddled with, taken back, saved and replayed.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kvraft_trace::run::runs_of;
use serde_json::json;

use super::browser::Browser;
use super::devtools::PATIENCE;
use crate::processes::Guard;
use crate::run::output;

/// A run that waits to be meddled with.
const RUN: &str = "sim --ui --seed 5 -n 3 --clients 3 --ops-max 200 --seconds 600 --profile quiet";

/// A run that is served; it ends with its owner.
pub(super) struct Served {
    process: Guard,
    address: String,
}

impl Served {
    /// Serves a run.
    pub(super) fn start(binary: &Path) -> Result<Self> {
        let mut command = Command::new(binary);
        let mut process = Guard::spawn(command.args(RUN.split(' ')).stdout(Stdio::piped()))?;
        let stdout = process.child.stdout.take().context("a pipe")?;
        let mut served = Self { process, address: String::new() };
        for line in BufReader::new(stdout).lines() {
            let line = line?;
            if let Some(rest) = line.strip_prefix("open ") {
                served.address = rest.split(' ').next().unwrap_or_default().to_owned();
                return Ok(served);
            }
        }
        anyhow::bail!("kvraft sim --ui ended")
    }

    /// What it answers to whoever asks for `path` with these lines of a head.
    fn ask(&self, path: &str, head: &str) -> Result<String> {
        let host = self.address.trim_start_matches("http://").trim_end_matches('/');
        let mut stream = TcpStream::connect(host)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let head = head.replace("HOST", host);
        stream.write_all(format!("GET {path} HTTP/1.1\r\n{head}\r\n\r\n").as_bytes())?;
        let mut answer = [0; 12];
        stream.read_exact(&mut answer)?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }

    /// Only its own page is answered.
    pub(super) fn refuses_others(&self) -> Result<()> {
        let upgrade = "Host: HOST\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                       Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==";
        let asked = [
            ("/", "Host: HOST".to_owned(), "200"),
            ("/", "Host: kvraft.example".to_owned(), "403"),
            ("/live", format!("{upgrade}\r\nOrigin: http://HOST"), "101"),
            ("/live", format!("{upgrade}\r\nOrigin: http://kvraft.example"), "403"),
            ("/live", format!("{upgrade}\r\nOrigin: null"), "403"),
            ("/live", upgrade.to_owned(), "403"),
            ("/live", "Host: HOST\r\nOrigin: http://HOST".to_owned(), "426"),
        ];
        for (path, head, expected) in asked {
            let answer = self.ask(path, &head)?;
            ensure!(answer.ends_with(expected), "{path} with {head:?}: {answer}");
        }
        Ok(())
    }

    /// Ctrl-C ends it cleanly, though a page is open.
    pub(super) fn ends(&mut self) -> Result<()> {
        self.process.stop("INT", Duration::from_secs(10))
    }
}

/// Opens it.
pub(super) fn open(browser: &Browser, served: &Served) -> Result<()> {
    browser.open_address(&served.address)
}

/// Steps, runs, pauses and changes speed.
pub(super) fn goes_on(browser: &Browser) -> Result<()> {
    let count = "return app.stage.run.count";
    let before = browser.run(count)?.as_u64().context("a count")?;
    browser.click("#live-step")?;
    browser.wait(&format!("return app.stage.run.count > {before}"))?;
    browser.run(
        "const speed = document.querySelector('#live-speed'); speed.value = 1;
        speed.dispatchEvent(new Event('change')); return true",
    )?;
    browser.wait("return app.live.status.speed === 1")?;
    browser.click("#live-run")?;
    browser.wait("return app.live.status.now > 1e9")?;
    browser.click("#live-run")?;
    browser.wait("return !app.live.status.running")?;
    let leads = "return app.stages[0].run.nodes.some((node, number) => node.kind === 'server'
        && app.stages[0].history.state(number, app.stages[0].run.count - 1).role === 'leader')";
    ensure!(browser.run(leads)? == json!(true), "after a second somebody leads");
    browser.no_errors()
}

/// Crashes, pauses, parts and heals by click, and goes back to before that.
pub(super) fn is_meddled_with(browser: &Browser) -> Result<()> {
    browser.click("[data-fault='crash 1']")?;
    browser.wait(&power_is(1, "down"))?;
    browser.click("[data-fault='restart 1']")?;
    browser.wait(&power_is(1, "up"))?;
    browser.click("[data-fault='pause 2']")?;
    browser.wait(&power_is(2, "paused"))?;
    browser.click("[data-fault='resume 2']")?;
    browser.click("[aria-label='server3 on one side']")?;
    browser.click("#live-split")?;
    browser.wait("return app.live.status.done.length === 5")?;
    browser.wait("return app.stage.run.bands.some((band) => band.kind === 'partition')")?;
    browser.click("[data-fault='heal']")?;
    browser.wait("return app.live.status.done.length === 6")?;
    // Back to before all that: it is undone.
    browser.run("app.goTime(5e8); return true")?;
    browser.click("#live-branch")?;
    browser.wait("return app.live.status.done.length === 0 && app.live.status.now <= 5e8")?;
    browser.no_errors()
}

fn power_is(id: u64, power: &str) -> String {
    format!(
        "const {{ run, history }} = app.stages[0];
        const node = run.nodes.findIndex((node) => node.name === 'server{id}');
        return history.state(node, run.count - 1).power === '{power}'"
    )
}

/// Another crash, and the saved plan is replayed: the same events.
pub(super) fn is_saved(browser: &Browser, binary: &Path, folder: &Path) -> Result<()> {
    browser.run("app.live.tell({ do: 'until', at: 800000000 }); return true")?;
    browser.wait("return app.live.status.now > 7e8")?;
    browser.click("[data-fault='crash 1']")?;
    browser.wait("return app.live.status.done.length === 1")?;
    browser.run("app.live.tell({ do: 'until', at: 1500000000 }); return true")?;
    browser.wait("return app.live.status.now > 1.4e9")?;
    browser.click("#live-save")?;
    browser.wait("return app.live.saved !== undefined")?;
    let plan = browser.run("return app.live.saved")?;
    let (file, page) = (folder.join("live.plan"), folder.join("replayed.html"));
    std::fs::write(&file, plan.as_str().context("a plan is text")?)?;
    let mut replay = Command::new(binary);
    output(replay.args(["sim", "--plan"]).arg(&file).arg("--html").arg(&page))?;
    let runs = runs_of(&std::fs::read_to_string(&page)?)?;
    let shown = browser.run(
        "const { run } = app.stages[0]; return Array.from(run.at,
        (at, event) => [at, run.nodes[run.node[event]].name, run.shapes[run.shape[event]].kind])",
    )?;
    let shown = shown.as_array().context("events")?;
    ensure!(100 < shown.len() && shown.len() <= runs[0].events.len(), "{} events", shown.len());
    for (shown, event) in shown.iter().zip(&runs[0].events) {
        let node = &runs[0].nodes[usize::from(event.node.0)].name;
        let expected = json!([event.at, node, event.kind]);
        ensure!(*shown == expected, "the replay has {expected}, the page had {shown}");
    }
    println!("{} events are the same in the replay", shown.len());
    browser.no_errors()
}

/// The leader crashes by click, and the run goes on until another leads.
pub(super) fn loses_its_leader(browser: &Browser) -> Result<()> {
    let leader = "const { run, history } = app.stages[0];
        const leads = (node, number) => node.kind === 'server'
            && history.state(number, run.count - 1).role === 'leader'
            && history.state(number, run.count - 1).power === 'up';
        return run.nodes.find(leads)?.name.replace('server', '') ?? ''";
    browser.run("app.setTheme('light'); app.live.tell({ do: 'until', at: 2e9 }); return true")?;
    browser.wait("return app.live.status.now > 1.9e9")?;
    let first = browser.run(leader)?.as_str().context("a name")?.to_owned();
    ensure!(!first.is_empty(), "nobody leads after two seconds");
    browser.click(&format!("[data-fault='crash {first}']"))?;
    browser.wait("return app.live.status.done.length === 1")?;
    for tenth in 21..60_u64 {
        let at = tenth * 100_000_000;
        browser.run_with("app.live.tell({ do: 'until', at: arguments[0] })", &[json!(at)])?;
        browser.wait(&format!("return app.live.status.now >= {at} - 5e7"))?;
        let next = browser.run(leader)?;
        if next.as_str().is_some_and(|next| !next.is_empty() && next != first) {
            let around = "app.show(app.end - 7e8, app.end + 5e7); return true";
            return browser.run(around).map(drop);
        }
    }
    anyhow::bail!("no other leads within four seconds")
}
