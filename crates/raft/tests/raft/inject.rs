//! Forged messages: what a peer could say, written into a scenario by hand.
//!
//! `inject FROM TO term=T` and one of
//! - `append prev="TERM INDEX" [commit=I] [log="TERM …"]`, `accepted matched="TERM INDEX"`,
//!   `conflict rejected="TERM INDEX" hint="TERM INDEX" [commit=I] [last=I]`;
//! - `heartbeat [round=N] [commit=I]`, `commit commit=I`, `notice at="TERM INDEX"`,
//!   `alive round=N [received=I] [last=I] [matched="TERM INDEX"]`: a heartbeat's answer;
//! - `reading [index=I]`: the answer to a follower's question for a read;
//! - `prevote campaign=T last="TERM INDEX"`, `vote last="TERM INDEX"`,
//!   `prevoted campaign=T granted=BOOL`, `voted granted=BOOL`.

use kvraft_base::{Index, Position, Term};
use kvraft_raft::{AppendOutcome, Body, Message};

use crate::scripts::{Args, Result, make_entries};

/// The message that the arguments describe.
pub(crate) fn message(args: &Args<'_>) -> Result<Message> {
    let kind = *args.plain().get(2).ok_or("which message?")?;
    Ok(Message {
        from: args.id(0)?,
        to: args.id(1)?,
        term: Term(args.number("term")?.ok_or("which term?")?),
        body: body(kind, args)?,
    })
}

fn body(kind: &str, args: &Args<'_>) -> Result<Body> {
    let number = |name| Ok::<u64, Box<dyn std::error::Error>>(args.number(name)?.unwrap_or(0));
    let commit = Index(number("commit")?);
    let last = Index(args.terms("last")?.pop().unwrap_or(0));
    let campaign = Term(number("campaign")?);
    let granted = args.named("granted") == Some("true");
    Ok(match kind {
        "append" => {
            let prev = position(args, "prev")?;
            let entries = make_entries(prev.index.0, &args.terms("log")?);
            Body::Append { prev, commit, entries }
        }
        "accepted" => {
            let outcome = AppendOutcome::Accepted { matched: position(args, "matched")? };
            Body::AppendAnswer { outcome }
        }
        "conflict" => {
            let (rejected, hint) = (position(args, "rejected")?, position(args, "hint")?);
            let outcome = AppendOutcome::Conflict { rejected, hint, commit, last };
            Body::AppendAnswer { outcome }
        }
        "heartbeat" => Body::Heartbeat { round: number("round")?, commit },
        "alive" => Body::HeartbeatAnswer {
            round: number("round")?,
            received: Index(number("received")?),
            last,
            matched: position(args, "matched")?,
        },
        "reading" => Body::ReadAnswer { context: 0, index: args.number("index")?.map(Index) },
        "wanted" => Body::SnapshotWanted,
        "commit" => Body::CommitNotice { commit },
        "notice" => Body::SnapshotNotice { position: position(args, "at")? },
        "prevote" => Body::PreVoteRequest { campaign, last: position(args, "last")? },
        "prevoted" => Body::PreVoteAnswer { campaign, granted },
        "vote" => {
            let transfer = args.named("transfer") == Some("true");
            Body::VoteRequest { last: position(args, "last")?, transfer }
        }
        "timeout" => Body::TimeoutNow,
        "voted" => Body::VoteAnswer { granted },
        other => return Err(format!("there is no message {other}").into()),
    })
}

/// `TERM INDEX`; nothing is the position before every log.
fn position(args: &Args<'_>, name: &str) -> Result<Position> {
    match args.terms(name)?[..] {
        [] => Ok(Position::ZERO),
        [term, index] => Ok(Position::new(Term(term), Index(index))),
        _ => Err(format!("{name} is a term and an index").into()),
    }
}
