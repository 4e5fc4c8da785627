//! One server of three goes on alone, on a simulated disk, and leads.

use std::time::Duration;

use bytes::Bytes;
use kvraft_base::{
    ClusterId, Disk, Entry, EntryKind, HardState, Index, Instant, MemberId, MemberInfo, Members,
    Position, Prng, Term, Write, WriteId,
};
use kvraft_kv::{Command, Origin, PutRequest, Request, Versions};
use kvraft_raft::RoleName;
use kvraft_replica::{
    Hop, MachineOptions, NodeOptions, Now, OpenOptions, RecoverError, Replica,
    SNAPSHOT_CHUNK_BYTES, Survey, force_new_cluster, survey,
};
use kvraft_sim::{CrashPolicy, DiskCosts, SimDisk};
use kvraft_store::{Identity, Options};

const ME: MemberId = MemberId(2);
const OLD: ClusterId = ClusterId(7);
const NEW: ClusterId = ClusterId(8);

fn three() -> Members {
    let mut draft = Members::new([MemberId(1), ME, MemberId(3)]).expect("three members").draft();
    draft.id_max = MemberId(5);
    draft.infos.insert(ME, MemberInfo { name: "b".to_owned(), ..MemberInfo::default() });
    draft.finish().expect("a configuration")
}

/// What the log holds: puts, then a joint configuration that nobody has left, then one more put.
fn log() -> Vec<Entry> {
    let put = |index: u64| {
        let key = Bytes::from(format!("k{index}"));
        let request = Request::Put(PutRequest { key, ..PutRequest::default() });
        let payload = Command::new(Origin::default(), 1, request).encode();
        Entry::new(Term(3), Index(index), EntryKind::Command, payload)
    };
    let mut joint = three().draft();
    joint.voters_outgoing = joint.voters.clone();
    joint.voters = [ME, MemberId(3), MemberId(5)].into();
    let joint = joint.finish().expect("a configuration").encode();
    let mut log: Vec<Entry> = (1..=8).map(put).collect();
    log.push(Entry::new(Term(3), Index(9), EntryKind::Config, joint));
    log.push(put(10));
    log
}

/// The directory of a server that was a follower in term 4 and knows of five committed entries.
fn survivor() -> SimDisk {
    let disk = SimDisk::new("disk", DiskCosts::FREE);
    let identity = Identity { cluster: OLD, member: ME, members: three() };
    kvraft_store::format(&disk, &identity).expect("the disk is new");
    let mut opened =
        kvraft_store::open(&disk, &Options::default(), None).expect("the disk is formatted");
    let hard_state = HardState { term: Term(4), vote: Some(MemberId(1)), commit: Index(5) };
    let write = Write { id: WriteId(1), hard_state, truncate_from: None, entries: log() };
    opened.journal.append(&write).expect("the disk works");
    opened.journal.sync().expect("the disk works");
    drop(opened);
    disk
}

fn start(disk: &dyn Disk, cluster: ClusterId) -> Replica {
    let options = OpenOptions {
        raft: kvraft_raft::Config::new(ME),
        store: Options::default(),
        node: NodeOptions::default(),
        machine: MachineOptions::default(),
        snapshot_chunk_bytes: SNAPSHOT_CHUNK_BYTES,
        versions: Versions::OF_BUILD,
        cluster,
        incarnation: 1,
        seed: 1,
    };
    kvraft_replica::open(disk, options, Now::default()).expect("the directory can be opened")
}

/// Lets the lanes work for ten virtual seconds.
fn run(replica: &mut Replica) {
    let mut hops = Vec::new();
    for ms in 0..10_000 {
        let now = Now { instant: Instant::ZERO + Duration::from_millis(ms), wall_ms: ms };
        let (mut nodes, mut journals, mut machines) = (Vec::new(), Vec::new(), Vec::new());
        for hop in std::mem::take(&mut hops) {
            match hop {
                Hop::Node(input) => nodes.push(input),
                Hop::Journal(input) => journals.push(input),
                Hop::Machine(input) => machines.push(input),
                Hop::Fatal(fatal) => panic!("{fatal}"),
                _ => {}
            }
        }
        replica.node.step(now, &mut nodes, &mut hops);
        replica.journal.step(now, &mut journals, &mut hops);
        replica.machine.step(now, &mut machines, &mut hops);
    }
}

