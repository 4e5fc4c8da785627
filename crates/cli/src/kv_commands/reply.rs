//! What came back, ready to be printed.

use anyhow::{Result, ensure};
use kvraft_client::proto::etcdserverpb::{
    CompactionResponse, DeleteRangeResponse, PutResponse, RangeResponse, StatusResponse,
    TxnResponse,
};

use super::{json, options::Show, simple};
use crate::connection::WriteOut;

/// One server's answer to `status`.
#[derive(Clone, Debug)]
pub(crate) struct MemberStatus {
    /// As the user wrote it.
    pub(crate) endpoint: String,
    /// What it said.
    pub(crate) status: StatusResponse,
}

/// The answer to a command.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    Put(PutResponse),
    Range(RangeResponse, Show),
    Delete(DeleteRangeResponse),
    Txn(TxnResponse),
    /// With the revision that was asked for.
    Compact(CompactionResponse, i64),
    Status(Vec<MemberStatus>),
}

impl Reply {
    /// As text, ended by a newline.
    pub(crate) fn render(&self, write_out: WriteOut) -> Result<Vec<u8>> {
        if write_out == WriteOut::Json {
            ensure!(
                !matches!(self, Self::Range(_, Show::Values)),
                "--print-value-only is only for -w simple"
            );
            return json::render(self);
        }
        let mut out = Vec::new();
        match self {
            Self::Put(response) => simple::put(&mut out, response),
            Self::Range(response, show) => simple::range(&mut out, response, *show),
            Self::Delete(response) => simple::delete(&mut out, response),
            Self::Txn(response) => simple::txn(&mut out, response),
            Self::Compact(_, revision) => {
                simple::line(&mut out, format!("compacted revision {revision}").as_bytes());
            }
            Self::Status(members) => {
                for member in members {
                    simple::status(&mut out, member);
                }
            }
        }
        Ok(out)
    }
}
