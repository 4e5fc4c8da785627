//! The options of each operation and the request they make; the same for a command, a line of a
//! transaction and a line at the prompt.

use std::{ffi::OsString, os::unix::ffi::OsStringExt as _};

use anyhow::{Result, bail, ensure};
use bytes::Bytes;
use kvraft_client::{
    prefix_end,
    proto::etcdserverpb::{
        DeleteRangeRequest, PutRequest, RangeRequest,
        range_request::{SortOrder, SortTarget},
    },
};

/// Of `put`.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct PutOptions {
    /// The key
    key: OsString,
    /// The value
    value: Option<OsString>,
    /// Also return what was there before
    #[arg(long)]
    prev_kv: bool,
    /// Keep the present value
    #[arg(long)]
    ignore_value: bool,
    /// Keep the present lease
    #[arg(long)]
    ignore_lease: bool,
    /// Lease to attach, in hexadecimal
    #[arg(long, value_name = "ID", value_parser = parse_lease, default_value = "0")]
    lease: i64,
}

/// Of `get`.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct GetOptions {
    #[command(flatten)]
    span: Span,
    /// Most keys to return; 0 is all
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    limit: i64,
    /// Revision to read at; 0 is the newest
    #[arg(long, value_name = "REVISION", default_value_t = 0)]
    rev: i64,
    /// What to sort by
    #[arg(long, value_enum, ignore_case = true, value_name = "TARGET")]
    sort_by: Option<SortBy>,
    /// Which way to sort
    #[arg(long, value_enum, ignore_case = true, value_name = "ORDER")]
    order: Option<Order>,
    /// Only keys, no values
    #[arg(long)]
    keys_only: bool,
    /// Only how many
    #[arg(long)]
    count_only: bool,
    /// Only values, no keys (with -w simple)
    #[arg(long)]
    print_value_only: bool,
    /// l: what the whole cluster has agreed on; s: what the server asked has at hand
    #[arg(long, value_enum, value_name = "KIND", default_value_t = Consistency::Linearizable)]
    consistency: Consistency,
}

/// Of `del`.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct DelOptions {
    #[command(flatten)]
    span: Span,
    /// Also return what was there before
    #[arg(long)]
    prev_kv: bool,
}

/// Of `compact`.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct CompactOptions {
    /// Nothing older than this is kept
    pub(crate) revision: i64,
    /// Wait until the space is free
    #[arg(long)]
    pub(crate) physical: bool,
}

/// Which keys.
#[derive(clap::Args, Clone, Debug)]
struct Span {
    /// The key, or the first one
    key: OsString,
    /// The first key that is no longer meant
    range_end: Option<OsString>,
    /// All keys that begin with KEY
    #[arg(long)]
    prefix: bool,
    /// All keys from KEY on
    #[arg(long)]
    from_key: bool,
}

#[derive(clap::ValueEnum, Clone, Copy, Debug)]
enum SortBy {
    Create,
    Key,
    Modify,
    Value,
    Version,
}

#[derive(clap::ValueEnum, Clone, Copy, Debug)]
enum Order {
    Ascend,
    Descend,
}

#[derive(clap::ValueEnum, Clone, Copy, Debug)]
enum Consistency {
    #[value(name = "l", alias = "linearizable")]
    Linearizable,
    #[value(name = "s", alias = "serializable")]
    Serializable,
}

/// What of a range is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Show {
    /// Keys and values.
    #[default]
    Pairs,
    /// Only values.
    Values,
    /// Only the count.
    Count,
}

impl PutOptions {
    /// True if a value is missing that must come from elsewhere.
    pub(crate) fn wants_value(&self) -> bool {
        self.value.is_none() && !self.ignore_value
    }

    /// The value that came from elsewhere.
    pub(crate) fn set_value(&mut self, value: Vec<u8>) {
        self.value = Some(OsString::from_vec(value));
    }

    pub(crate) fn request(self) -> Result<PutRequest> {
        ensure!(!self.wants_value(), "put needs a key and a value");
        Ok(PutRequest {
            key: to_bytes(self.key),
            value: self.value.map(to_bytes).unwrap_or_default(),
            lease: self.lease,
            prev_kv: self.prev_kv,
            ignore_value: self.ignore_value,
            ignore_lease: self.ignore_lease,
        })
    }
}

impl GetOptions {
    /// What of the answer to print.
    pub(crate) fn show(&self) -> Show {
        match (self.count_only, self.print_value_only) {
            (true, _) => Show::Count,
            (false, true) => Show::Values,
            (false, false) => Show::Pairs,
        }
    }

    /// Whether one key is asked for, and nothing special.
    pub(crate) fn is_plain(&self) -> bool {
        let plain = |key| RangeRequest { key, ..RangeRequest::default() };
        let is_plain = |request: RangeRequest| request == plain(request.key.clone());
        !self.print_value_only && self.clone().request().is_ok_and(is_plain)
    }

    pub(crate) fn request(self) -> Result<RangeRequest> {
        ensure!(
            !(self.keys_only && self.count_only),
            "--keys-only and --count-only cannot be set at the same time"
        );
        let (key, range_end) = self.span.bounds()?;
        let sort_order = match self.order {
            Some(Order::Ascend) => SortOrder::Ascend,
            Some(Order::Descend) => SortOrder::Descend,
            None => SortOrder::None,
        };
        let sort_target = match self.sort_by {
            Some(SortBy::Create) => SortTarget::Create,
            Some(SortBy::Modify) => SortTarget::Mod,
            Some(SortBy::Value) => SortTarget::Value,
            Some(SortBy::Version) => SortTarget::Version,
            Some(SortBy::Key) | None => SortTarget::Key,
        };
        Ok(RangeRequest {
            key,
            range_end,
            limit: self.limit,
            revision: self.rev,
            sort_order: sort_order.into(),
            sort_target: sort_target.into(),
            serializable: matches!(self.consistency, Consistency::Serializable),
            keys_only: self.keys_only,
            count_only: self.count_only,
            ..RangeRequest::default()
        })
    }
}

impl DelOptions {
    pub(crate) fn request(self) -> Result<DeleteRangeRequest> {
        let (key, range_end) = self.span.bounds()?;
        Ok(DeleteRangeRequest { key, range_end, prev_kv: self.prev_kv })
    }
}

impl Span {
    /// First key and range end as the API wants them.
    fn bounds(self) -> Result<(Bytes, Bytes)> {
        let everything = Bytes::from_static(b"\0");
        let key = to_bytes(self.key);
        let range_end = self.range_end.map(to_bytes);
        match (self.prefix, self.from_key, range_end) {
            (true, true, _) => bail!("--prefix and --from-key cannot be set at the same time"),
            (true, _, Some(_)) => bail!("a range end and --prefix cannot be set at the same time"),
            (_, true, Some(_)) => {
                bail!("a range end and --from-key cannot be set at the same time")
            }
            (true, false, None) | (false, true, None) if key.is_empty() => {
                Ok((everything.clone(), everything))
            }
            (true, false, None) => {
                let end = prefix_end(&key);
                Ok((key, end))
            }
            (false, true, None) => Ok((key, everything)),
            (false, false, range_end) => Ok((key, range_end.unwrap_or_default())),
        }
    }
}

/// Reads a lease id as etcdctl writes it.
fn parse_lease(text: &str) -> Result<i64, String> {
    i64::from_str_radix(text, 16).map_err(|_| "not a lease id in hexadecimal".to_owned())
}

fn to_bytes(text: OsString) -> Bytes {
    text.into_vec().into()
}
