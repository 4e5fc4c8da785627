//! Making [`Damage`]: which row, and what was found instead.

use kvraft_base::{Damage, DecodeError};

pub(crate) fn lost(what: impl Into<String>, detail: impl Into<String>) -> Damage {
    Damage::Lost { what: what.into(), detail: detail.into() }
}

pub(crate) fn undecodable(what: impl Into<String>, error: &DecodeError) -> Damage {
    lost(what, error.to_string())
}
