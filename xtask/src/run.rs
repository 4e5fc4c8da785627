//! Running other programs, and steps that are named and timed.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

/// One step of a longer job.
pub(crate) struct Step<'a> {
    /// What the step shows when it passes.
    pub(crate) name: String,
    /// Does the work, or says why it could not.
    pub(crate) work: Box<dyn FnOnce() -> Result<()> + 'a>,
}

impl<'a> Step<'a> {
    pub(crate) fn new(name: impl Into<String>, work: impl FnOnce() -> Result<()> + 'a) -> Self {
        Self { name: name.into(), work: Box::new(work) }
    }
}

/// Runs the steps in order, printing each with its time. Ends at the first that fails.
pub(crate) fn run_steps(steps: Vec<Step<'_>>) -> Result<()> {
    let count = steps.len();
    let start = Instant::now();
    for (number, step) in (1..).zip(steps) {
        println!("\n── {number}/{count} {}", step.name);
        let step_start = Instant::now();
        let result = (step.work)();
        let verdict = if result.is_ok() { "ok" } else { "FAILED" };
        println!("── {verdict} in {}: {}", seconds(step_start.elapsed()), step.name);
        result.with_context(|| format!("step {number}/{count}, {}", step.name))?;
    }
    println!("\nall {count} steps passed in {}", seconds(start.elapsed()));
    Ok(())
}

fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}

/// The cargo that runs this tool, at work in `root`.
pub(crate) fn cargo(root: &Path) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root);
    command
}

/// Runs `command` with its output shown. Fails when it does.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    println!("$ {}", line(command));
    let status = command.status().with_context(|| format!("starting {}", line(command)))?;
    ensure!(status.success(), "{} ended with {status}", line(command));
    Ok(())
}

/// Runs `command` and gives what it printed. Fails, with both outputs, when it does.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("starting {}", line(command)))?;
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "{} ended with {}: {}{}",
        line(command),
        output.status,
        stdout,
        stderr
    );
    Ok(stdout)
}

/// `command` as a reader would type it.
pub(crate) fn line(command: &Command) -> String {
    let name =
        Path::new(command.get_program()).file_name().unwrap_or_else(|| command.get_program());
    let mut line = name.to_string_lossy().into_owned();
    for argument in command.get_args() {
        line.push(' ');
        line.push_str(&argument.to_string_lossy());
    }
    line
}

/// Where cargo puts what it builds.
pub(crate) fn target_folder(root: &Path) -> Result<PathBuf> {
    let metadata = cargo_metadata::MetadataCommand::new()
        .manifest_path(root.join("Cargo.toml"))
        .no_deps()
        .exec()
        .context("asking cargo for the target folder")?;
    Ok(metadata.target_directory.into())
}

/// Builds the released binary and gives its path.
pub(crate) fn build_release(root: &Path) -> Result<PathBuf> {
    run(cargo(root).args(["build", "--release", "--locked", "--package", "kvraft"]))?;
    let binary = target_folder(root)?.join("release/kvraft");
    ensure!(binary.is_file(), "{} was not built", binary.display());
    Ok(binary)
}

/// The program as the tests use it. Why not `cargo build`: without the tests libraries have fewer
/// features, and all of them would be built once more.
pub(crate) fn build_debug(root: &Path) -> Result<PathBuf> {
    run(cargo(root).args(["test", "--no-run", "--quiet", "--workspace", "--locked"]))?;
    let binary = target_folder(root)?.join("debug/kvraft");
    ensure!(binary.is_file(), "{} was not built", binary.display());
    Ok(binary)
}

/// Fails with the name of the Debian package when a program is missing.
pub(crate) fn need(program: &str, package: &str) -> Result<()> {
    let found = std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(program).is_file()));
    ensure!(found, "{program} is not on PATH: install the Debian package {package}");
    Ok(())
}

/// Sends `signal` (a name such as `INT`) to a process.
pub(crate) fn signal(pid: u32, signal: &str) -> Result<()> {
    output(Command::new("sh").args(["-c", &format!("kill -{signal} {pid}")])).map(drop)
}

/// Asks again until `ask` gives something, for `patience` at most.
pub(crate) fn wait_for<T>(
    what: &str,
    patience: Duration,
    mut ask: impl FnMut() -> Result<T>,
) -> Result<T> {
    let start = Instant::now();
    loop {
        let error = match ask() {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        if patience < start.elapsed() {
            return Err(error.context(format!("waited {} for {what}", seconds(patience))));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}
