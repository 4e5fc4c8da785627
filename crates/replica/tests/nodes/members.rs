//! Other members and another leader, by the wish of clients of any server; and what becomes of
//! those who ask, and of those who leave.

use std::time::Duration;

use kvraft_base::{DecodeError, Index, MemberId, MemberInfo, Members, Ticket};
use kvraft_raft::{Change, ChangeError, Event, Membership, Refusal, RoleName, TransferError};

use super::group::{A, B, C, Group, Sent, incarnation};
use kvraft_replica::{
    Attempt, ClientRequest, Failure, ForwardRefusal, Frame, NodeIn, NodeOptions, NotSent, Outcome,
};

const D: MemberId = MemberId(4);
const E: MemberId = MemberId(5);
const ELECTION: Duration = Duration::from_secs(1);

fn group() -> Group {
    Group::led_by_a(NodeOptions::default())
}

fn info(name: &str) -> MemberInfo {
    MemberInfo { name: name.to_owned(), ..MemberInfo::default() }
}

fn learner(id: MemberId, promote: bool) -> Change {
    Change::AddLearner { id, info: info("new"), promote }
}

/// What the directory of a joining server is formatted with: the newest configuration, and itself
/// as a learner.
fn joining(group: &Group, id: MemberId) -> Members {
    let mut draft = group.nodes[&A].status().membership.members.draft();
    draft.voters.remove(&id);
    draft.learners.insert(id, false);
    draft.id_max = draft.id_max.max(id);
    draft.finish().expect("one more learner")
}

fn changed(group: &Group, id: MemberId, ticket: Ticket) -> Result<Membership, Refusal> {
    match group.reply(id, ticket) {
        Some(Outcome::Changed(result)) => result.clone(),
        other => panic!("{other:?}"),
    }
}

fn is_unknown(outcome: Option<&Outcome>) -> bool {
    matches!(outcome, Some(Outcome::Unknown(Failure::LeaderChanged)))
}

fn grow_by(group: &mut Group, at: MemberId, id: MemberId) {
    let ticket = group.change(at, vec![learner(id, true)]);
    group.settle();
    changed(group, at, ticket).expect("it is made");
    let bootstrap = joining(group, id);
    group.start(id, &bootstrap);
    group.advance(ELECTION);
}

/// A group grows to five by clients of a leader and of a follower, and a joiner of either kind gets
/// the log from its beginning.
#[test]
fn a_group_grows_and_shrinks() {
    let mut group = group();
    let early = group.put(A);
    group.settle();
    assert!(group.is_done(A, early));
    grow_by(&mut group, A, D);
    grow_by(&mut group, B, E);
    for id in [A, B, C, D, E] {
        assert_eq!(group.members(id), "(1 2 3 4 5)");
        let told = &group.told[&id];
        assert!(told.committed && told.members.contains(E), "{id} {told:?}");
    }
    assert_eq!(group.nodes[&E].status().applied, group.nodes[&A].status().commit);
    let late = group.put(E);
    group.settle();
    assert!(group.is_done(E, late));

    let ticket = group.change(E, vec![Change::Remove { id: B }, Change::Remove { id: C }]);
    group.settle();
    let over = changed(&group, E, ticket).unwrap();
    assert_eq!(over.members.to_string(), "(1 4 5)");
    assert!(over.committed);
    assert_eq!(group.nodes[&E].waiting_count(), 0);
    group.advance(ELECTION * 3);
    let mut removed: Vec<MemberId> = group.removed.iter().map(|(id, _)| *id).collect();
    removed.sort();
    assert_eq!(removed, [B, C]);
    assert_eq!(group.removed[0].1, over.index);
    let last = group.put(D);
    group.settle();
    assert!(group.is_done(D, last));
}

