//! A server alone is recorded and run again; the reader of recordings believes nothing that it
//! should not.

use bytes::Bytes;
use kvraft_base::{
    ClientId, ClusterId, Disk as _, Entry, EntryKind, Index, Instant, MemberId, Members, OpId,
    Term, Ticket,
};
use kvraft_kv::{Command, DeleteRangeRequest, Origin, PutRequest, Request, SessionOp};
use kvraft_raft::Config;
use kvraft_replica::{
    ClientRequest, Hop, JournalIn, MachineIn, MachineOptions, NodeIn, NodeOptions, Now,
    OpenOptions, Replica, SNAPSHOT_CHUNK_BYTES, TableIn,
    flight::{
        Cut, Follows, Header, Image, Replay, Segment, Tape, end_block, header_bytes, image_block,
        records_block, seal_block,
    },
};
use kvraft_sim::{
    DiskCosts, SimDisk,
    replay::{NamedSegment, Outcome, replay},
};
use kvraft_store::{Identity, Options};

pub(super) const ME: MemberId = MemberId(1);

fn header() -> Header {
    Header {
        software: "test".into(),
        cluster: ClusterId(7),
        member: MemberId(1),
        incarnation: 9,
        number: 3,
        wall_ms: 1,
        follows: Follows::Start,
        is_redacted: false,
    }
}

fn add(file: &mut Vec<u8>, block: &[u8]) {
    let head = seal_block(file.len() as u64, block);
    file.extend_from_slice(&head);
    file.extend_from_slice(block);
}

/// A server that has just been opened, with an empty disk.
pub(super) fn member_of(members: impl IntoIterator<Item = MemberId>) -> Replica {
    let disk = SimDisk::new("s1", DiskCosts::FREE);
    let members = Members::new(members).expect("these are a cluster");
    let identity = Identity { cluster: ClusterId(7), member: ME, members };
    kvraft_store::format(&disk, &identity).expect("the disk is new");
    let options = OpenOptions {
        raft: Config::new(ME),
        store: Options::default(),
        node: NodeOptions::default(),
        machine: MachineOptions::default(),
        versions: kvraft_kv::Versions::OF_BUILD,
        cluster: ClusterId(7),
        incarnation: 9,
        seed: 1,
        snapshot_chunk_bytes: SNAPSHOT_CHUNK_BYTES,
    };
    kvraft_replica::open(disk.handle().as_ref(), options, Now::default()).expect("it is sound")
}

fn put_of(key: &'static str) -> PutRequest {
    PutRequest { key: Bytes::from_static(key.as_bytes()), ..PutRequest::default() }
}

fn put(ticket: u64) -> NodeIn {
    let value = format!("value {ticket}").into();
    propose(ticket, None, Request::Put(PutRequest { value, prev_kv: true, ..put_of("key") }))
}

fn propose(ticket: u64, session: Option<SessionOp>, request: Request) -> NodeIn {
    let ticket = Ticket(ticket);
    let command = Command::new(Origin { member: ME, incarnation: 9, ticket }, 1, request);
    let command = Command { session, ..command };
    NodeIn::Client { ticket, request: ClientRequest::Propose(command.encode()) }
}

/// What waits for each lane.
#[derive(Default)]
struct Inboxes {
    node: Vec<NodeIn>,
    machine: Vec<MachineIn>,
    journal: Vec<JournalIn>,
    table: Vec<TableIn>,
}

impl Inboxes {
    fn route(&mut self, hops: &mut Vec<Hop>) {
        for hop in hops.drain(..) {
            match hop {
                Hop::Node(input) => self.node.push(input),
                Hop::Machine(input) => self.machine.push(input),
                Hop::Journal(input) => self.journal.push(input),
                Hop::Table(input) => self.table.push(input),
                _ => {}
            }
        }
    }
}

