//! Which server to ask.

use std::fmt;

/// A place in the list of servers that the client was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndpointId(pub usize);

impl fmt::Display for EndpointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How a client chooses its server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Always this one; when it is away, wait for it.
    Pinned(EndpointId),
    /// The last good one, or the one hinted at; on failure the next in the list.
    Roaming,
}

/// The present choice.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Route {
    mode: Mode,
    endpoint_count: usize,
    /// Invariant: below `endpoint_count`, and the pinned one if there is one.
    current: EndpointId,
}

impl Route {
    pub(crate) fn new(mode: Mode, endpoint_count: usize) -> Self {
        let current = match mode {
            Mode::Pinned(endpoint) => endpoint,
            Mode::Roaming => EndpointId(0),
        };
        assert!(current.0 < endpoint_count, "the route starts at a server of the list");
        Self { mode, endpoint_count, current }
    }

    pub(crate) fn current(&self) -> EndpointId {
        self.current
    }

    /// How many servers a failing operation may try in a row before it must pause.
    pub(crate) fn choice_count(&self) -> u32 {
        match self.mode {
            Mode::Pinned(_) => 1,
            Mode::Roaming => u32::try_from(self.endpoint_count).unwrap_or(u32::MAX),
        }
    }

    /// Takes a hint; a pinned client and a foreign hint change nothing.
    pub(crate) fn prefer(&mut self, endpoint: EndpointId) {
        if self.mode == Mode::Roaming && endpoint.0 < self.endpoint_count {
            self.current = endpoint;
        }
    }

    /// Leaves `failed`, unless another operation has done so already.
    pub(crate) fn leave(&mut self, failed: EndpointId) {
        if self.mode == Mode::Roaming && self.current == failed {
            self.current = EndpointId((failed.0 + 1) % self.endpoint_count);
        }
    }
}