/// The leader's rules are said to whoever asked, at whichever server; an id that is taken is told
/// with the greatest, so that another can be tried.
#[test]
fn refusals_reach_who_asked() {
    let mut group = group();
    let refusal = |group: &mut Group, changes: Vec<Change>| {
        let tickets = [A, B].map(|id| (id, group.change(id, changes.clone())));
        group.settle();
        let [a, b] = tickets.map(|(id, ticket)| changed(group, id, ticket).unwrap_err());
        assert_eq!(a, b);
        a
    };
    let error = refusal(&mut group, Vec::new());
    assert_eq!(error, Refusal::Change(ChangeError::Empty));
    let error = refusal(&mut group, vec![learner(B, true)]);
    assert_eq!(error, Refusal::Change(ChangeError::AlreadyMember(B)));
    let error = refusal(&mut group, vec![Change::Remove { id: E }]);
    assert_eq!(error, Refusal::Change(ChangeError::UnknownMember(E)));
    let crowd = |count: u64| (10..10 + count).map(|id| learner(MemberId(id), false)).collect();
    let error = refusal(&mut group, crowd(31));
    assert_eq!(error, Refusal::Change(ChangeError::TooMany(31)));
    let error = refusal(&mut group, crowd(30));
    assert!(matches!(error, Refusal::Change(ChangeError::Impossible(_))), "{error:?}");
    let everyone = [A, B, C].map(|id| Change::Remove { id }).to_vec();
    let error = refusal(&mut group, everyone);
    assert!(matches!(error, Refusal::Change(ChangeError::Impossible(_))), "{error:?}");

    let ticket = group.change(B, vec![Change::Remove { id: C }]);
    group.settle();
    changed(&group, B, ticket).unwrap();
    let error = refusal(&mut group, vec![learner(C, true)]);
    let reused = ChangeError::IdReused { id: C, id_max: C };
    assert_eq!(error, Refusal::Change(reused));
}

/// A second change is refused while the first is not over, and the first is answered only then.
#[test]
fn one_change_at_a_time() {
    let mut group = group();
    group.pass = Box::new(|sent| !answers_appends(sent));
    let first = group.change(A, vec![learner(D, false)]);
    let second = group.change(B, vec![learner(E, false)]);
    group.settle();
    assert!(group.reply(A, first).is_none());
    let pending = changed(&group, B, second).unwrap_err();
    assert!(matches!(pending, Refusal::ChangePending { .. }), "{pending:?}");
    group.pass = Box::new(|_| true);
    group.advance(ELECTION / 2);
    assert_eq!(changed(&group, A, first).unwrap().members.to_string(), "(1 2 3) learners (4)");
}

fn answers_appends(sent: &Sent) -> bool {
    use kvraft_raft::Body;
    let is_answer = |body: &Body| {
        matches!(body, Body::AppendAnswer { .. } | Body::HeartbeatAnswer { matched: _, .. })
    };
    match &sent.frame {
        Frame::Raft(messages) => messages.iter().any(|message| is_answer(&message.body)),
        _ => false,
    }
}

/// When the leader is lost in the middle of a change, whoever asked is told that its fate is open:
/// a client of the leader as well as one of a follower.
#[test]
fn a_lost_leader_leaves_a_change_open() {
    for asked in [A, B] {
        let mut group = group();
        group.pass = Box::new(|sent| !matches!(sent.frame, Frame::Raft(_)));
        let ticket = group.change(asked, vec![learner(D, false)]);
        group.settle();
        assert!(group.reply(asked, ticket).is_none());
        group.advance(ELECTION);
        assert!(!group.follows(A, A), "A has heard from no majority");
        assert!(is_unknown(group.reply(asked, ticket)), "{:?}", group.reply(asked, ticket));
        assert_eq!(group.nodes[&asked].waiting_count(), 0);
    }
}

/// A leader stands still while another one replaces its change by one of its own. It forgets the
/// change at the first word of that, and says so: it tells nobody that the change was made.
#[test]
fn a_replaced_change_is_not_made() {
    let mut group = group();
    group.pass = Box::new(|sent| sent.from != A);
    let ticket = group.change(B, vec![learner(D, false)]);
    group.settle();
    assert_eq!(group.members(A), "(1 2 3) learners (4)");
    let still = group.nodes.remove(&A).unwrap();
    group.advance(ELECTION * 3);
    let leader = if group.follows(B, B) { B } else { C };
    assert!(group.follows(leader, leader));
    assert!(is_unknown(group.reply(B, ticket)), "{:?}", group.reply(B, ticket));
    let other = group.change(leader, vec![learner(E, false)]);
    group.settle();
    changed(&group, leader, other).unwrap();
    group.nodes.insert(A, still);
    group.pass = Box::new(|_| true);
    group.said.clear();
    group.input(leader, vec![NodeIn::Disconnected(A), NodeIn::Connected(A)]);
    group.settle();
    assert_eq!(group.members(A), "(1 2 3) learners (5)");
    let of_a = group.said.iter().filter(|sent| sent.from == A && sent.frame.attempt().is_none());
    let about: Vec<&Frame> =
        of_a.map(|sent| &sent.frame).filter(|frame| !matches!(frame, Frame::Raft(_))).collect();
    assert!(matches!(about[..], [Frame::ForwardLost { .. }]), "{about:?}");
}