/// A server, and the recording that is made of it.
pub(super) struct Recorded {
    pub(super) replica: Replica,
    tape: Tape,
    inboxes: Inboxes,
    hops: Vec<Hop>,
    turns: u64,
    image: Option<(Image, Follows)>,
    files: Vec<Vec<u8>>,
}

impl Recorded {
    pub(super) fn new(mut replica: Replica) -> Self {
        let tape = Tape::new(&mut replica.machine);
        let (inboxes, hops) = (Inboxes::default(), Vec::new());
        let mut recorded =
            Self { replica, tape, inboxes, hops, turns: 0, image: None, files: Vec::new() };
        recorded.image = Some((recorded.look(), Follows::Start));
        recorded
    }

    fn look(&mut self) -> Image {
        Image::of(&mut self.replica.node, &self.replica.machine, u64::MAX)
            .expect("nothing is being installed")
    }

    fn end(&mut self, cut: Cut) {
        if let Some((image, follows)) = self.image.take() {
            self.files.push(file(&image, follows, &self.tape, cut));
            self.tape.clear();
        }
    }

    /// Another segment begins.
    pub(super) fn cut(&mut self) {
        self.end(Cut::Full);
        self.image = Some((self.look(), Follows::Nothing));
    }

    pub(super) fn finish(mut self) -> Vec<Vec<u8>> {
        self.end(Cut::Stopped);
        self.files
    }

    /// A turn of every lane, a tenth of a second after the last.
    pub(super) fn turn(&mut self, inputs: Vec<NodeIn>) {
        let Self { replica, tape, inboxes, hops, turns, .. } = self;
        *turns += 1;
        let now = Now { instant: Instant(*turns * 100_000_000), wall_ms: *turns };
        inboxes.node.extend(inputs);
        assert!(tape.turn(now, &inboxes.node, &inboxes.machine));
        replica.node.step(now, &mut inboxes.node, hops);
        tape.node_done(&replica.node, hops);
        inboxes.route(hops);
        replica.machine.step(now, &mut inboxes.machine, hops);
        tape.end(&mut replica.machine, hops);
        inboxes.route(hops);
        replica.journal.step(now, &mut inboxes.journal, hops);
        replica.table.step(now, &mut inboxes.table, hops);
        inboxes.route(hops);
    }
}

/// A server alone that elects itself and writes one key again and again, while checkpoints take
/// the old values to the table, where each put reads them. A state is kept in the middle, too.
pub(super) fn recorded() -> Vec<Vec<u8>> {
    let mut recorded = Recorded::new(member_of([ME]));
    for turn in 1..=120_u64 {
        if turn == 61 {
            recorded.cut();
        }
        recorded.turn(if turn % 30 == 20 { vec![put(turn)] } else { Vec::new() });
    }
    assert_eq!(recorded.replica.machine.kv().revision().0, 5, "all four puts were made");
    recorded.finish()
}

fn file(image: &Image, follows: Follows, tape: &Tape, cut: Cut) -> Vec<u8> {
    let mut file = header_bytes(&Header { follows, ..header() }).to_vec();
    add(&mut file, &image_block(image));
    add(&mut file, &records_block(tape.bytes()));
    add(&mut file, &end_block(cut));
    file
}

pub(super) fn run(files: Vec<Vec<u8>>) -> Outcome {
    let named = |file: Vec<u8>| NamedSegment {
        name: "file".into(),
        segment: Segment::read(&file.into()).expect("it is a segment"),
    };
    let segments: Vec<_> = files.into_iter().map(named).collect();
    replay(&segments, "test", |_| {}, |_| {})
}

/// Rows that puts have read from the table come out of the recording, and where the two segments
/// meet the whole state is the same.
#[test]
fn a_recording_runs_again_to_the_same_state() {
    let outcome = run(recorded());
    assert_eq!(outcome.divergence, None);
    assert_eq!((outcome.turns, outcome.borders), (120, 1));
    assert!(240 < outcome.compared, "states are hashed, too: {}", outcome.compared);
    assert!(outcome.state.is_some());
    assert_eq!(outcome.notes, Vec::<String>::new());
}

