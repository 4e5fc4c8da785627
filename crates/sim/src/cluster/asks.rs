//! What operators have asked of the members, beside what the logs say became of it.
//!
//! Invariants:
//! - a configuration follows another because somebody asked for it, because a joint one is left, or
//!   because a learner is promoted that was to be;
//! - one request makes one change at most, and none if it was said to be refused.

use std::{collections::BTreeSet, sync::Arc};

use kvraft_base::{MemberId, Members, Position};
use kvraft_raft::{Change, Membership};

use super::violation::{Check, Violation};

/// A step from one configuration to the next, in somebody's log.
#[derive(Clone, Debug)]
pub(crate) struct ConfigStep {
    pub(crate) position: Position,
    pub(crate) before: Arc<Members>,
    pub(crate) next: Arc<Members>,
}

/// How a request has ended, for who asked.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Told {
    /// Not yet, or nobody knows.
    Unknown,
    /// It had no effect and never will.
    Refused,
    /// This has come of it.
    Done(Membership),
}

#[derive(Debug)]
struct Ask {
    changes: Vec<Change>,
    told: Told,
    /// The step that its entry took.
    became: Option<ConfigStep>,
    /// That entry may be there without anybody's request.
    by_itself: bool,
}

impl Ask {
    /// It makes the same of the configuration that a step began with: the two requests may name
    /// their changes in another order, and any of them may be the one that did.
    fn takes(&self, step: &ConfigStep) -> bool {
        apply(&step.before, &self.changes).as_ref() == Some(&*step.next)
    }

    /// It may still be found to have become an entry.
    fn is_open(&self) -> bool {
        self.told != Told::Refused && self.became.is_none()
    }
}

/// Every request that was ever sent, by number.
#[derive(Debug, Default)]
pub(crate) struct Asks(Vec<Ask>);

impl Asks {
    /// A request is sent; its number.
    pub(crate) fn on_sent(&mut self, changes: &[Change]) -> usize {
        let changes = changes.to_vec();
        self.0.push(Ask { changes, told: Told::Unknown, became: None, by_itself: false });
        self.0.len() - 1
    }

    /// Requests that may still take effect.
    pub(crate) fn open(&self) -> impl Iterator<Item = &[Change]> {
        let open = self.0.iter().filter(|ask| ask.told == Told::Unknown && ask.became.is_none());
        open.map(|ask| ask.changes.as_slice())
    }

    /// A configuration was appended that nobody had before.
    pub(crate) fn on_step(&mut self, step: &ConfigStep) -> Result<(), Violation> {
        let ConfigStep { position, before, next } = step;
        if before.is_joint() {
            return Ok(()); // What it is left for is judged elsewhere.
        }
        let promoted = before.learners().iter().filter(|learner| learner.promote);
        let mut promotions = promoted.map(|learner| [Change::Promote { id: learner.id }]);
        let by_itself = promotions.any(|change| apply(before, &change).as_ref() == Some(&**next));
        if let Some(ask) = self.0.iter_mut().find(|ask| ask.is_open() && ask.takes(step)) {
            (ask.became, ask.by_itself) = (Some(step.clone()), by_itself);
            return Ok(());
        }
        if by_itself {
            return Ok(());
        }
        let detail = format!("{before} is followed by {next} at {position}, as nobody asked");
        Err(Violation::new(Check::ChangeIsAskedFor, detail))
    }

    /// A server said that a request had no effect.
    pub(crate) fn on_refused(&mut self, number: usize) -> Result<(), Violation> {
        self.0[number].told = Told::Refused;
        let Some(step) = self.0[number].became.take() else { return Ok(()) };
        let by_itself = self.0[number].by_itself;
        if let Some(twin) = self.0.iter_mut().find(|ask| ask.is_open() && ask.takes(&step)) {
            (twin.became, twin.by_itself) = (Some(step), by_itself);
            return Ok(());
        }
        if by_itself {
            return Ok(());
        }
        let (changes, position) = (&self.0[number].changes, step.position);
        let detail = format!("{changes:?} was refused, and is in the log at {position}");
        Err(Violation::new(Check::ChangeIsAskedFor, detail))
    }

    /// A server said that a request is done, and what has come of it.
    pub(crate) fn on_done(&mut self, number: usize, membership: &Membership) {
        self.0[number].told = Told::Done(membership.clone());
    }