/// A joint configuration that its leader could not leave is left by the next one.
#[test]
fn the_next_leader_ends_a_change() {
    let mut group = group();
    for id in [D, E] {
        grow_by(&mut group, A, id);
    }
    // The joint configuration is committed; its end reaches nobody.
    group.pass = Box::new(|sent| !has_config(sent) || sent.from != A);
    let ticket = group.change(B, vec![Change::Demote { id: D }, Change::Demote { id: E }]);
    group.settle();
    assert_eq!(group.members(A), "(1 2 3)&(1 2 3 4 5) learners (4 5)");
    group.pass = Box::new(|sent| sent.from != A && sent.to != A);
    group.advance(ELECTION * 4);
    assert!(is_unknown(group.reply(B, ticket)), "{:?}", group.reply(B, ticket));
    group.pass = Box::new(|_| true);
    group.advance(ELECTION * 4);
    let texts = [A, B, C, D, E].map(|id| group.members(id));
    assert!(texts.iter().all(|text| *text == texts[0] && !text.contains('&')), "{texts:?}");
}

fn has_config(sent: &Sent) -> bool {
    use kvraft_base::EntryKind;
    use kvraft_raft::Body;
    let brings = |body: &Body| match body {
        Body::Append { entries, .. } => entries.iter().any(|entry| entry.kind == EntryKind::Config),
        _ => false,
    };
    match &sent.frame {
        Frame::Raft(messages) => messages.iter().any(|message| brings(&message.body)),
        _ => false,
    }
}

/// A leader that removes itself answers first, hands over, and ends; nobody waits for an election.
#[test]
fn a_removed_leader_answers_and_hands_over() {
    for asked in [A, B] {
        let mut group = group();
        let ticket = group.change(asked, vec![Change::Remove { id: A }]);
        group.settle();
        assert_eq!(changed(&group, asked, ticket).unwrap().members.to_string(), "(2 3)");
        assert!(group.removed.is_empty(), "it lingers");
        group.advance(Duration::from_millis(500));
        assert!(group.follows(B, B) || group.follows(C, C), "handed over at once");
        group.advance(ELECTION * 2);
        assert_eq!(group.removed.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [A]);
        let next = group.put(C);
        group.settle();
        assert!(group.is_done(C, next));
    }
}

/// A server can be asked for its own removal: the answer comes before it ends.
#[test]
fn a_removed_follower_hears_the_answer() {
    let mut group = group();
    let ticket = group.change(C, vec![Change::Remove { id: C }]);
    group.settle();
    assert_eq!(changed(&group, C, ticket).unwrap().members.to_string(), "(1 2)");
    assert!(group.removed.is_empty());
    assert_eq!(group.told[&C].members.to_string(), "(1 2)", "its transport knows");
    group.advance(ELECTION * 2);
    assert_eq!(group.removed.len(), 1);
}

/// A joiner that comes across configurations of before its own does not take itself for removed,
/// and does not tell the transport of them: whom it was told to speak to is newer.
#[test]
fn a_joiner_is_not_removed_by_the_past() {
    let mut group = group();
    for id in [D, E] {
        grow_by(&mut group, A, id);
    }
    let ticket = group.change(A, vec![Change::Remove { id: B }]);
    group.settle();
    changed(&group, A, ticket).unwrap();
    let f = MemberId(6);
    let ticket = group.change(A, vec![learner(f, false)]);
    group.settle();
    changed(&group, A, ticket).unwrap();
    let bootstrap = joining(&group, f);
    // The log comes in small parts, so that its configuration in force is an old one at times.
    group.pass = Box::new(move |sent| sent.to != f || !matches!(sent.frame, Frame::Raft(_)));
    group.start(f, &bootstrap);
    assert_eq!(*group.told[&f].members, bootstrap, "said in the first turn");
    let log: Vec<_> = group.written.iter().filter(|((id, _), _)| *id == A).collect();
    let log: Vec<_> = log.into_iter().map(|(_, entry)| entry.clone()).collect();
    let term = group.nodes[&A].status().term;
    let mut prev = kvraft_base::Position::ZERO;
    let mut was_behind = false;
    for entry in log {
        let next = entry.position();
        let body = kvraft_raft::Body::Append { prev, commit: next.index, entries: vec![entry] };
        let message = kvraft_raft::Message { from: A, to: f, term, body };
        let frame = Frame::Raft(vec![message]).encode();
        group.input(f, vec![NodeIn::Frame { from: A, frame }]);
        group.settle();
        was_behind |= !group.nodes[&f].status().membership.members.contains(f);
        assert!(group.told[&f].members.contains(f), "{:?}", group.told[&f]);
        prev = next;
    }
    assert!(was_behind);
    group.pass = Box::new(|_| true);
    group.advance(ELECTION * 3);
    assert!(group.removed.iter().all(|(id, _)| *id == B), "{:?}", group.removed);
    assert_eq!(group.members(f), "(1 3 4 5) learners (6)");
    assert_eq!(group.nodes[&f].status().role, RoleName::Follower);
}

