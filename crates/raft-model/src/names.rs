//! What one server calls 1, 2 and 3 in the words of another.
//!
//! Why: every server speaks of itself as 1 and of its neighbours as 2 and 3, and configurations in
//! the log name servers, too. They are translated on the way from one to the other.

use bytes::Bytes;
use kvraft_base::{Entry, EntryKind, MemberId, Members, MembersDraft};
use kvraft_raft::{Body, Message};

/// How names are rewritten: index is the name.
pub(crate) type Renaming = [u64; 4];

/// Every name stays.
pub(crate) const AS_IS: Renaming = [0, 1, 2, 3];
/// The right and the left neighbour change places.
pub(crate) const MIRRORED: Renaming = [0, 1, 3, 2];
/// As the right neighbour says it.
pub(crate) const TO_RIGHT: Renaming = [0, 3, 1, 2];
/// As the left neighbour says it.
pub(crate) const TO_LEFT: Renaming = [0, 2, 3, 1];

/// A server by its new name.
pub(crate) fn member(id: MemberId, renaming: &Renaming) -> MemberId {
    let index = usize::try_from(id.0).expect("names of servers are small");
    MemberId(renaming[index])
}

/// A message with everyone by their new names.
pub(crate) fn message(mut message: Message, renaming: &Renaming) -> Message {
    message.from = member(message.from, renaming);
    message.to = member(message.to, renaming);
    if let Body::Append { entries, .. } = &mut message.body {
        for entry in entries.iter_mut().filter(|entry| entry.kind == EntryKind::Config) {
            let payload = Bytes::from(payload(&entry.payload, renaming));
            *entry = Entry::new(entry.term, entry.index, entry.kind, payload);
        }
    }
    message
}

/// A configuration, encoded, with everyone by their new names. The other payloads are empty.
pub(crate) fn payload(bytes: &[u8], renaming: &Renaming) -> Vec<u8> {
    let members = Members::decode(Bytes::copy_from_slice(bytes)).expect("only members are named");
    let MembersDraft { voters, voters_outgoing, learners, id_max, infos } = members.draft();
    let renamed = MembersDraft {
        voters: voters.into_iter().map(|id| member(id, renaming)).collect(),
        voters_outgoing: voters_outgoing.into_iter().map(|id| member(id, renaming)).collect(),
        learners: learners.into_iter().map(|(id, to)| (member(id, renaming), to)).collect(),
        id_max,
        infos: infos.into_iter().map(|(id, info)| (member(id, renaming), info)).collect(),
    };
    renamed.finish().expect("other names change nothing").encode().to_vec()
}