/// The second segment can be run without the first.
#[test]
fn a_recording_begins_anywhere() {
    let outcome = run(recorded().split_off(1));
    assert_eq!((outcome.divergence, outcome.turns), (None, 60));
}

/// A lane that breaks an assertion is told, with its place.
#[test]
fn a_panic_is_a_difference() {
    let mut file = Vec::new();
    let mut replica = member_of([ME]);
    let image = Image::of(&mut replica.node, &replica.machine, u64::MAX).unwrap();
    let mut tape = Tape::new(&mut replica.machine);
    let lie = NodeIn::ResetDone(kvraft_base::Position::ZERO);
    assert!(tape.turn(Now::default(), &[lie], &[]));
    tape.node_done(&replica.node, &[]);
    tape.end(&mut replica.machine, &[]);
    file.push(self::file(&image, Follows::Start, &tape, Cut::Stopped));
    let divergence = run(file).divergence.unwrap();
    assert!(divergence.what.contains("the journal resets only on request"), "{divergence:?}");
}

/// A server that was given something else comes to another digest.
#[test]
fn a_turn_that_differs_is_found() {
    let segment = Segment::read(&recorded().remove(0).into()).unwrap();
    let mut replay = Replay::new(segment.image().unwrap());
    // Up to the first difference: what comes after it answers what was never asked.
    let differed = segment.steps().any(|step| {
        let mut step = step.unwrap();
        step.turn.now.instant = Instant(step.turn.now.instant.0 / 2);
        replay.play(step).difference.is_some()
    });
    assert!(differed);
}

/// Cut or damaged anywhere, it is read up to there, or refused with a place in the file.
#[test]
fn what_is_cut_or_damaged_is_seen() {
    let file = recorded().pop().unwrap();
    for size in (0..file.len()).step_by(13) {
        let cut = Bytes::copy_from_slice(&file[..size]);
        if let Ok(segment) = Segment::read(&cut) {
            assert!(segment.steps().all(|step| step.is_ok()));
            assert_ne!(segment.cut, Some(Cut::Stopped));
        }
    }
    for at in (0..file.len()).step_by(11) {
        let mut damaged = file.clone();
        damaged[at] ^= 0x20;
        if let Ok(segment) = Segment::read(&damaged.into()) {
            let torn = segment.torn.as_ref().map(|torn| torn.offset <= at as u64);
            assert_eq!(torn, Some(true), "the flip at {at} was not seen");
        }
    }
}

/// A server that was killed between two blocks has left a file without an end, which is not torn.
#[test]
fn a_file_may_lack_its_end() {
    let file = recorded().pop().unwrap();
    let end = end_block(Cut::Stopped);
    let size = file.len() - end.len() - seal_block(0, &end).len();
    let segment = Segment::read(&Bytes::copy_from_slice(&file[..size])).unwrap();
    assert!(segment.torn.is_none() && segment.cut.is_none(), "{:?}", segment.torn);
    assert_eq!(segment.steps().filter(Result::is_ok).count(), 60);
    assert_eq!(segment.image_bytes(), segment.image().unwrap().encode());
}

/// What a server says to another is compared, not only how long it is.
#[test]
fn what_is_said_to_a_peer_is_compared() {
    let peer = MemberId(2);
    let mut recorded = Recorded::new(member_of([ME, peer]));
    let position = kvraft_base::Position::ZERO;
    recorded.turn(vec![NodeIn::ImportTaken { from: peer, position, seq: 1 }]);
    let segment = Segment::read(&recorded.finish().remove(0).into()).unwrap();
    for said in [1, 2] {
        let mut replay = Replay::new(segment.image().unwrap());
        let mut step = segment.steps().next().unwrap().unwrap();
        step.turn.node = vec![NodeIn::ImportTaken { from: peer, position, seq: said }];
        let difference = replay.play(step).difference;
        assert_eq!(difference.is_some(), said != 1, "{difference:?}");
    }
}

