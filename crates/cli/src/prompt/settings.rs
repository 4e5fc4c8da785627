//! What a client is told by a file: `kvraft client --config config/client.toml`.

use std::{num::NonZeroUsize, path::Path, time::Duration};

use anyhow::Result;
use serde::{Deserialize, Deserializer, de::Error as _};

use crate::{
    config_file,
    connection::{Connection, parse_duration},
};

/// The keys of the file, all of which may be left out.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct Settings {
    endpoints: Vec<String>,
    /// A coordinator that is asked for them instead.
    coord: Option<String>,
    #[serde(deserialize_with = "duration")]
    dial_timeout: Option<Duration>,
    #[serde(deserialize_with = "duration")]
    pub(super) command_timeout: Option<Duration>,
    /// Operations that are under way at a time, if they are not waited for one by one.
    pub(crate) ch_capacity: Option<NonZeroUsize>,
    /// Whether all servers must have joined before anything is asked.
    pub(crate) wait_for_all: bool,
    /// Where what this client does is recorded.
    pub(crate) tracing_server: Option<String>,
    /// Its name there.
    pub(crate) tracing_identity: Option<String>,
}

impl Settings {
    /// Reads a file, or nothing.
    pub(crate) fn read(path: Option<&Path>) -> Result<Self> {
        config_file::read(path)
    }

    /// What it says of the connection.
    pub(crate) fn connection(&self) -> Connection {
        let endpoints = self.endpoints.clone();
        Connection::new(endpoints, self.coord.clone(), self.dial_timeout, self.command_timeout)
    }
}

fn duration<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
    parse_duration(&String::deserialize(from)?).map(Some).map_err(D::Error::custom)
}
