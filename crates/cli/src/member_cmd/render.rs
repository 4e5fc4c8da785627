//! Answers about members, as etcdctl prints them.

use std::fmt::Write as _;

use anyhow::{Context as _, Result};
use kvraft_client::proto::etcdserverpb::{Member, ResponseHeader};
use serde::Serialize;

use crate::{
    connection::WriteOut,
    kv_commands::json::{Header, header, is_default},
};

/// An answer.
#[derive(Clone, Debug)]
pub(crate) enum MemberReply {
    /// Who belongs to the cluster.
    List { header: Option<ResponseHeader>, members: Vec<Member> },
    /// One more, and how to start it.
    Added { header: Option<ResponseHeader>, member: Member, members: Vec<Member>, start: String },
    /// Something else about a member, in words that end before the cluster.
    Changed { what: &'static str, id: u64, header: Option<ResponseHeader>, members: Vec<Member> },
    /// Who led before, and who leads now.
    LeaderMoved { header: Option<ResponseHeader>, from: u64, to: u64 },
}

/// What the printed command may lack: nobody tells clients with which settings servers run.
const LIKE_THE_OTHERS: &str = "\
and, where the other servers' settings differ from the defaults, with the same: above all
heartbeat-interval, election-timeout, and with lease-reads clock-drift-max, too
";

impl MemberReply {
    /// As text, ended by a newline.
    pub(crate) fn render(&self, write_out: WriteOut) -> Result<Vec<u8>> {
        match write_out {
            WriteOut::Simple => Ok(self.simple().into_bytes()),
            WriteOut::Json => self.json(),
        }
    }

    fn simple(&self) -> String {
        let cluster =
            |header: &Option<ResponseHeader>| header.as_ref().map_or(0, |header| header.cluster_id);
        match self {
            Self::List { members, .. } => members.iter().map(line).collect(),
            Self::Added { header, member, start, .. } => format!(
                "Member {:x} added to cluster {:x}\n\nstart it with\n  {start}\n{LIKE_THE_OTHERS}",
                member.id,
                cluster(header)
            ),
            Self::Changed { what, id, header, .. } => {
                format!("Member {id:x} {what} cluster {:x}\n", cluster(header))
            }
            Self::LeaderMoved { from, to, .. } => {
                format!("Leadership transferred from {from:x} to {to:x}\n")
            }
        }
    }

    fn json(&self) -> Result<Vec<u8>> {
        let (of, member, members): (_, _, &[Member]) = match self {
            Self::List { header, members } | Self::Changed { header, members, .. } => {
                (header, None, members)
            }
            Self::Added { header, member, members, .. } => (header, Some(member), members),
            Self::LeaderMoved { header, .. } => (header, None, &[]),
        };
        let answer = Answer {
            header: header(of.as_ref()),
            member: member.map(MemberJson::new),
            members: members.iter().map(MemberJson::new).collect(),
        };
        let mut out = serde_json::to_vec(&answer).context("writing JSON")?;
        out.push(b'\n');
        Ok(out)
    }
}

/// `8e9e05c52164694d, started, a, http://127.0.0.1:2380, http://127.0.0.1:2379, false`.
fn line(member: &Member) -> String {
    let started = if member.name.is_empty() { "unstarted" } else { "started" };
    let mut line = String::new();
    // Writing to a String cannot fail.
    let _ = writeln!(
        line,
        "{:x}, {started}, {}, {}, {}, {}",
        member.id,
        member.name,
        member.peer_ur_ls.join(","),
        member.client_ur_ls.join(","),
        member.is_learner
    );
    line
}

#[derive(Serialize)]
struct Answer<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    header: Option<Header>,
    #[serde(skip_serializing_if = "Option::is_none")]
    member: Option<MemberJson<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    members: Vec<MemberJson<'a>>,
}

#[derive(Serialize)]
struct MemberJson<'a> {
    #[serde(rename = "ID", skip_serializing_if = "is_default")]
    id: u64,
    #[serde(skip_serializing_if = "is_default")]
    name: &'a str,
    #[serde(rename = "peerURLs", skip_serializing_if = "is_default")]
    peer_urls: &'a [String],
    #[serde(rename = "clientURLs", skip_serializing_if = "is_default")]
    client_urls: &'a [String],
    #[serde(rename = "isLearner", skip_serializing_if = "is_default")]
    is_learner: bool,
}

impl<'a> MemberJson<'a> {
    fn new(member: &'a Member) -> Self {
        Self {
            id: member.id,
            name: &member.name,
            peer_urls: &member.peer_ur_ls,
            client_urls: &member.client_ur_ls,
            is_learner: member.is_learner,
        }
    }
}