/// What a machine takes in a state is estimated: at least a quarter of it, and less than eight times.
fn assert_size_is_known(replica: &mut Replica) {
    let mut look =
        |max| Image::of(&mut replica.node, &replica.machine, max).expect("nothing is installed");
    let size = (look(u64::MAX).encode().len() - look(0).encode().len()) as u64;
    assert!(look(4 * size).has_machine() && !look(size / 8).has_machine(), "{size}");
}

/// Sessions that have done nothing.
#[test]
fn the_size_of_many_sessions_is_known() {
    let mut recorded = Recorded::new(member_of([ME]));
    for turn in 1..=400_u64 {
        let is_asked = (100..300).contains(&turn);
        let open = Request::OpenSession { ttl_ms: 1 << 40 };
        recorded.turn(if is_asked { vec![propose(turn, None, open)] } else { Vec::new() });
    }
    let stats = recorded.replica.machine.kv().stats();
    assert_eq!((stats.session_count, stats.overlay_size_bytes), (200, 0));
    assert_size_is_known(&mut recorded.replica);
}

/// A session's client has received none of many results, which are in the table.
#[test]
fn the_size_of_many_results_is_known() {
    let mut recorded = Recorded::new(member_of([ME]));
    for turn in 1..=700_u64 {
        let session = SessionOp { client: ClientId(3), op: OpId(turn), acked: OpId(0) };
        let delete = DeleteRangeRequest { key: "none".into(), ..DeleteRangeRequest::default() };
        recorded.turn(match turn {
            100 => vec![propose(turn, None, Request::OpenSession { ttl_ms: 1 << 40 })],
            110..510 => vec![propose(turn, Some(session), Request::DeleteRange(delete))],
            _ => Vec::new(),
        });
    }
    let stats = recorded.replica.machine.kv().stats();
    assert_eq!((stats.result_count, stats.overlay_size_bytes), (400, 0), "{stats:?}");
    assert_size_is_known(&mut recorded.replica);
}

/// More is committed at once than is applied in a turn.
#[test]
fn the_size_of_what_waits_to_be_applied_is_known() {
    let mut recorded = Recorded::new(member_of([ME]));
    (0..100).for_each(|_| recorded.turn(Vec::new()));
    let value = || vec![7; 300].into();
    let put = || Request::Put(PutRequest { value: value(), ..put_of("key") });
    recorded.turn((1..=5000).map(|n| propose(n, None, put())).collect());
    let mut behind = 0;
    for _ in 0..20 {
        let status = recorded.replica.node.status();
        let applied = recorded.replica.machine.kv().applied().index;
        if applied < status.commit {
            behind = behind.max(status.commit.0 - applied.0);
            assert_size_is_known(&mut recorded.replica);
        }
        recorded.turn(Vec::new());
    }
    assert!(3000 < behind, "{behind}");
}

/// What was read back damaged from a journal comes damaged out of a recording, and the rest whole.
#[test]
fn damage_is_recorded() {
    let peer = MemberId(2);
    let mut recorded = Recorded::new(member_of([ME, peer]));
    let entry = |index| {
        let payload = Bytes::from_static(b"what nobody reads");
        Entry::new(Term(1), Index(index), EntryKind::Command, payload)
    };
    let damaged = Entry { checksum: !entry(2).checksum, ..entry(2) };
    recorded.turn(vec![NodeIn::Fetched { id: 1, entries: Some(vec![entry(1), damaged]) }]);
    let segment = Segment::read(&recorded.finish().remove(0).into()).unwrap();
    let mut inputs = segment.steps().next().unwrap().unwrap().turn.node;
    let Some(NodeIn::Fetched { entries: Some(entries), .. }) = inputs.pop() else {
        panic!("it was recorded");
    };
    let intact: Vec<bool> = entries.iter().map(Entry::is_intact).collect();
    assert_eq!(intact, [true, false]);
}
