//! Ports for servers that are started here or by a test: nobody else gets them.
//!
//! Why not those that the system chooses: such a port is free again until the server comes, and
//! whenever that one is down. It is of those that connections get, too, so that one of them may
//! have it by then.
//!
//! Invariants:
//! - all ports are below 32,768, from where on Linux gives them to connections;
//! - a block of ports is for the process that listens on its first, until that process ends, and
//!   each of its ports is given once.
//!
//! The tests of other crates include this file, so it uses the standard library alone.

use std::{
    io,
    net::{Ipv4Addr, TcpListener},
    sync::{Mutex, PoisonError},
};

/// The first port of the first block.
const FIRST: u16 = 10_000;

/// Ports in a block, with that of its claim.
const BLOCK_SIZE: u16 = 50;

/// As many as fit below 32,000.
const BLOCK_COUNT: u16 = 440;

/// Ports of which nobody but this process takes any.
struct Block {
    /// On the port before the others. Held, never asked for a connection.
    _claim: TcpListener,
    next: u16,
    end: u16,
}

/// What this process has claimed; only the last has ports left.
static CLAIMED: Mutex<Vec<Block>> = Mutex::new(Vec::new());

/// The first of `count` neighbouring ports on which nobody listens, and which nobody else is given.
///
/// # Errors
/// When all blocks are claimed, or used by others.
///
/// # Panics
/// When more are wanted than a block has.
pub(crate) fn free_ports(count: u16) -> io::Result<u16> {
    assert!(count < BLOCK_SIZE, "a block has {BLOCK_SIZE} ports, and one is its claim");
    let mut claimed = CLAIMED.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        if let Some(first) = claimed.last_mut().and_then(|block| block.take(count)) {
            return Ok(first);
        }
        claimed.push(Block::claim()?);
    }
}

impl Block {
    /// One that nobody has. Where the search begins differs, so that it is short.
    fn claim() -> io::Result<Self> {
        let offset = u16::try_from(std::process::id() % u32::from(BLOCK_COUNT));
        let offset = offset.expect("a remainder below the number of blocks");
        let mut blocks = (0..BLOCK_COUNT).map(|n| FIRST + (offset + n) % BLOCK_COUNT * BLOCK_SIZE);
        let claim = |first: u16| {
            let claim = listen(first).ok()?;
            Some(Self { _claim: claim, next: first + 1, end: first + BLOCK_SIZE })
        };
        blocks.find_map(claim).ok_or_else(|| {
            let end = FIRST + BLOCK_COUNT * BLOCK_SIZE;
            let text = format!("no block of ports between {FIRST} and {end} is free");
            io::Error::new(io::ErrorKind::AddrInUse, text)
        })
    }

    /// The first of the next so many neighbours; a server that its test has left behind may still
    /// have some.
    fn take(&mut self, count: u16) -> Option<u16> {
        while self.next + count <= self.end {
            let first = self.next;
            match (first..first + count).rev().find(|port| listen(*port).is_err()) {
                Some(taken) => self.next = taken + 1,
                None => {
                    self.next += count;
                    return Some(first);
                }
            }
        }
        None
    }
}

fn listen(port: u16) -> io::Result<TcpListener> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port))
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, net::TcpListener};

    use super::{BLOCK_SIZE, FIRST, free_ports};

    /// Whoever asks at the same time, and whoever asks before anything listens, gets others; so do
    /// those who ask for more than is left of a block.
    #[test]
    fn no_port_is_given_twice() {
        let ask = || (0..20).map(|_| free_ports(7).unwrap()).collect::<Vec<_>>();
        let asking = [(); 4].map(|()| std::thread::spawn(ask));
        let given = asking.into_iter().flat_map(|thread| thread.join().unwrap());
        let given: Vec<u16> = given.flat_map(|first| first..first + 7).collect();
        assert!(given.iter().all(|port| (FIRST..32_000).contains(port)), "{given:?}");
        let different: BTreeSet<u16> = given.iter().copied().collect();
        assert_eq!(different.len(), given.len());
    }

    /// What another process claims or listens on is passed over.
    #[test]
    fn taken_ports_are_passed_over() {
        let first = free_ports(1).unwrap();
        let block = first - (first - FIRST) % BLOCK_SIZE;
        assert!(TcpListener::bind(("127.0.0.1", block)).is_err(), "the block is claimed");
        let _server = TcpListener::bind(("127.0.0.1", first + 1));
        let next = free_ports(2).unwrap();
        assert!(!(next..next + 2).contains(&(first + 1)), "{next} after {first}");
    }
}
