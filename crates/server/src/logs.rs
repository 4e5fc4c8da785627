//! Logs: structured events on standard error, for people or as JSON, one line each.

use std::io::IsTerminal;

use tracing_subscriber::{EnvFilter, fmt, util::SubscriberInitExt};

use crate::config::LogFormat;

/// Set to `always` to have colours although standard error is no terminal: for whoever relays it.
pub const LOG_COLOUR_VARIABLE: &str = "KVRAFT_LOG_COLOUR";

/// A filter of log events that is none.
#[derive(Debug, thiserror::Error)]
#[error("log level {filter:?}: {detail}")]
pub struct LogError {
    filter: String,
    detail: String,
}

/// Sends the events of this process to standard error from now on. Once per process; later calls
/// change nothing.
///
/// # Errors
/// [`LogError`] when the filter cannot be read.
pub fn start_logs(format: LogFormat, filter: &str) -> Result<(), LogError> {
    let parsed = EnvFilter::try_new(filter);
    let parsed = parsed
        .map_err(|error| LogError { filter: filter.to_owned(), detail: error.to_string() })?;
    let builder = fmt().with_env_filter(parsed).with_writer(std::io::stderr);
    let started = match format {
        LogFormat::Json => builder.json().flatten_event(true).finish().try_init(),
        LogFormat::Text => builder.with_target(false).with_ansi(is_coloured()).finish().try_init(),
    };
    // An error means that someone has set a subscriber already, which then gets the events.
    drop(started);
    Ok(())
}

fn is_coloured() -> bool {
    let forced = std::env::var_os(LOG_COLOUR_VARIABLE).is_some_and(|value| value == "always");
    let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    forced || (!refused && std::io::stderr().is_terminal())
}
