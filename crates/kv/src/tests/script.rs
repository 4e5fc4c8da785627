//! Scenarios as text: one request a line, and the answers as text.
//!
//! ```text
//! put KEY VALUE [prev] [ignore_value] [ignore_lease] [lease=N]
//! get KEY [END] [limit=N] [rev=N] [sort=TARGET] [asc|desc] [keys] [count]
//!               [min_mod=N] [max_mod=N] [min_create=N] [max_create=N]
//! del KEY [END] [prev]
//! txn if FIELD:KEY[..END](=|!=|<|>)VALUE … then (OP) … else (OP) …     also within an OP
//! compact N | hashkv [N] | open TTL_MS | close CLIENT | raise VERSION
//! time MS | term N | settle | crash | stats
//! @CLIENT/OP/ACKED REQUEST
//! ```
//! `''` is the empty string, `\0` the zero byte. `read` before a txn asks it as a query.

use std::fmt::Write as _;

use bytes::Bytes;
use expect_test::Expect;
use kvraft_base::{ClientId, OpId, Revision, Term};

use super::harness::Machine;
use crate::{
    Answer, CompactRequest, Compare, CompareResult, CompareTarget, DeleteRangeRequest, KeyValue,
    PutRequest, PutResponse, Query, RangeRequest, RangeResponse, Refused, Request, RequestOp,
    Response, ResponseOp, SessionOp, SortOrder, SortTarget, Stats, TxnRequest, TxnResponse,
};

/// Runs a script on a fresh store and compares what it prints.
pub(super) fn check(script: &str, expected: Expect) {
    let mut machine = Machine::default();
    let mut output = String::new();
    for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let answer = run(&mut machine, line);
        writeln!(output, "{line}\n    {answer}").unwrap();
    }
    expected.assert_eq(&output);
}

fn run(machine: &mut Machine, line: &str) -> String {
    let mut words = Words { words: line.split_whitespace().collect(), place: 0 };
    let mut session = None;
    let mut word = words.next();
    if let Some(numbers) = word.strip_prefix('@') {
        let numbers: Vec<u64> = numbers.split('/').map(|number| number.parse().unwrap()).collect();
        let [client, op, acked] = numbers[..] else { panic!("@CLIENT/OP/ACKED") };
        session = Some(SessionOp { client: ClientId(client), op: OpId(op), acked: OpId(acked) });
        word = words.next();
    }
    match word {
        "time" => machine.time_ms = words.number(),
        "term" => machine.term = Term(words.number()),
        "settle" => while machine.settle(1) {},
        "crash" => machine.crash(),
        "stats" => return show_stats(machine.kv.stats()),
        "get" => return query(machine, &Query::Range(words.range())),
        "read" => return query(machine, &Query::Txn(words.skip("txn").txn())),
        "hashkv" => {
            let revision = if words.at_end() { 0 } else { words.number() };
            return query(machine, &Query::HashKv { revision: Revision(revision) });
        }
        _ => {
            words.place -= 1;
            let applied = machine.request_as(session, words.request());
            let duplicate = if applied.duplicate { " (duplicate)" } else { "" };
            return show(applied.result.map(|response| show_response(&response))) + duplicate;
        }
    }
    "done".to_owned()
}

fn query(machine: &Machine, query: &Query) -> String {
    show(machine.query(query).map(|answer| match answer {
        Answer::Range(range) => show_range(&range),
        Answer::Txn(txn) => show_txn(&txn),
        Answer::HashKv(hash) => format!(
            "rev={} hash={} compacted={} upto={}",
            hash.revision, hash.hash, hash.compact_revision, hash.hash_revision
        ),
        Answer::Hash { hash, .. } => format!("{hash}"),
    }))
}

fn show(result: Result<String, Refused>) -> String {
    result.unwrap_or_else(|refused| format!("{:?}: {refused}", refused.code()))
}

fn show_stats(stats: Stats) -> String {
    let Stats { key_count, change_count, records_size_bytes, clock_ms, .. } = stats;
    let Stats { session_count, results_size_bytes, .. } = stats;
    format!(
        "keys={key_count} changes={change_count} records={records_size_bytes}B clock={clock_ms} \
         sessions={session_count} results={results_size_bytes}B"
    )
}