    /// Whatever was said to be done is in the one log in the end; `agreed` tells what is.
    pub(crate) fn judge(&self, agreed: impl Fn(Position) -> bool) -> Result<(), Violation> {
        for ask in &self.0 {
            let Told::Done(membership) = &ask.told else { continue };
            let mut steps = self.0.iter().filter_map(|twin| twin.became.as_ref());
            let is_there = steps.any(|step| {
                let at = step.position;
                at.index <= membership.index && agreed(at) && ask.takes(step)
            });
            if !is_there || membership.is_pending() {
                let detail = format!("{:?} was said to be done, by {membership:?}", ask.changes);
                return Err(Violation::new(Check::ChangeIsAskedFor, detail));
            }
        }
        Ok(())
    }
}

/// Every configuration that can come of `first` when any of the `open` requests take effect, in any
/// order.
pub(crate) fn reachable(first: Vec<Arc<Members>>, open: &[&[Change]]) -> Vec<Arc<Members>> {
    let mut found: Vec<Arc<Members>> = Vec::new();
    let mut work: Vec<(Arc<Members>, Vec<usize>)> =
        first.into_iter().map(|members| (members, Vec::new())).collect();
    while let Some((members, used)) = work.pop() {
        let settled = settle(&members);
        for (number, changes) in
            open.iter().enumerate().filter(|(number, _)| !used.contains(number))
        {
            if let Some(next) = apply(&settled, changes) {
                let used = used.iter().copied().chain([number]).collect();
                work.push((Arc::new(next), used));
            }
        }
        if !found.contains(&members) {
            found.push(members);
        }
    }
    found
}

/// What a joint configuration is left for.
fn settle(members: &Members) -> Members {
    let mut draft = members.draft();
    draft.voters_outgoing.clear();
    forget(&mut draft);
    draft.finish().expect("the new half of a joint configuration can stand alone")
}

/// What `changes` make of a configuration that is not joint; `None` if it cannot be.
pub(crate) fn apply(before: &Members, changes: &[Change]) -> Option<Members> {
    let mut draft = before.draft();
    for change in changes {
        let id = change.id();
        match change {
            Change::AddVoter { info, .. } if draft.id_max < id => {
                draft.voters.insert(id);
                draft.infos.insert(id, info.clone());
            }
            Change::AddLearner { info, promote, .. } if draft.id_max < id => {
                draft.learners.insert(id, *promote);
                draft.infos.insert(id, info.clone());
            }
            Change::Remove { .. } if before.contains(id) => {
                draft.voters.remove(&id);
                draft.learners.remove(&id);
            }
            Change::Promote { .. } if draft.learners.remove(&id).is_some() => {
                draft.voters.insert(id);
            }
            Change::Demote { .. } if draft.voters.remove(&id) => {
                draft.learners.insert(id, false);
            }
            Change::Update { info, .. } if before.contains(id) => {
                info.apply(draft.infos.entry(id).or_default());
            }
            _ => return None,
        }
        draft.id_max = draft.id_max.max(id);
    }
    let voters: BTreeSet<MemberId> = before.voters().iter().copied().collect();
    if 1 < voters.symmetric_difference(&draft.voters).count() {
        draft.voters_outgoing = voters;
    }
    forget(&mut draft);
    draft.finish().ok()
}

fn forget(draft: &mut kvraft_base::MembersDraft) {
    let kvraft_base::MembersDraft { voters, voters_outgoing, learners, infos, .. } = draft;
    infos.retain(|id, _| {
        voters.contains(id) || voters_outgoing.contains(id) || learners.contains_key(id)
    });
}

#[cfg(test)]
mod tests {
    use kvraft_base::{Index, MemberInfo, Term};

    use super::*;

    fn three() -> Arc<Members> {
        Arc::new(Members::new([MemberId(1), MemberId(2), MemberId(3)]).unwrap())
    }

    fn add(id: u64) -> Vec<Change> {
        vec![Change::AddVoter { id: MemberId(id), info: MemberInfo::default() }]
    }

    fn remove(id: u64) -> Vec<Change> {
        vec![Change::Remove { id: MemberId(id) }]
    }

    fn step(at: u64, before: &Arc<Members>, changes: &[Change]) -> ConfigStep {
        let next = Arc::new(apply(before, changes).unwrap());
        let position = Position::new(Term(1), Index(at));
        ConfigStep { position, before: Arc::clone(before), next }
    }

    /// What nobody wanted, or what was done once already, is no reason for a change.
    #[test]
    fn change_needs_a_request_of_its_own() {
        let mut asks = Asks::default();
        assert!(asks.on_step(&step(5, &three(), &add(4))).is_err());
        asks.on_sent(&add(4));
        let first = step(6, &three(), &add(4));
        assert_eq!(asks.on_step(&first), Ok(()));
        assert!(asks.on_step(&step(7, &three(), &add(4))).is_err());
        assert_eq!(asks.open().count(), 0);
    }

