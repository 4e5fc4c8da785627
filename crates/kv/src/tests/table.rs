//! The border with the table: checkpoints, and what happens when it lies.

use bytes::Bytes;
use kvraft_base::{Damage, META_APPLIED, Revision, TableId, TableOp};

use super::harness::{Machine, Memory};
use crate::{
    CompactRequest, Kv, PutRequest, Query, RangeRequest, Request, SessionOp, StateError, Versions,
    rev_key::RevKey,
};

fn put(key: &str, value: &str) -> Request {
    let (key, value) = (Bytes::from(key.to_owned()), Bytes::from(value.to_owned()));
    Request::Put(PutRequest { key, value, ..PutRequest::default() })
}

fn filled() -> Machine {
    let mut machine = Machine::default();
    for n in 0..5 {
        machine.request(put("k", &n.to_string()));
    }
    machine
}

fn all() -> Query {
    let zero = Bytes::from_static(b"\0");
    Query::Range(RangeRequest { key: zero.clone(), range_end: zero, ..RangeRequest::default() })
}

/// A checkpoint is whole entries, at least one, says where it ends, and is the same until settled.
#[test]
fn checkpoints_are_whole_entries() {
    let mut machine = filled();
    let first = machine.kv.checkpoint(1).unwrap();
    assert_eq!(first, machine.kv.checkpoint(1).unwrap());
    assert_eq!(first.applied.index.0, 1);
    let marks = |op: &&TableOp| match op {
        TableOp::Put { table, key, .. } => *table == TableId::Meta && key == META_APPLIED,
        TableOp::Delete { .. } => false,
    };
    assert_eq!(first.ops.iter().filter(marks).count(), 1);
    let all = machine.kv.checkpoint(usize::MAX).unwrap();
    assert_eq!(all.applied, machine.kv.applied());
    assert_eq!(all.ops.len(), 5 + 2, "five records and two rows of single values");
    assert!(machine.settle(1));
    assert_eq!(machine.kv.checkpoint(1).unwrap().applied.index.0, 2);
    while machine.settle(1) {}
    assert_eq!(machine.kv.checkpoint(usize::MAX), None);
}

/// A record that is written and compacted away before it was settled is deleted only.
#[test]
fn compacted_records_are_masked() {
    let mut machine = filled();
    machine.settle(1);
    let compact = CompactRequest { revision: Revision(6), physical: false };
    machine.request(Request::Compact(compact));
    let hash = machine.query(&Query::HashKv { revision: Revision(0) });
    while machine.settle(usize::MAX) {}
    let records = machine.memory.0.keys().filter(|(table, _)| *table == TableId::Records);
    assert_eq!(records.count(), 1);
    assert_eq!(machine.query(&Query::HashKv { revision: Revision(0) }), hash);
}

/// A row that a later entry deleted stays masked when the entry that wrote it is settled.
#[test]
fn settling_a_write_does_not_undo_a_later_delete() {
    let mut machine = filled();
    let compact = CompactRequest { revision: Revision(6), physical: false };
    machine.request(Request::Compact(compact));
    let hash = machine.query(&Query::Hash);
    while machine.settle(1) {
        assert_eq!(machine.query(&Query::Hash), hash);
    }
}

/// A record that the index expects and the table lacks, or has wrong, is damage and never "not
/// found".
#[test]
fn missing_and_wrong_records_are_damage() {
    let mut machine = filled();
    while machine.settle(usize::MAX) {}
    let key = RevKey { main: 6, sub: 0, tombstone: false }.encode();
    let place = (TableId::Records, key);
    let query = |memory: &Memory| machine.kv.query(memory, &all());
    let mut memory = machine.memory.clone();
    let mut row = memory.0.remove(&place).unwrap().to_vec();
    assert!(matches!(query(&memory), Err(Damage::Lost { .. })));
    row[3] ^= 1;
    memory.0.insert(place, row.into());
    assert!(matches!(query(&memory), Err(Damage::Lost { .. })));
}

/// A result that a session expects and the table lacks is damage too.
#[test]
fn missing_result_is_damage() {
    let mut machine = Machine::default();
    machine.request(Request::OpenSession { ttl_ms: 0 });
    let session = SessionOp {
        client: kvraft_base::ClientId(1),
        op: kvraft_base::OpId(1),
        acked: kvraft_base::OpId(0),
    };
    machine.request_as(Some(session), put("k", "v"));
    while machine.settle(usize::MAX) {}
    machine.memory.0.retain(|(table, key), _| *table != TableId::Sessions || key.len() == 8);
    let mut command = crate::Command::decode(machine.log[1].payload.clone()).unwrap();
    command.time_ms += 1;
    let entry = kvraft_base::Entry::new(
        machine.log[1].term,
        machine.kv.applied().index.next(),
        kvraft_base::EntryKind::Command,
        command.encode(),
    );
    let applied = machine.kv.apply(&machine.memory, &entry);
    assert!(matches!(applied, Err(StateError::Damage(Damage::Lost { .. }))));
}

/// A table whose rows contradict each other is not loaded, and no row makes loading panic.
#[test]
fn contradicting_tables_are_damage() {
    let mut machine = filled();
    machine.request(Request::OpenSession { ttl_ms: 0 });
    while machine.settle(usize::MAX) {}
    assert!(Kv::load(&machine.memory, Versions::OF_BUILD).is_ok());
    for place in machine.memory.0.keys() {
        let mut memory = machine.memory.clone();
        let row = memory.0.remove(place).unwrap();
        if place.0 == TableId::Meta {
            assert!(Kv::load(&memory, Versions::OF_BUILD).is_err(), "{place:?} is missing");
        }
        for at in 0..row.len() {
            let mut damaged = row.to_vec();
            damaged[at] ^= 0xff;
            memory.0.insert(place.clone(), damaged.into());
            drop(Kv::load(&memory, Versions::OF_BUILD));
        }
        memory.0.insert(place.clone(), Bytes::from_static(b"\xff"));
        assert!(Kv::load(&memory, Versions::OF_BUILD).is_err(), "{place:?} is nonsense");
    }
    let mut memory = machine.memory.clone();
    let future = RevKey { main: 99, sub: 0, tombstone: true }.encode();
    memory.0.insert((TableId::Records, future), Bytes::from_static(b"\n\x01k"));
    assert!(Kv::load(&memory, Versions::OF_BUILD).is_err());
    let twice = RevKey { main: 6, sub: 0, tombstone: true }.encode();
    let mut memory = machine.memory;
    memory.0.insert((TableId::Records, twice), Bytes::from_static(b"\n\x01k"));
    assert!(Kv::load(&memory, Versions::OF_BUILD).is_err());
}

/// An empty table is a fresh store.
#[test]
fn empty_table_is_fresh() {
    let kv = Kv::load(&Memory::default(), Versions::OF_BUILD).unwrap();
    assert_eq!(kv.state_hash(), Kv::new().state_hash());
    assert_eq!(kv.revision(), Revision(1));
}
