//! The journal knows which configuration was in force where it begins, whatever has happened to the
//! log: the table that also knew may be gone.

use std::collections::BTreeMap;

use kvraft_base::{
    Entry, Index, MemberId, MemberInfo, Members, MembersDraft, Position, Prng, Term,
};
use kvraft_store::{Identity, Opened, format};

use crate::{
    disk::{Loss, TestDisk},
    world::{configuration, entry, formatted, hard_state, identity, opened, write},
};

/// The log as it must be, and the configurations in it.
struct Model {
    term: u64,
    base: Members,
    named: BTreeMap<u64, Members>,
}

impl Model {
    fn in_force(&self, index: Index) -> &Members {
        self.named.range(..=index.0).next_back().map_or(&self.base, |(_, members)| members)
    }

    /// One to three entries after `prev`; one of five is a configuration.
    fn entries(&mut self, prev: u64, prng: &mut Prng) -> Vec<Entry> {
        self.named.retain(|index, _| *index <= prev);
        let count = prng.between(1, 3);
        let mut entry_at = |index| {
            if !prng.chance(1, 5) {
                return entry(self.term, index, 300);
            }
            let members = some_members(prng);
            self.named.insert(index, members.clone());
            configuration(self.term, index, &members)
        };
        (prev + 1..=prev + count).map(&mut entry_at).collect()
    }
}

fn some_members(prng: &mut Prng) -> Members {
    Members::new((1..=prng.between(1, 7)).map(MemberId)).unwrap()
}

/// One random step; everything is durable after it.
fn step(at: &mut Opened, model: &mut Model, prng: &mut Prng) {
    let (released, last) = (at.journal.released().index.0, at.journal.last().index.0);
    match prng.below(8) {
        0 if released < last => {
            model.term += 1;
            let from = prng.between(released + 1, last);
            let entries = model.entries(from - 1, prng);
            let hard_state = hard_state(model.term, 1, 0);
            at.journal.append(&write(hard_state, Some(from), entries)).unwrap();
        }
        1 => drop(at.journal.release(Index(prng.between(released, last))).unwrap()),
        2 if prng.chance(1, 4) => {
            let position = Position::new(Term(model.term), Index(last + 5));
            (model.base, model.named) = (some_members(prng), BTreeMap::new());
            let members = Some(model.base.clone());
            at.journal.reset(position, hard_state(model.term, 1, 0), members).unwrap();
        }
        _ => {
            let entries = model.entries(last, prng);
            at.journal.append(&write(hard_state(model.term, 1, 0), None, entries)).unwrap();
        }
    }
    at.journal.sync().unwrap();
}

#[test]
fn the_journal_knows_who_took_part_where_it_begins() {
    let mut named_count = 0;
    for seed in 0..200 {
        let mut prng = Prng::new(seed);
        let mut disk = formatted();
        let mut at = opened(&disk);
        let mut model = Model { term: 1, base: identity().members, named: BTreeMap::new() };
        for _ in 0..60 {
            step(&mut at, &mut model, &mut prng);
            if prng.chance(1, 6) {
                drop(at);
                disk = disk.crash(Loss::All);
                at = opened(&disk);
            }
            let base = at.journal.released().index;
            let in_force = model.in_force(base).clone();
            assert_eq!(at.journal.base_members(), Some(&in_force), "seed {seed}, {base}");
            named_count += usize::from(in_force != model.base);
        }
    }
    assert!(100 < named_count, "released entries have named configurations");
}

/// Who joins was told of members that need not be those of the log's beginning: of them nothing is
/// known until the log or a snapshot names some.
#[test]
fn who_joins_does_not_know() {
    let disk = TestDisk::new();
    let draft = MembersDraft {
        learners: BTreeMap::from([(MemberId(4), true)]),
        id_max: MemberId(4),
        ..identity().members.draft()
    };
    let members = draft.finish().unwrap();
    format(&disk, &Identity { member: MemberId(4), members, ..identity() }).unwrap();
    let mut at = opened(&disk);
    assert_eq!(at.recovered.members_at_base, None);
    let snapshot = Position::new(Term(1), Index(9));
    let named = Members::new([MemberId(1), MemberId(4)]).unwrap();
    at.journal.reset(snapshot, hard_state(1, 0, 9), Some(named.clone())).unwrap();
    assert_eq!(at.journal.base_members(), Some(&named));
}

/// Names and addresses that have no room in a header are left out, and nobody is.
#[test]
fn a_large_configuration_fits_into_a_header() {
    let disk = formatted();
    let mut at = opened(&disk);
    let info = MemberInfo {
        name: "a".repeat(200),
        peer_addresses: vec!["b".repeat(200)],
        client_addresses: Vec::new(),
    };
    let ids = (1..=7).map(MemberId);
    let voters = Members::new(ids.clone()).unwrap();
    let infos = ids.map(|id| (id, info.clone())).collect();
    let members = MembersDraft { infos, ..voters.draft() }.finish().unwrap();
    let snapshot = Position::new(Term(1), Index(9));
    at.journal.reset(snapshot, hard_state(1, 0, 9), Some(members)).unwrap();
    drop(at);
    let at = opened(&disk.crash(Loss::All));
    assert_eq!(at.recovered.members_at_base, Some(voters));
}