fn show_response(response: &Response) -> String {
    match response {
        Response::Put(put) => show_put(put),
        Response::DeleteRange(delete) => show_delete(delete),
        Response::Txn(txn) => show_txn(txn),
        Response::Compact(compact) => format!("rev={}", compact.revision),
        Response::SessionOpened { client, .. } => format!("client={client}"),
        Response::SessionClosed { revision } => format!("closed rev={revision}"),
        Response::VersionRaised { version, .. } => format!("version={version}"),
    }
}

fn show_put(put: &PutResponse) -> String {
    let prev = put.prev_kv.iter().map(|kv| format!(" prev {}", show_kv(kv)));
    format!("rev={}{}", put.revision, prev.collect::<String>())
}

fn show_delete(delete: &crate::DeleteRangeResponse) -> String {
    let prev = delete.prev_kvs.iter().map(|kv| format!(" prev {}", show_kv(kv)));
    format!("rev={} deleted={}{}", delete.revision, delete.deleted, prev.collect::<String>())
}

fn show_range(range: &RangeResponse) -> String {
    let more = if range.more { " more" } else { "" };
    let kvs = range.kvs.iter().map(|kv| format!(" {}", show_kv(kv))).collect::<String>();
    format!("rev={} count={}{more}{kvs}", range.revision, range.count)
}

fn show_txn(txn: &TxnResponse) -> String {
    let branch = if txn.succeeded { "then" } else { "else" };
    let responses = txn.responses.iter().map(|response| match response {
        ResponseOp::Range(range) => format!(" ({})", show_range(range)),
        ResponseOp::Put(put) => format!(" ({})", show_put(put)),
        ResponseOp::DeleteRange(delete) => format!(" ({})", show_delete(delete)),
        ResponseOp::Txn(txn) => format!(" ({})", show_txn(txn)),
    });
    format!("rev={} {branch}{}", txn.revision, responses.collect::<String>())
}

/// `key=value[create,mod,version]`.
fn show_kv(kv: &KeyValue) -> String {
    let (key, value) = (kv.key.escape_ascii(), kv.value.escape_ascii());
    format!("{key}={value}[{},{},{}]", kv.create_revision, kv.mod_revision, kv.version)
}

struct Words<'a> {
    words: Vec<&'a str>,
    place: usize,
}

