//! Files of settings, of programs whose flags win over them.

use std::path::Path;

use anyhow::{Context as _, Result};
use serde::de::DeserializeOwned;

/// Reads the file at `path`, or nothing: then everything is as nobody said otherwise.
///
/// # Errors
/// Names the file, and what is wrong in it.
pub(crate) fn read<T: DeserializeOwned + Default>(path: Option<&Path>) -> Result<T> {
    let Some(path) = path else { return Ok(T::default()) };
    let name = path.display();
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {name}"))?;
    toml::from_str(&text).with_context(|| format!("{name} is no configuration for this program"))
}
