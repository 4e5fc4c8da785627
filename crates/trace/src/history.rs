//! A trace as a set of events and what happened before what.
//!
//! Clocks are looked at through ranks: a component `c` of a host stands for as many of the host's
//! records as have an own count of at most `c`. So a log with holes, or one that begins in the
//! middle, has an order all the same; whether its clocks are right is the verifier's question.

use std::collections::{BTreeMap, BinaryHeap};

use crate::record::{Log, Record};

/// The tag of [`crate::action::Action::RecordsLost`].
const STAND_IN: &str = "RecordsLost";

/// Number of a host among those with records.
pub type Host = u16;

/// The records of a log, by host and rank.
#[derive(Debug)]
pub struct History<'a> {
    log: &'a Log,
    hosts: Vec<&'a str>,
    /// The number of each of them.
    numbers: BTreeMap<&'a str, Host>,
    /// Host and rank of each record; ranks count from 1.
    places: Vec<(Host, u64)>,
    /// Numbers of each host's records, in the log's order.
    by_host: Vec<Vec<u32>>,
    /// Own counts of each host's records that stand in for lost ones, in the log's order.
    lost: Vec<Vec<u64>>,
    /// What each record knows: ranks by host, without zeros.
    known: Vec<Vec<(Host, u64)>>,
    out_of_order: Option<u32>,
}

/// Records that happened before themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cycle {
    /// One of them: its number in the log.
    pub place: u32,
}

impl<'a> History<'a> {
    /// Looks at a log.
    ///
    /// # Panics
    /// With more than 65,536 hosts or 2^32 records, which no file that is read whole holds.
    #[must_use]
    pub fn new(log: &'a Log) -> Self {
        let mut numbers = BTreeMap::<&str, Host>::new();
        let mut hosts = Vec::new();
        let (mut by_host, mut lost) = (Vec::<Vec<u32>>::new(), Vec::<Vec<u64>>::new());
        let mut places = Vec::new();
        let mut out_of_order = None;
        for (place, record) in (0_u32..).zip(&log.records) {
            let host = *numbers.entry(&record.identity).or_insert_with(|| {
                hosts.push(record.identity.as_ref());
                by_host.push(Vec::new());
                lost.push(Vec::new());
                Host::try_from(hosts.len() - 1).expect("a trace has at most 65,536 hosts")
            });
            let own = &mut by_host[usize::from(host)];
            let last = own.last().map_or(0, |last| log.records[*last as usize].own());
            if record.own() <= last {
                out_of_order = out_of_order.or(Some(place));
            }
            own.push(place);
            if *record.tag == *STAND_IN {
                lost[usize::from(host)].push(record.own());
            }
            places.push((host, own.len() as u64));
        }
        let known = Vec::new();
        let mut history = Self { log, hosts, numbers, places, by_host, lost, known, out_of_order };
        history.known = log.records.iter().map(|it| history.ranks(it)).collect();
        history
    }

    fn ranks(&self, record: &Record) -> Vec<(Host, u64)> {
        let ranks = record.clock.iter().filter_map(|(identity, count)| {
            let host = self.host(identity)?;
            let own = &self.by_host[usize::from(host)];
            let rank = own.partition_point(|it| self.own(*it) <= count);
            (rank != 0).then_some((host, rank as u64))
        });
        ranks.collect()
    }

