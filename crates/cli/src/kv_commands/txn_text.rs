//! A transaction as text: three sections, each ended by an empty line.

use std::{ffi::OsString, os::unix::ffi::OsStringExt as _};

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use clap::Parser as _;
use kvraft_client::proto::etcdserverpb::{
    Compare, RequestOp, TxnRequest,
    compare::{CompareResult, CompareTarget, TargetUnion},
    request_op::Request,
};

use super::{
    options::{DelOptions, GetOptions, PutOptions},
    words::{quoted, words},
};

/// A transaction as far as it has been read.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sections {
    request: TxnRequest,
    /// Which section the next line belongs to; 3 is "all read".
    section: usize,
    /// How many lines that section has.
    line_count: usize,
}

/// One operation of a branch.
#[derive(clap::Parser)]
#[command(no_binary_name = true, disable_help_subcommand = true)]
enum Line {
    Put(PutOptions),
    Get(GetOptions),
    Del(DelOptions),
}

impl Sections {
    /// What the section that comes next is called.
    pub(crate) fn title(&self) -> &'static str {
        match self.section {
            0 => "compares:",
            1 => "success requests (get, put, del):",
            _ => "failure requests (get, put, del):",
        }
    }

    /// True before the first line of a section.
    pub(crate) fn is_at_start(&self) -> bool {
        self.line_count == 0
    }

    /// Takes a line; true when it ended the last section.
    pub(crate) fn push(&mut self, line: &str) -> Result<bool> {
        let line = line.trim();
        if line.is_empty() {
            self.section += 1;
            self.line_count = 0;
            return Ok(2 < self.section);
        }
        self.line_count += 1;
        match self.section {
            0 => self.request.compare.push(compare(line)?),
            1 => self.request.success.push(operation(line)?),
            _ => self.request.failure.push(operation(line)?),
        }
        Ok(false)
    }

    /// The transaction; sections that were not given are empty.
    pub(crate) fn finish(self) -> Result<TxnRequest> {
        let TxnRequest { compare, success, failure } = &self.request;
        if compare.is_empty() && success.is_empty() && failure.is_empty() {
            bail!("the transaction is empty");
        }
        Ok(self.request)
    }
}

/// Reads `TARGET("KEY") OP "VALUE"`.
fn compare(line: &str) -> Result<Compare> {
    let malformed = || format!("malformed comparison: {line}");
    let (target, rest) = line.split_once('(').with_context(malformed)?;
    let (key, rest) = quoted(rest.trim_start()).with_context(malformed)?;
    let rest = rest.trim_start().strip_prefix(')').with_context(malformed)?.trim_start();
    let at = rest.find('"').with_context(malformed)?;
    let (result, rest) = rest.split_at(at);
    let (value, rest) = quoted(rest).with_context(malformed)?;
    if !rest.trim().is_empty() {
        bail!("malformed comparison: {line} (what is {:?}?)", rest.trim());
    }
    let result = match result.trim() {
        "=" | "==" => CompareResult::Equal,
        "!=" => CompareResult::NotEqual,
        "<" => CompareResult::Less,
        ">" => CompareResult::Greater,
        other => bail!("malformed comparison: {line} (unknown operator {other})"),
    };
    let number = |radix| -> Result<i64> {
        let text = std::str::from_utf8(&value).with_context(malformed)?;
        i64::from_str_radix(text, radix)
            .with_context(|| format!("malformed comparison: {line} ({text:?} is not a number)"))
    };
    let (target, union) = match target.trim() {
        "ver" | "version" => (CompareTarget::Version, TargetUnion::Version(number(10)?)),
        "c" | "create" => (CompareTarget::Create, TargetUnion::CreateRevision(number(10)?)),
        "m" | "mod" => (CompareTarget::Mod, TargetUnion::ModRevision(number(10)?)),
        "lease" => (CompareTarget::Lease, TargetUnion::Lease(number(16)?)),
        "val" | "value" => (CompareTarget::Value, TargetUnion::Value(Bytes::from(value))),
        other => bail!("malformed comparison: {line} (unknown target {other})"),
    };
    Ok(Compare {
        result: result.into(),
        target: target.into(),
        key: key.into(),
        range_end: Bytes::new(),
        target_union: Some(union),
    })
}

/// Reads `put …`, `get …` or `del …`.
fn operation(line: &str) -> Result<RequestOp> {
    let bad = || format!("bad operation: {line}");
    let words = words(line).with_context(bad)?.into_iter().map(OsString::from_vec);
    let parsed = Line::try_parse_from(words).map_err(|error| brief(&error)).with_context(bad)?;
    let request = match parsed {
        Line::Put(options) => Request::RequestPut(options.request().with_context(bad)?),
        Line::Get(options) => Request::RequestRange(options.request().with_context(bad)?),
        Line::Del(options) => Request::RequestDeleteRange(options.request().with_context(bad)?),
    };
    Ok(RequestOp { request: Some(request) })
}

/// The first line of what clap says: usage text would drown it.
fn brief(error: &clap::Error) -> anyhow::Error {
    let text = error.to_string();
    let first = text.lines().next().unwrap_or_default();
    anyhow::Error::msg(first.strip_prefix("error: ").unwrap_or(first).to_owned())
}
