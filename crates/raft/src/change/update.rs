//! What is to be known of a member from now on, field by field.
//!
//! Why fields and not a whole [`MemberInfo`]: whoever wishes for one of them may know the others as
//! they were long ago, and must not bring that back.

use kvraft_base::{DecodeError, MemberInfo, Reader, Writer};

/// What of a member's name and addresses is set. What is `None` stays as the leader knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct InfoUpdate {
    /// See [`MemberInfo::name`].
    pub name: Option<String>,
    /// See [`MemberInfo::peer_addresses`].
    pub peer_addresses: Option<Vec<String>>,
    /// See [`MemberInfo::client_addresses`].
    pub client_addresses: Option<Vec<String>>,
    /// The same as `peer_addresses`, but for a member of which none are known; else they stay.
    pub peer_addresses_if_none: Option<Vec<String>>,
}

impl From<MemberInfo> for InfoUpdate {
    /// Sets every field.
    fn from(info: MemberInfo) -> Self {
        Self {
            name: Some(info.name),
            peer_addresses: Some(info.peer_addresses),
            client_addresses: Some(info.client_addresses),
            peer_addresses_if_none: None,
        }
    }
}

impl InfoUpdate {
    /// Sets what is to be set.
    pub fn apply(&self, info: &mut MemberInfo) {
        if let Some(name) = &self.name {
            info.name.clone_from(name);
        }
        if let Some(addresses) = &self.peer_addresses {
            info.peer_addresses.clone_from(addresses);
        }
        if let Some(addresses) = &self.client_addresses {
            info.client_addresses.clone_from(addresses);
        }
        if let Some(addresses) = &self.peer_addresses_if_none
            && info.peer_addresses.is_empty()
        {
            info.peer_addresses.clone_from(addresses);
        }
    }

    /// Appends the encoding: for each field whether it is set, and what to.
    pub(super) fn encode(&self, writer: &mut Writer) {
        if let Some(name) = &self.name {
            writer.bool(true).bytes(name.as_bytes());
        } else {
            writer.bool(false);
        }
        let lists = [&self.peer_addresses, &self.client_addresses, &self.peer_addresses_if_none];
        for list in lists {
            writer.bool(list.is_some());
            let Some(list) = list else { continue };
            writer.count(list.len());
            for address in list {
                writer.bytes(address.as_bytes());
            }
        }
    }

    /// Reads an encoding back. Bounds are checked with the configuration.
    pub(super) fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        Ok(Self {
            name: decode_field(reader, decode_text)?,
            peer_addresses: decode_field(reader, decode_addresses)?,
            client_addresses: decode_field(reader, decode_addresses)?,
            peer_addresses_if_none: decode_field(reader, decode_addresses)?,
        })
    }
}

fn decode_field<T>(
    reader: &mut Reader,
    decode: fn(&mut Reader) -> Result<T, DecodeError>,
) -> Result<Option<T>, DecodeError> {
    if reader.bool("field is set")? { decode(reader).map(Some) } else { Ok(None) }
}

fn decode_addresses(reader: &mut Reader) -> Result<Vec<String>, DecodeError> {
    let count = reader.count("address count", 4)?;
    (0..count).map(|_| decode_text(reader)).collect()
}

fn decode_text(reader: &mut Reader) -> Result<String, DecodeError> {
    let bytes = reader.bytes("member text")?;
    let value = bytes.len() as u64;
    let unknown = |_| DecodeError::Unknown { what: "member text", value };
    String::from_utf8(bytes.to_vec()).map_err(unknown)
}

#[cfg(test)]
mod tests {
    use kvraft_base::{MemberId, MemberInfo, Members, Reader, Writer};

    use super::InfoUpdate;
    use crate::change::{Change, change};

    const ID: MemberId = MemberId(2);

    fn list(address: &str) -> Vec<String> {
        vec![address.to_owned()]
    }

    fn after(members: &Members, update: InfoUpdate) -> Members {
        change(members, &[Change::Update { id: ID, info: update }], |_| true).unwrap()
    }

    /// Whoever sets one field does not bring back what it remembers of the others.
    #[test]
    fn what_is_not_set_stays() {
        let info = MemberInfo {
            name: "b".into(),
            peer_addresses: list("old:1"),
            client_addresses: list("old:2"),
        };
        let start = Members::new([1, 2, 3].map(MemberId)).unwrap();
        let known = after(&start, info.clone().into());
        assert_eq!(known.info(ID), Some(&info));
        let moved = InfoUpdate { peer_addresses: Some(list("new:1")), ..InfoUpdate::default() };
        let serving = InfoUpdate {
            client_addresses: Some(list("new:2")),
            peer_addresses_if_none: Some(list("own:1")),
            ..InfoUpdate::default()
        };
        let both = after(&after(&known, moved), serving.clone());
        let new = MemberInfo {
            name: "b".into(),
            peer_addresses: list("new:1"),
            client_addresses: list("new:2"),
        };
        assert_eq!(both.info(ID), Some(&new));
        let first = after(&start, serving);
        assert_eq!(first.info(ID).map(|info| &info.peer_addresses), Some(&list("own:1")));
    }

    /// Every choice of fields survives its encoding.
    #[test]
    fn updates_round_trip() {
        for set in 0..16_u8 {
            let has = |bit: u8| set & bit != 0;
            let update = InfoUpdate {
                name: has(1).then(|| "b".to_owned()),
                peer_addresses: has(2).then(|| list("b:1")),
                client_addresses: has(4).then(|| ["b:2", "b:3"].map(str::to_owned).to_vec()),
                peer_addresses_if_none: has(8).then(Vec::new),
            };
            let mut writer = Writer::new();
            update.encode(&mut writer);
            let mut reader = Reader::new(writer.finish());
            assert_eq!(InfoUpdate::decode(&mut reader), Ok(update));
            assert_eq!(reader.finish(), Ok(()));
        }
    }
}
