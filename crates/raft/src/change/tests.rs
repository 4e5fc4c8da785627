use super::*;

fn info(name: &str) -> MemberInfo {
    MemberInfo { name: name.to_owned(), ..MemberInfo::default() }
}

/// `"v4 l5 l6+ r3 p5 d2 u1"`: add voter, add learner (to be promoted), remove, promote, demote,
/// update.
fn changes(text: &str) -> Vec<Change> {
    let change = |word: &str| {
        let promote = word.ends_with('+');
        let id = MemberId(word[1..].trim_end_matches('+').parse().unwrap());
        match word.as_bytes()[0] {
            b'v' => Change::AddVoter { id, info: info(word) },
            b'l' => Change::AddLearner { id, info: info(word), promote },
            b'r' => Change::Remove { id },
            b'p' => Change::Promote { id },
            b'd' => Change::Demote { id },
            _ => Change::Update { id, info: info(word).into() },
        }
    };
    text.split_whitespace().map(change).collect()
}

/// Each step from `(1 2 3)`, one after the other; joint ones are left before the next.
fn follow(steps: &[&str]) -> Vec<String> {
    let mut members = Members::new([1, 2, 3].map(MemberId)).unwrap();
    let mut seen = Vec::new();
    for step in steps {
        match change(&members, &changes(step), |id| id != MemberId(9)) {
            Ok(next) => {
                seen.push(next.to_string());
                members = if next.is_joint() { leave(&next) } else { next };
            }
            Err(error) => seen.push(error.to_string()),
        }
    }
    seen.push(members.to_string());
    seen
}

/// One voter more or less needs no joint step; more do.
#[test]
fn more_than_one_voter_goes_through_joint() {
    assert_eq!(
        follow(&["v4", "r4", "d3"]),
        ["(1 2 3 4)", "(1 2 3)", "(1 2) learners (3)", "(1 2) learners (3)"]
    );
    assert_eq!(follow(&["v4 r3"]), ["(1 2 4)&(1 2 3)", "(1 2 4)"]);
    assert_eq!(
        follow(&["v4 v5", "r4 r5"]),
        ["(1 2 3 4 5)&(1 2 3)", "(1 2 3)&(1 2 3 4 5)", "(1 2 3)"]
    );
    assert_eq!(follow(&["r1 r2 r3 v4 v5 v6"]), ["(4 5 6)&(1 2 3)", "(4 5 6)"]);
}

/// Any number of learners come and go in one step.
#[test]
fn learners_need_no_joint_step() {
    let seen = follow(&["l4 l5+ l6", "p4", "r5 r6 u1"]);
    assert_eq!(
        seen,
        ["(1 2 3) learners (4 5+ 6)", "(1 2 3 4) learners (5+ 6)", "(1 2 3 4)", "(1 2 3 4)"]
    );
}

/// A voter that is demoted while others come and go keeps its vote until the joint step is over.
#[test]
fn demoted_voter_votes_until_the_end() {
    let joint =
        change(&Members::new([1, 2, 3].map(MemberId)).unwrap(), &changes("v4 d3"), |_| true)
            .unwrap();
    assert_eq!(joint.to_string(), "(1 2 4)&(1 2 3) learners (3)");
    assert!(joint.is_voter(MemberId(3)));
    assert_eq!(leave(&joint).to_string(), "(1 2 4) learners (3)");
}

/// What cannot be is refused with its reason, and changes nothing.
#[test]
fn impossible_changes_are_refused() {
    let table = [
        ("", "nothing is to be changed"),
        ("v4 r4", "member 4 is named twice"),
        ("v3", "member 3 is a member already"),
        ("l3", "member 3 is a member already"),
        ("r4", "member 4 is unknown"),
        ("u4", "member 4 is unknown"),
        ("p4", "member 4 is unknown"),
        ("d4", "member 4 is unknown"),
        ("p3", "member 3 is no learner"),
        ("r1 r2 r3", "no voter is left"),
        ("d1 d2 d3", "no voter is left"),
        ("v4 v5 v6 v7 v8", "8 voters are too many"),
        ("l4 l5 l6 l7 l8 l9 l10 l11 l12", "9 learners are too many"),
    ];
    for (step, reason) in table {
        assert_eq!(follow(&[step]), [reason, "(1 2 3)"], "{step}");
    }
    assert_eq!(follow(&["l4", "d4"])[1], "member 4 is no voter");
    assert_eq!(follow(&["l9", "p9"])[1], "learner 9 is not in step with the leader");
}

/// Members that left do not come back under the same id, nor does an id below it.
#[test]
fn ids_are_never_used_again() {
    let seen = follow(&["v5", "r5", "v5", "v4", "v6"]);
    assert_eq!(seen[2], "member id 5 was used before; the next is above 5");
    assert_eq!(seen[3], "member id 4 was used before; the next is above 5");
    assert_eq!(seen[5], "(1 2 3 6)");
}

/// Names stay with those who stay, and with those who still vote.
#[test]
fn infos_follow_their_members() {
    let before = Members::new([1, 2, 3].map(MemberId)).unwrap();
    let named = change(&before, &changes("u1 u2 u3"), |_| true).unwrap();
    let joint = change(&named, &changes("v4 r3 u1"), |_| true).unwrap();
    let name = |members: &Members, id| members.info(MemberId(id)).map(|info| info.name.clone());
    assert_eq!(name(&joint, 3).as_deref(), Some("u3"));
    let after = leave(&joint);
    assert_eq!(name(&after, 3), None);
    assert_eq!(name(&after, 4).as_deref(), Some("v4"));
}

/// Changes survive their encoding.
#[test]
fn changes_round_trip() {
    for change in changes("v4 l5 l6+ r3 p5 d2 u1") {
        let mut writer = Writer::new();
        change.encode(&mut writer);
        let mut reader = Reader::new(writer.finish());
        assert_eq!(Change::decode(&mut reader), Ok(change));
        assert_eq!(reader.finish(), Ok(()));
    }
}
