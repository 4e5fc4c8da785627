//! The wire is a promise to foreign clients, so a few of its bytes are written down.

use prost::Message as _;

use crate::{etcdserverpb::*, mvccpb::KeyValue};

/// Every field of a range request lands under etcd's number.
#[test]
fn range_request_has_etcds_field_numbers() {
    let request = RangeRequest {
        key: "k".into(),
        range_end: "l".into(),
        limit: 3,
        revision: 4,
        sort_order: range_request::SortOrder::Descend.into(),
        sort_target: range_request::SortTarget::Value.into(),
        serializable: true,
        keys_only: true,
        count_only: true,
        min_mod_revision: 10,
        max_mod_revision: 11,
        min_create_revision: 12,
        max_create_revision: 13,
    };
    let expected = b"\x0a\x01k\x12\x01l\x18\x03\x20\x04\x28\x02\x30\x04\x38\x01\x40\x01\x48\x01\
        \x50\x0a\x58\x0b\x60\x0c\x68\x0d";
    assert_eq!(request.encode_to_vec(), expected);
}

/// The stored record's value is field 5 and its key field 1, as in etcd's backend.
#[test]
fn key_value_has_etcds_field_numbers() {
    let record = KeyValue {
        key: "k".into(),
        create_revision: 2,
        mod_revision: 3,
        version: 4,
        value: "v".into(),
        lease: 6,
    };
    assert_eq!(record.encode_to_vec(), b"\x0a\x01k\x10\x02\x18\x03\x20\x04\x2a\x01v\x30\x06");
}

/// A comparison's range end is field 64: two bytes of tag.
#[test]
fn compare_range_end_is_field_64() {
    let compare = Compare { range_end: "z".into(), ..Compare::default() };
    assert_eq!(compare.encode_to_vec(), b"\x82\x04\x01z");
}
