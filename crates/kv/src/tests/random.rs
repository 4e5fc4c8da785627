//! Random requests over few keys, so that they meet.

use bytes::Bytes;
use kvraft_base::{ClientId, Revision};
use proptest::prelude::*;

use crate::{
    CompactRequest, Compare, CompareResult, CompareTarget, DeleteRangeRequest, PutRequest,
    RangeRequest, Request, RequestOp, SortOrder, SortTarget, TxnRequest,
};

fn key() -> impl Strategy<Value = Bytes> {
    prop_oneof![
        20 => "[abcd]{1,2}".prop_map(Bytes::from),
        1 => Just(Bytes::from_static(b"\0")),
        1 => Just(Bytes::new()),
    ]
}

fn range_end() -> impl Strategy<Value = Bytes> {
    prop_oneof![
        4 => Just(Bytes::new()),
        4 => key(),
        1 => Just(Bytes::from_static(b"\0")),
        1 => Just(Bytes::from_static(b"z")),
    ]
}

fn revision() -> impl Strategy<Value = Revision> {
    prop_oneof![2 => Just(0), 4 => 1..40_i64, 1 => -3..0_i64].prop_map(Revision)
}

fn filter() -> impl Strategy<Value = Revision> {
    prop_oneof![6 => Just(0), 1 => 1..30_i64].prop_map(Revision)
}

pub(super) fn range() -> impl Strategy<Value = RangeRequest> {
    let place = (key(), range_end(), prop_oneof![3 => Just(0), 2 => -1..4_i64], revision());
    let sort = (0..3_usize, 0..5_usize);
    let flags = (prop::bool::weighted(0.2), prop::bool::weighted(0.2));
    (place, sort, flags, (filter(), filter(), filter(), filter())).prop_map(
        |((key, range_end, limit, revision), (order, target), (keys_only, count_only), filters)| {
            RangeRequest {
                key,
                range_end,
                limit,
                revision,
                sort_order: SortOrder::ALL[order],
                sort_target: SortTarget::ALL[target],
                serializable: false,
                keys_only,
                count_only,
                min_mod_revision: filters.0,
                max_mod_revision: filters.1,
                min_create_revision: filters.2,
                max_create_revision: filters.3,
            }
        },
    )
}

fn put() -> impl Strategy<Value = PutRequest> {
    let rare = || prop::bool::weighted(0.1);
    (key(), "[xy]{0,3}", prop::bool::ANY, rare(), rare(), rare()).prop_map(
        |(key, value, prev_kv, ignore_value, ignore_lease, has_lease)| PutRequest {
            key,
            value: if ignore_value && !has_lease { Bytes::new() } else { value.into() },
            lease: i64::from(has_lease),
            prev_kv,
            ignore_value,
            ignore_lease,
        },
    )
}

fn delete() -> impl Strategy<Value = DeleteRangeRequest> {
    (key(), range_end(), prop::bool::ANY).prop_map(|(key, range_end, prev_kv)| DeleteRangeRequest {
        key,
        range_end,
        prev_kv,
    })
}

fn compare() -> impl Strategy<Value = Compare> {
    let target = prop_oneof![
        (0..4_i64).prop_map(CompareTarget::Version),
        revision().prop_map(CompareTarget::Create),
        revision().prop_map(CompareTarget::Mod),
        "[xy]{0,3}".prop_map(|value| CompareTarget::Value(value.into())),
        (0..2_i64).prop_map(CompareTarget::Lease),
    ];
    (0..4_usize, target, key(), range_end()).prop_map(|(result, target, key, range_end)| Compare {
        result: CompareResult::ALL[result],
        target,
        key,
        range_end,
    })
}

fn txn() -> impl Strategy<Value = TxnRequest> {
    let leaf = prop_oneof![
        range().prop_map(RequestOp::Range),
        put().prop_map(RequestOp::Put),
        delete().prop_map(RequestOp::DeleteRange),
    ];
    let ops = leaf.prop_recursive(2, 12, 3, |inner| {
        let branch = prop::collection::vec(inner, 0..3);
        txn_of(branch).prop_map(RequestOp::Txn)
    });
    txn_of(prop::collection::vec(ops, 0..4))
}

fn txn_of(
    branch: impl Strategy<Value = Vec<RequestOp>> + Clone,
) -> impl Strategy<Value = TxnRequest> {
    (prop::collection::vec(compare(), 0..2), branch.clone(), branch)
        .prop_map(|(compare, success, failure)| TxnRequest { compare, success, failure })
}

pub(super) fn request() -> impl Strategy<Value = Request> {
    prop_oneof![
        6 => put().prop_map(Request::Put),
        3 => delete().prop_map(Request::DeleteRange),
        6 => txn().prop_map(Request::Txn),
        1 => (revision(), prop::bool::ANY).prop_map(|(revision, physical)| {
            Request::Compact(CompactRequest { revision, physical })
        }),
        1 => (0..20_000_u64).prop_map(|ttl_ms| Request::OpenSession { ttl_ms }),
        1 => (1..20_u64).prop_map(|client| Request::CloseSession { client: ClientId(client) }),
        1 => (0..=2_u32).prop_map(|version| Request::RaiseVersion { version }),
    ]
}