/// A joiner whose own entry never comes does nothing by itself, for as long as that lasts.
#[test]
fn a_joiner_never_campaigns_by_what_it_was_told() {
    let mut group = group();
    let bootstrap = joining(&group, D);
    group.start(D, &bootstrap);
    group.said.clear();
    group.advance(ELECTION * 5);
    assert!(group.said.iter().all(|sent| sent.from != D));
}

/// Leadership moves by the leader's clients only, and who cannot lead is named.
#[test]
fn leadership_is_handed_over() {
    let mut group = group();
    let transfer = |to| ClientRequest::Transfer { to };
    let elsewhere = group.request(B, transfer(Some(B)));
    let refused = group.reply(B, elsewhere);
    let not_here = Refusal::NotLeader { leader: Some(A) };
    assert!(matches!(refused, Some(Outcome::Transferred(Err(why))) if *why == not_here));
    let stranger = group.request(A, transfer(Some(E)));
    let refused = group.reply(A, stranger);
    let no_voter = Refusal::Transfer(TransferError::NotAVoter(E));
    assert!(matches!(refused, Some(Outcome::Transferred(Err(why))) if *why == no_voter));
    let ticket = group.request(A, transfer(Some(C)));
    group.settle();
    group.advance(Duration::from_millis(50));
    assert!(matches!(group.reply(A, ticket), Some(Outcome::Transferred(Ok(C)))));
    assert!(group.follows(A, C) && group.follows(B, C));
    let done = |event: &Event| matches!(event, Event::TransferDone { to: C });
    assert!(group.events.iter().any(|(id, event)| *id == A && done(event)));
}

/// A change that reaches a server that leads no more, or never left, is passed on again; each
/// attempt once.
#[test]
fn a_refused_change_waits_for_the_next_leader() {
    let mut group = group();
    group.pass = Box::new(|sent| !matches!(sent.frame, Frame::Raft(_)));
    group.advance(ELECTION);
    assert!(!group.follows(A, A) && group.follows(B, A));
    let ticket = group.change(B, vec![learner(D, false)]);
    group.settle();
    assert!(group.reply(B, ticket).is_none(), "{:?}", group.reply(B, ticket));
    group.pass = Box::new(|_| true);
    group.advance(ELECTION * 3);
    assert_eq!(changed(&group, B, ticket).unwrap().members.to_string(), "(1 2 3) learners (4)");
}

/// What is said of another life, another attempt, or by another server is for nobody; and no peer
/// can answer a command like a change.
#[test]
fn strange_answers_are_for_nobody() {
    let mut group = group();
    group.pass = Box::new(|sent| sent.to != A);
    let (change, put) = (group.change(B, vec![learner(D, false)]), group.put(B));
    group.settle();
    let attempts: Vec<Attempt> =
        group.said.iter().filter_map(|sent| sent.frame.attempt()).collect();
    let [change_attempt, put_attempt] = attempts[..] else { panic!("{attempts:?}") };
    let members = Members::new([A, B, C]).unwrap();
    let done = |attempt| Frame::ChangeDone { attempt, index: Index(9), members: members.clone() };
    let strange = [
        (A, Attempt { incarnation: incarnation(C), ..change_attempt }),
        (A, Attempt { number: 77, ..change_attempt }),
        (C, change_attempt),
    ];
    for (from, attempt) in strange {
        group.input(B, vec![NodeIn::Frame { from, frame: done(attempt).encode() }]);
    }
    assert!(group.reply(B, change).is_none());
    group.input(B, vec![NodeIn::Frame { from: A, frame: done(put_attempt).encode() }]);
    assert!(is_unknown(group.reply(B, put)));
    group.input(B, vec![NodeIn::Frame { from: A, frame: done(change_attempt).encode() }]);
    assert_eq!(changed(&group, B, change).unwrap().index, Index(9));
}

