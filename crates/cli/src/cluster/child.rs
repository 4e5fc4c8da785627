//! One server process of a local cluster: started, listened to, stopped.

use std::{path::Path, process::Stdio};

use anyhow::{Context as _, Result};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, BufReader},
    process::Command,
    sync::watch,
};

use super::screen::Screen;

/// What the processes are asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    Run,
    /// Flush and exit.
    Stop,
    /// Now.
    Kill,
}

/// How a process ended.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) number: u64,
    pub(super) how: String,
    /// With exit code 0.
    pub(super) clean: bool,
}

/// Starts server `number`; returns its process id and the future of its end.
pub(super) fn start(
    number: u64,
    config: &Path,
    screen: Screen,
    orders: watch::Receiver<Order>,
) -> Result<(u32, impl Future<Output = Ended> + Send + 'static)> {
    let program = std::env::current_exe().context("cannot find this program's own file")?;
    let mut command = Command::new(&program);
    command
        .arg("server")
        .arg("--config")
        .arg(config)
        // Its standard input is how it learns that this process has gone, whatever ended it.
        .arg("--stop-on-stdin-close")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // Ctrl-C on the terminal is for this process; it stops the servers itself.
        .process_group(0)
        .kill_on_drop(true);
    if screen.is_coloured() {
        command.env(kvraft_server::LOG_COLOUR_VARIABLE, "always");
    }
    let mut process =
        command.spawn().with_context(|| format!("cannot start {}", program.display()))?;
    let pid = process.id().context("the process ended at once")?;
    if let Some(stdout) = process.stdout.take() {
        tokio::spawn(relay(number, stdout, screen));
    }
    if let Some(stderr) = process.stderr.take() {
        tokio::spawn(relay(number, stderr, screen));
    }
    Ok((pid, supervise(number, process, orders)))
}

async fn supervise(
    number: u64,
    mut process: tokio::process::Child,
    mut orders: watch::Receiver<Order>,
) -> Ended {
    let mut stdin = process.stdin.take();
    loop {
        tokio::select! {
            ended = process.wait() => {
                let clean = ended.as_ref().is_ok_and(|status| status.success());
                let how = ended.map_or_else(|error| error.to_string(), |status| status.to_string());
                return Ended { number, how, clean };
            }
            changed = orders.changed() => {
                let order = if changed.is_ok() { *orders.borrow_and_update() } else { Order::Kill };
                match order {
                    Order::Run => {}
                    Order::Stop => drop(stdin.take()),
                    // Already gone is as good.
                    Order::Kill => drop(process.start_kill()),
                }
            }
        }
    }
}

async fn relay(number: u64, stream: impl AsyncRead + Unpin, screen: Screen) {
    let mut lines = BufReader::new(stream).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        screen.relay(number, &line);
    }
}
