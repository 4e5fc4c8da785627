use super::*;

fn ids(ids: &[u64]) -> BTreeSet<MemberId> {
    ids.iter().copied().map(MemberId).collect()
}

fn joint() -> Members {
    let info = |name: &str| MemberInfo {
        name: name.to_owned(),
        peer_addresses: vec!["10.0.0.1:7101".to_owned(), "[::1]:7101".to_owned()],
        client_addresses: vec!["10.0.0.1:7001".to_owned()],
    };
    MembersDraft {
        voters: ids(&[1, 2, 4]),
        voters_outgoing: ids(&[1, 2, 3]),
        learners: BTreeMap::from([(MemberId(3), false), (MemberId(5), true)]),
        id_max: MemberId(7),
        infos: BTreeMap::from([(MemberId(1), info("one")), (MemberId(5), info("five"))]),
    }
    .finish()
    .unwrap()
}

/// Majorities are strict for odd and even sizes.
#[test]
fn majority_is_strict() {
    assert_eq!([1, 2, 3, 4, 5, 6, 7].map(majority), [1, 2, 2, 3, 3, 4, 4]);
}

/// Configurations survive their own encoding, simple or joint; any cut is refused.
#[test]
fn members_round_trip() {
    let simple = Members::new([MemberId(3), MemberId(1)]).unwrap();
    assert_eq!(simple.voters(), [MemberId(1), MemberId(3)]);
    for members in [simple, joint()] {
        let bytes = members.encode();
        assert_eq!(Members::decode(bytes.clone()), Ok(members));
        for size in 0..bytes.len() {
            assert!(Members::decode(bytes.slice(..size)).is_err(), "cut at {size}");
        }
    }
}

/// What version 1 wrote is still read.
#[test]
fn version_1_is_read() {
    let mut writer = Writer::new();
    writer.u8(1).count(2).u64(1).u64(3).count(0).count(0);
    let expected = Members::new([MemberId(1), MemberId(3)]).unwrap();
    assert_eq!(expected.next_id(), MemberId(4));
    assert_eq!(Members::decode(writer.finish()), Ok(expected));
    let mut writer = Writer::new();
    writer.u8(1).count(1).u64(1).count(1).u64(2).count(0);
    assert!(Members::decode(writer.finish()).is_err());
}

/// No flipped byte makes decoding panic, and what it gives can be.
#[test]
fn damaged_configurations_do_not_panic() {
    let bytes = joint().encode();
    for at in 0..bytes.len() {
        for flip in [1, 0x80, 0xff] {
            let mut damaged = bytes.to_vec();
            damaged[at] ^= flip;
            if let Ok(members) = Members::decode(damaged.into()) {
                assert_eq!(Members::decode(members.encode()), Ok(members));
            }
        }
    }
}

/// A configuration that cannot be is never made.
#[test]
fn impossible_configurations_are_refused() {
    assert_eq!(Members::new([]), None);
    assert_eq!(Members::new([MemberId(1), MemberId(1)]), None);
    assert_eq!(Members::new([MemberId(0)]), None);
    assert_eq!(Members::new((1..=8).map(MemberId)), None);
    let change = |change: fn(&mut MembersDraft)| {
        let mut draft = joint().draft();
        change(&mut draft);
        draft.finish().unwrap_err()
    };
    assert_eq!(change(|draft| draft.voters.clear()), MembersError::NoVoters);
    let error = change(|draft| draft.learners.extend([(MemberId(4), false)]));
    assert_eq!(error, MembersError::VoterAndLearner(MemberId(4)));
    let error = change(|draft| draft.learners.extend([(MemberId(8), false)]));
    assert_eq!(error, MembersError::IdAboveMax(MemberId(8)));
    assert_eq!(change(|draft| draft.id_max = MemberId(u64::MAX)), MembersError::NoIdLeft);
    let error = change(|draft| draft.infos.extend([(MemberId(6), MemberInfo::default())]));
    assert_eq!(error, MembersError::InfoOfNobody(MemberId(6)));
    let error = change(|draft| {
        draft.infos.entry(MemberId(1)).or_default().name = "x".repeat(1000);
    });
    assert_eq!(error, MembersError::InfoTooLarge(MemberId(1)));
}

/// What each member of a joint configuration is.
#[test]
fn roles_are_told_apart() {
    let members = joint();
    let roles: Vec<_> = (1..=6).map(|id| members.role(MemberId(id))).collect();
    let voter = Some(MemberRole::Voter);
    let outgoing = Some(MemberRole::VoterOutgoing);
    let incoming = Some(MemberRole::VoterIncoming);
    assert_eq!(roles, [voter, voter, outgoing, incoming, Some(MemberRole::Learner), None]);
    assert_eq!(members.to_string(), "(1 2 4)&(1 2 3) learners (3 5+)");
    assert!(members.is_quorum(|id| id.0 <= 2));
    assert!(!members.is_quorum(|id| id.0 == 1 || id.0 == 4), "the old half has not agreed");
    assert!(!members.is_quorum(|id| id.0 == 1 || id.0 == 3), "the new half has not agreed");
}