impl<'a> Words<'a> {
    fn next(&mut self) -> &'a str {
        self.place += 1;
        self.words[self.place - 1]
    }

    fn at_end(&self) -> bool {
        self.words.get(self.place).is_none_or(|word| [")", "then", "else"].contains(word))
    }

    fn skip(&mut self, expected: &str) -> &mut Self {
        assert_eq!(self.next(), expected);
        self
    }

    fn number<T: std::str::FromStr<Err: std::fmt::Debug>>(&mut self) -> T {
        self.next().parse().unwrap()
    }

    fn bytes(&mut self) -> Bytes {
        bytes(self.next())
    }

    fn options(&mut self) -> Vec<(&'a str, i64)> {
        let mut options = Vec::new();
        while !self.at_end() {
            let word = self.next();
            let (name, value) = word.split_once('=').unwrap_or((word, "0"));
            options.push((
                name,
                value.parse().unwrap_or(match value {
                    "version" => 1,
                    "create" => 2,
                    "mod" => 3,
                    "value" => 4,
                    _ => 0,
                }),
            ));
        }
        options
    }

    /// A second key, if the next word is not an option.
    fn end(&mut self) -> Bytes {
        let is_key = |word: &&str| {
            let name = word.split('=').next().unwrap_or_default();
            !OPTIONS.contains(&name)
        };
        match self.words.get(self.place) {
            Some(word) if !self.at_end() && is_key(word) => self.bytes(),
            _ => Bytes::new(),
        }
    }

    fn request(&mut self) -> Request {
        match self.next() {
            "put" => Request::Put(self.put()),
            "del" => Request::DeleteRange(self.delete()),
            "txn" => Request::Txn(self.txn()),
            "compact" => Request::Compact(CompactRequest {
                revision: Revision(self.number()),
                physical: false,
            }),
            "raise" => Request::RaiseVersion { version: self.number() },
            "open" => Request::OpenSession { ttl_ms: self.number() },
            "close" => Request::CloseSession { client: ClientId(self.number()) },
            other => panic!("unknown request {other}"),
        }
    }

    fn put(&mut self) -> PutRequest {
        let mut put =
            PutRequest { key: self.bytes(), value: self.bytes(), ..PutRequest::default() };
        for (name, value) in self.options() {
            match name {
                "prev" => put.prev_kv = true,
                "ignore_value" => put.ignore_value = true,
                "ignore_lease" => put.ignore_lease = true,
                "lease" => put.lease = value,
                other => panic!("unknown option {other}"),
            }
        }
        put
    }

    fn delete(&mut self) -> DeleteRangeRequest {
        let (key, range_end) = (self.bytes(), self.end());
        DeleteRangeRequest { key, range_end, prev_kv: !self.options().is_empty() }
    }

    fn range(&mut self) -> RangeRequest {
        let mut range =
            RangeRequest { key: self.bytes(), range_end: self.end(), ..RangeRequest::default() };
        for (name, value) in self.options() {
            match name {
                "limit" => range.limit = value,
                "rev" => range.revision = Revision(value),
                "sort" => range.sort_target = SortTarget::ALL[usize::try_from(value).unwrap()],
                "asc" => range.sort_order = SortOrder::Ascend,
                "desc" => range.sort_order = SortOrder::Descend,
                "keys" => range.keys_only = true,
                "count" => range.count_only = true,
                "min_mod" => range.min_mod_revision = Revision(value),
                "max_mod" => range.max_mod_revision = Revision(value),
                "min_create" => range.min_create_revision = Revision(value),
                "max_create" => range.max_create_revision = Revision(value),
                other => panic!("unknown option {other}"),
            }
        }
        range
    }

    fn txn(&mut self) -> TxnRequest {
        let mut txn = TxnRequest::default();
        self.skip("if");
        while self.words[self.place] != "then" {
            txn.compare.push(compare(self.next()));
        }
        self.skip("then");
        txn.success = self.ops();
        if self.words.get(self.place) == Some(&"else") {
            self.skip("else");
            txn.failure = self.ops();
        }
        txn
    }

    fn ops(&mut self) -> Vec<RequestOp> {
        let mut ops = Vec::new();
        while self.words.get(self.place) == Some(&"(") {
            self.skip("(");
            ops.push(match self.next() {
                "get" => RequestOp::Range(self.range()),
                "put" => RequestOp::Put(self.put()),
                "del" => RequestOp::DeleteRange(self.delete()),
                "txn" => RequestOp::Txn(self.txn()),
                other => panic!("unknown operation {other}"),
            });
            self.skip(")");
        }
        ops
    }
}

fn compare(word: &str) -> Compare {
    let (field, rest) = word.split_once(':').unwrap();
    let (sign, result) = [
        ("!=", CompareResult::NotEqual),
        ("=", CompareResult::Equal),
        ("<", CompareResult::Less),
        (">", CompareResult::Greater),
    ]
    .into_iter()
    .find(|(sign, _)| rest.contains(sign))
    .unwrap();
    let (span, value) = rest.split_once(sign).unwrap();
    let (key, range_end) = span.split_once("..").unwrap_or((span, "''"));
    let number = || value.parse().unwrap();
    let target = match field {
        "version" => CompareTarget::Version(number()),
        "create" => CompareTarget::Create(Revision(number())),
        "mod" => CompareTarget::Mod(Revision(number())),
        "value" => CompareTarget::Value(bytes(value)),
        "lease" => CompareTarget::Lease(number()),
        other => panic!("unknown field {other}"),
    };
    Compare { result, target, key: bytes(key), range_end: bytes(range_end) }
}

fn bytes(word: &str) -> Bytes {
    match word {
        "''" => Bytes::new(),
        "\\0" => Bytes::from_static(b"\0"),
        word => Bytes::copy_from_slice(word.as_bytes()),
    }
}

const OPTIONS: &[&str] = &[
    "prev",
    "limit",
    "rev",
    "sort",
    "asc",
    "desc",
    "keys",
    "count",
    "min_mod",
    "max_mod",
    "min_create",
    "max_create",
];