/// A change that found no room on the connection, or no connection, has not left.
#[test]
fn an_undelivered_change_has_had_no_effect() {
    let mut group = group();
    group.pass = Box::new(|sent| sent.frame.attempt().is_none());
    let tickets = [D, E].map(|id| group.change(B, vec![learner(id, false)]));
    let frames = group.said.iter().filter(|sent| sent.frame.attempt().is_some());
    let frames: Vec<_> = frames.map(|sent| sent.frame.encode()).collect();
    assert!(frames.iter().all(|frame| Frame::is_forward(frame)));
    let undelivered =
        |at: usize, reason| NodeIn::Undelivered { to: A, frame: frames[at].clone(), reason };
    group.pass = Box::new(|_| true);
    group.input(B, vec![undelivered(0, NotSent::Full), undelivered(1, NotSent::Closed)]);
    assert!(matches!(group.reply(B, tickets[0]), Some(Outcome::Failed(Failure::Busy))));
    group.settle();
    group.advance(Duration::from_millis(50));
    changed(&group, B, tickets[1]).unwrap();
}

/// Who is no member any more, or never was one, is not remembered for its closed connection.
#[test]
fn closed_connections_of_strangers_are_forgotten() {
    let mut group = group();
    group.input(B, vec![NodeIn::Disconnected(C), NodeIn::Disconnected(E)]);
    assert_eq!(*group.nodes[&B].unreachable(), [C].into());
    let ticket = group.change(A, vec![Change::Remove { id: C }]);
    group.settle();
    changed(&group, A, ticket).unwrap();
    group.settle();
    assert_eq!(*group.nodes[&B].unreachable(), [].into());
}

/// A peer that wishes for more changes than there can be is not read: to compare each with each
/// other would take long.
#[test]
fn a_frame_of_too_many_changes_is_refused() {
    let attempt = Attempt { incarnation: 1, ticket: Ticket(2), number: 3 };
    let decode = |count: u64| {
        let changes = (1..=count).map(|id| Change::Remove { id: MemberId(id) }).collect();
        Frame::decode(Frame::ForwardChange { attempt, changes }.encode())
    };
    assert!(decode(30).is_ok());
    let error = decode(31).map(drop).unwrap_err();
    assert!(matches!(error, DecodeError::TooLarge { value: 31, limit: 30, .. }), "{error}");
}

/// Every frame about a change survives its encoding; a cut one is an error.
#[test]
fn frames_round_trip() {
    let attempt = Attempt { incarnation: 1, ticket: Ticket(2), number: 3 };
    let members = Members::new([A, B, C]).unwrap();
    let changes = vec![
        Change::AddVoter { id: D, info: info("d") },
        learner(E, true),
        Change::Remove { id: A },
        Change::Promote { id: D },
        Change::Demote { id: B },
        Change::Update { id: C, info: info("c").into() },
    ];
    let errors = [
        ChangeError::Empty,
        ChangeError::TooMany(31),
        ChangeError::Repeated(A),
        ChangeError::AlreadyMember(A),
        ChangeError::IdReused { id: A, id_max: B },
        ChangeError::UnknownMember(A),
        ChangeError::NotALearner(A),
        ChangeError::NotAVoter(A),
        ChangeError::NotInStep(A),
    ];
    use kvraft_base::MembersError as Impossible;
    let impossible = [
        Impossible::NoVoters,
        Impossible::TooManyVoters(8),
        Impossible::TooManyLearners(9),
        Impossible::NoId,
        Impossible::VoterAndLearner(A),
        Impossible::NoIdLeft,
        Impossible::IdAboveMax(A),
        Impossible::InfoOfNobody(A),
        Impossible::InfoTooLarge(A),
    ];
    let errors = errors.into_iter().chain(impossible.map(ChangeError::Impossible));
    let pending = ForwardRefusal::ChangePending { index: Index(4) };
    let reasons = [pending, ForwardRefusal::TermNotCommitted].into_iter();
    let reasons = reasons.chain(errors.map(ForwardRefusal::Change));
    let refused = reasons.map(|reason| Frame::ForwardRefused { attempt, reason });
    let frames = [
        Frame::ForwardChange { attempt, changes },
        Frame::ChangeDone { attempt, index: Index(7), members },
    ];
    for frame in frames.into_iter().chain(refused) {
        let bytes = frame.encode();
        assert_eq!(Frame::decode(bytes.clone()), Ok(frame));
        for size in 0..bytes.len() {
            assert!(Frame::decode(bytes.slice(..size)).is_err(), "{size}");
        }
    }
    let forward = Frame::ForwardChange { attempt, changes: vec![Change::Remove { id: A }] };
    let busy = Frame::ForwardRefused { attempt, reason: ForwardRefusal::Busy };
    let answer = Frame::answer_to_dropped(&forward.encode()).unwrap();
    assert_eq!(Frame::decode(answer), Ok(busy));
}