    /// A request that was said to be refused, and is in the log before or after that, is a lie;
    /// unless an equal one may be the one in the log.
    #[test]
    fn refusals_are_honest() {
        let mut asks = Asks::default();
        let number = asks.on_sent(&add(4));
        assert_eq!(asks.on_refused(number), Ok(()));
        assert!(asks.on_step(&step(6, &three(), &add(4))).is_err());

        let mut asks = Asks::default();
        let (first, second) = (asks.on_sent(&add(4)), asks.on_sent(&add(4)));
        assert_eq!(asks.on_step(&step(6, &three(), &add(4))), Ok(()));
        assert_eq!(asks.on_refused(first), Ok(()));
        assert!(asks.on_refused(second).is_err());
    }

    /// Of two requests that name the same changes in another order, any may be the one that did;
    /// one that asks for something else may not.
    #[test]
    fn order_of_changes_makes_no_difference() {
        let (one, two) = ([remove(1), remove(2)].concat(), [remove(2), remove(1)].concat());
        let told = |done: &[Change]| {
            let mut asks = Asks::default();
            asks.on_sent(&one);
            let number = asks.on_sent(done);
            let step = step(6, &three(), &two);
            asks.on_step(&step).unwrap();
            let membership =
                Membership { index: Index(7), members: Arc::clone(&step.next), committed: true };
            let members = Arc::new(settle(&membership.members));
            asks.on_done(number, &Membership { members, ..membership });
            asks.judge(|_| true)
        };
        assert_eq!(told(&two), Ok(()));
        assert!(told(&remove(3)).is_err());

        let mut asks = Asks::default();
        let (first, second) = (asks.on_sent(&one), asks.on_sent(&two));
        assert_eq!(asks.on_step(&step(6, &three(), &one)), Ok(()));
        assert_eq!(asks.on_refused(first), Ok(()));
        assert!(asks.on_refused(second).is_err());
    }

    /// A learner that is promoted by itself is not proof that the request to promote it was heard.
    #[test]
    fn promotion_needs_no_request() {
        let info = MemberInfo::default();
        let learner = [Change::AddLearner { id: MemberId(4), info, promote: true }];
        let before = Arc::new(apply(&three(), &learner).unwrap());
        let promote = [Change::Promote { id: MemberId(4) }];
        let mut asks = Asks::default();
        let number = asks.on_sent(&promote);
        assert_eq!(asks.on_step(&step(7, &before, &promote)), Ok(()));
        assert_eq!(asks.on_refused(number), Ok(()));
        assert_eq!(Asks::default().on_step(&step(7, &before, &promote)), Ok(()));

        // Of two such requests the first is refused, and the second was the one.
        let mut asks = Asks::default();
        let (first, second) = (asks.on_sent(&promote), asks.on_sent(&promote));
        let step = step(7, &before, &promote);
        assert_eq!(asks.on_step(&step), Ok(()));
        assert_eq!(asks.on_refused(first), Ok(()));
        let membership = Membership { index: Index(7), members: step.next, committed: true };
        asks.on_done(second, &membership);
        assert_eq!(asks.judge(|_| true), Ok(()));
    }

    /// "Done" is said of what is in the one log, up to the configuration that is shown.
    #[test]
    fn done_is_in_the_log() {
        let done = |shown: u64, is_agreed: bool| {
            let mut asks = Asks::default();
            let number = asks.on_sent(&add(4));
            let step = step(6, &three(), &add(4));
            asks.on_step(&step).unwrap();
            let membership =
                Membership { index: Index(shown), members: step.next, committed: true };
            asks.on_done(number, &membership);
            asks.judge(|_| is_agreed)
        };
        assert_eq!(done(6, true), Ok(()));
        assert!(done(5, true).is_err() && done(6, false).is_err());
    }

    /// Everything that may come of requests under way, joint steps included.
    #[test]
    fn reachable_are_all_orders() {
        let (add, remove) = (add(4), remove(1));
        let found = reachable(vec![three()], &[&add, &remove]);
        let texts: BTreeSet<String> = found.iter().map(ToString::to_string).collect();
        let expected = ["(1 2 3)", "(1 2 3 4)", "(2 3)", "(2 3 4)"].map(str::to_owned);
        assert_eq!(texts, BTreeSet::from(expected));
        let both = [add, remove].concat();
        let found = reachable(vec![three()], &[&both]);
        assert!(found.iter().any(|members| members.to_string() == "(2 3 4)&(1 2 3)"));
    }
}
