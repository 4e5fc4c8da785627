use super::*;

fn info(name: &str) -> MemberInfo {
    MemberInfo { name: name.to_owned(), ..MemberInfo::default() }
}

/// `"v4 l5 l6+ r3 p5 d2 u1"`: add voter, add learner (to be promoted), remove, promote, demote,
/// update.
pub(crate) fn changes(text: &str) -> Vec<Change> {
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