    /// The log.
    #[must_use]
    pub fn log(&self) -> &'a Log {
        self.log
    }

    /// Names of the hosts, in the order in which they first appear.
    #[must_use]
    pub fn hosts(&self) -> &[&'a str] {
        &self.hosts
    }

    /// Host and rank of a record.
    #[must_use]
    pub fn place(&self, record: u32) -> (Host, u64) {
        self.places[record as usize]
    }

    /// The records of a host, in order.
    #[must_use]
    pub fn of_host(&self, host: Host) -> &[u32] {
        &self.by_host[usize::from(host)]
    }

    /// How many records of `host` this record knows.
    #[must_use]
    pub fn known(&self, record: u32, host: Host) -> u64 {
        let known = &self.known[record as usize];
        known.iter().find(|(it, _)| *it == host).map_or(0, |(_, rank)| *rank)
    }

    /// Everything that this record knows, as ranks by host.
    #[must_use]
    pub fn all_known(&self, record: u32) -> &[(Host, u64)] {
        &self.known[record as usize]
    }

    /// The number of a host; none if it has no record.
    #[must_use]
    pub fn host(&self, identity: &str) -> Option<Host> {
        self.numbers.get(identity).copied()
    }

    /// How many of a node's records the log lacks of those with an own count above `after` and up
    /// to `until`. What only stands in for a lost one is lacking, too. Of a log that is
    /// [`History::out_of_order`] the number means nothing.
    #[must_use]
    pub fn missing_count(&self, identity: &str, after: u64, until: u64) -> u64 {
        let there = self.host(identity).map_or(0, |host| {
            let own = &self.by_host[usize::from(host)];
            let up_to = |count: u64| own.partition_point(|it| self.own(*it) <= count);
            let lost = &self.lost[usize::from(host)];
            let lost_up_to = |count: u64| lost.partition_point(|own| *own <= count);
            let records = up_to(until).saturating_sub(up_to(after));
            records.saturating_sub(lost_up_to(until).saturating_sub(lost_up_to(after))) as u64
        });
        until.saturating_sub(after).saturating_sub(there)
    }

    fn own(&self, record: u32) -> u64 {
        self.log.records[record as usize].own()
    }

    /// Whether one record happened before another: Lamport's order.
    #[must_use]
    pub fn before(&self, one: u32, other: u32) -> bool {
        let (host, rank) = self.place(one);
        one != other && rank <= self.known(other, host)
    }

    /// The first record whose own count is not above that of the record before it at its host.
    #[must_use]
    pub fn out_of_order(&self) -> Option<u32> {
        self.out_of_order
    }

    /// The records in an order in which each comes after what happened before it, and otherwise as
    /// in the log.
    ///
    /// # Errors
    /// [`Cycle`] if there is none.
    pub fn causal_order(&self) -> Result<Vec<u32>, Cycle> {
        let mut order = Order {
            history: self,
            taken: vec![0; self.hosts.len()],
            waiting: vec![BTreeMap::new(); self.hosts.len()],
            ready: BinaryHeap::new(),
        };
        for own in &self.by_host {
            order.look_at(own[0]);
        }
        let mut sorted = Vec::with_capacity(self.places.len());
        while let Some(std::cmp::Reverse(place)) = order.ready.pop() {
            sorted.push(place);
            order.take(place);
        }
        match sorted.len() == self.places.len() {
            true => Ok(sorted),
            false => Err(Cycle { place: order.stuck() }),
        }
    }
}

/// A topological sort: each host's next record waits for one thing that it knows and that has not
/// been taken.
struct Order<'h, 'a> {
    history: &'h History<'a>,
    /// How many records of each host have been taken.
    taken: Vec<u64>,
    /// By host: who waits until so many of its records have been taken.
    waiting: Vec<BTreeMap<u64, Vec<u32>>>,
    ready: BinaryHeap<std::cmp::Reverse<u32>>,
}

impl Order<'_, '_> {
    fn look_at(&mut self, place: u32) {
        let (own, _) = self.history.place(place);
        let missing = self
            .history
            .all_known(place)
            .iter()
            .find(|(host, rank)| *host != own && self.taken[usize::from(*host)] < *rank);
        match missing {
            None => self.ready.push(std::cmp::Reverse(place)),
            Some((host, rank)) => {
                self.waiting[usize::from(*host)].entry(*rank).or_default().push(place);
            }
        }
    }

    fn take(&mut self, place: u32) {
        let (host, rank) = self.history.place(place);
        self.taken[usize::from(host)] = rank;
        if let Some(next) = self.history.of_host(host).get(usize::try_from(rank).unwrap_or(0)) {
            self.look_at(*next);
        }
        for waited in self.waiting[usize::from(host)].remove(&rank).unwrap_or_default() {
            self.look_at(waited);
        }
    }

    /// One that was never taken.
    fn stuck(&self) -> u32 {
        let waiting = self.waiting.iter().flat_map(BTreeMap::values).flatten();
        waiting.copied().min().expect("what is not taken waits")
    }
}
