//! From what a person calls a member to the member.

use anyhow::{Result, bail};
use kvraft_client::proto::etcdserverpb::Member;

/// The one member whose id (in hexadecimal), name or peer address this is.
///
/// # Errors
/// When there is none, naming those that there are, or more than one.
pub(crate) fn find<'a>(members: &'a [Member], wanted: &str) -> Result<&'a Member> {
    let digits = wanted.strip_prefix("0x").unwrap_or(wanted);
    let id = u64::from_str_radix(digits, 16).ok();
    let address = without_scheme(wanted);
    let is_meant = |member: &&Member| {
        let mut addresses = member.peer_ur_ls.iter();
        Some(member.id) == id
            || (!wanted.is_empty() && member.name == wanted)
            || addresses.any(|url| without_scheme(url) == address)
    };
    let found: Vec<&Member> = members.iter().filter(is_meant).collect();
    match found[..] {
        [one] => Ok(one),
        [] => bail!(
            "no member has {wanted:?} as its id (in hexadecimal), name or peer address; there are {}",
            names(members.iter())
        ),
        _ => bail!("{wanted:?} may mean any of {}", names(found.into_iter())),
    }
}

/// `1 (a), 2 (b)`.
fn names<'a>(members: impl Iterator<Item = &'a Member>) -> String {
    let name = |member: &Member| match (member.name.as_str(), member.peer_ur_ls.first()) {
        ("", Some(url)) => format!("{:x} ({})", member.id, without_scheme(url)),
        ("", None) => format!("{:x}", member.id),
        (name, _) => format!("{:x} ({name})", member.id),
    };
    members.map(name).collect::<Vec<_>>().join(", ")
}

/// `host:port` of `http://host:port`.
pub(crate) fn without_scheme(url: &str) -> &str {
    url.split_once("://").map_or(url, |(_, rest)| rest).trim_end_matches('/')
}