fn look(disk: &SimDisk) -> Survey {
    survey(disk, &Options::default()).expect("the directory can be opened")
}

/// The survivor leads alone, all that its log held is committed, and no member id is used again.
#[test]
fn a_survivor_leads_alone() {
    let disk = survivor();
    let before = look(&disk);
    assert!(!before.is_alone() && before.is_whole());
    assert_eq!(before.members.voters_outgoing().len(), 3, "the last configuration is in force");
    assert_eq!((before.cluster, before.last), (OLD, Position::new(Term(3), Index(10))));

    let after = force_new_cluster(&disk, &Options::default(), NEW).expect("the disk works");
    assert!(after.is_alone());
    assert_eq!(look(&disk), Survey { notes: Vec::new(), ..after.clone() });
    assert_eq!((after.cluster, after.term), (NEW, Term(5)));
    assert_eq!(after.members.id_max(), MemberId(5));
    assert_eq!(after.members.info(ME).map(|info| info.name.as_str()), Some("b"));

    let mut replica = start(&disk, NEW);
    run(&mut replica);
    let status = replica.node.raft().status();
    assert_eq!(status.role, RoleName::Leader);
    assert!(Term(5) < status.term && Index(11) < status.commit, "{status:?}");
    assert_eq!(replica.machine.kv().members(), Some(&after.members));
    assert_eq!(replica.machine.kv().revision().0, 10, "nine puts upon revision 1");
}

/// Whatever the crash leaves is the one or the other, and doing it again ends it.
#[test]
fn a_crash_leaves_the_one_or_the_other() {
    let mut prng = Prng::new(17);
    let before = look(&survivor());
    for change in 1.. {
        let disk = survivor();
        disk.arm_fuse(change);
        let done = force_new_cluster(&disk, &Options::default(), NEW).is_ok();
        let blown = disk.is_fuse_blown();
        disk.disarm_fuse();
        let policy = CrashPolicy::draw(&mut prng);
        disk.crash(&mut prng, policy);
        let disk = disk.reboot();
        let found = look(&disk);
        assert!(
            found.is_alone() || found == Survey { notes: found.notes.clone(), ..before.clone() }
        );
        assert!(found.is_alone() || !done, "what was done stays done");
        if !found.is_alone() {
            force_new_cluster(&disk, &Options::default(), NEW).expect("the disk works");
        }
        assert_eq!((look(&disk).cluster, look(&disk).is_alone()), (NEW, true), "change {change}");
        if !blown {
            break;
        }
    }
}

/// Damage that lost entries is known, and what is left goes on: a cut log does not mute it.
#[test]
fn what_is_left_after_damage_goes_on() {
    let disk = survivor();
    let mut opened = kvraft_store::open(&disk, &Options::default(), None).expect("it opens");
    let hard_state = HardState { term: Term(4), vote: Some(MemberId(1)), commit: Index(10) };
    let write = Write { id: WriteId(2), hard_state, truncate_from: None, entries: Vec::new() };
    opened.journal.append(&write).expect("the disk works");
    opened.journal.sync().expect("the disk works");
    drop(opened);
    assert!(disk.damage("journal/0000000000000001.seg", 700, 1), "the byte is there");
    let before = look(&disk);
    assert!(!before.is_whole(), "{before:?}");
    let after = force_new_cluster(&disk, &Options::default(), NEW).expect("the disk works");
    assert!(after.is_whole() && look(&disk).is_whole(), "{after:?}");
    let mut replica = start(&disk, NEW);
    run(&mut replica);
    assert_eq!(replica.node.raft().status().role, RoleName::Leader);
}

/// Terms that no cluster reaches are an error, not a panic.
#[test]
fn absurd_terms_are_refused() {
    let disk = survivor();
    let mut opened = kvraft_store::open(&disk, &Options::default(), None).expect("it opens");
    let hard_state = HardState { term: Term(u64::MAX), vote: None, commit: Index(5) };
    let write = Write { id: WriteId(2), hard_state, truncate_from: None, entries: Vec::new() };
    opened.journal.append(&write).expect("the disk works");
    opened.journal.sync().expect("the disk works");
    drop(opened);
    let error = force_new_cluster(&disk, &Options::default(), NEW).expect_err("no term is left");
    assert!(matches!(error, RecoverError::NoRoom { .. }), "{error}");
}
