//! etcd's semantics, one trap a test.

use expect_test::expect;

use super::script::check;

/// A fresh store is at revision 1, the first write gets 2.
#[test]
fn fresh_store_is_at_revision_one() {
    check(
        "get a\n put a 1\n get a",
        expect![[r#"
        get a
            rev=1 count=0
        put a 1
            rev=2
        get a
            rev=2 count=1 a=1[2,2,1]
    "#]],
    );
}

/// A transaction is one main revision whatever it does; ranges within see what came before them.
#[test]
fn transaction_is_one_revision() {
    check(
        "put c 0
         txn if then ( put a 1 ) ( get a ) ( del c ) ( get c )
         get a z
         get a z rev=2",
        expect![[r#"
            put c 0
                rev=2
            txn if then ( put a 1 ) ( get a ) ( del c ) ( get c )
                rev=3 then (rev=3) (rev=3 count=1 a=1[3,3,1]) (rev=3 deleted=1) (rev=3 count=0)
            get a z
                rev=3 count=1 a=1[3,3,1]
            get a z rev=2
                rev=3 count=1 c=0[2,2,1]
        "#]],
    );
}

/// A transaction that changes nothing does not move the revision; a delete of nothing reports the
/// revision as it is.
#[test]
fn nothing_changed_keeps_revision() {
    check(
        "put a 1
         del nothing
         txn if then ( get a ) ( del nothing )
         txn if then ( del nothing ) ( put b 1 ) ( del nothing )",
        expect![[r#"
            put a 1
                rev=2
            del nothing
                rev=2 deleted=0
            txn if then ( get a ) ( del nothing )
                rev=2 then (rev=2 count=1 a=1[2,2,1]) (rev=2 deleted=0)
            txn if then ( del nothing ) ( put b 1 ) ( del nothing )
                rev=3 then (rev=2 deleted=0) (rev=3) (rev=3 deleted=0)
        "#]],
    );
}

/// Writing the same value again still counts.
#[test]
fn same_value_is_a_write() {
    check(
        "put a 1\n put a 1 prev\n get a",
        expect![[r#"
        put a 1
            rev=2
        put a 1 prev
            rev=3 prev a=1[2,2,1]
        get a
            rev=3 count=1 a=1[2,3,2]
    "#]],
    );
}

/// A version counts within a generation.
#[test]
fn delete_ends_a_generation() {
    check(
        "put a 1
         put a 2
         del a prev
         put a 3
         get a
         get a rev=3
         get a rev=4",
        expect![[r#"
            put a 1
                rev=2
            put a 2
                rev=3
            del a prev
                rev=4 deleted=1 prev a=2[2,3,2]
            put a 3
                rev=5
            get a
                rev=5 count=1 a=3[5,5,1]
            get a rev=3
                rev=5 count=1 a=2[2,3,2]
            get a rev=4
                rev=5 count=0
        "#]],
    );
}

/// The header's revision is the store's, not the one asked for.
#[test]
fn historical_range_has_current_header() {
    check(
        "put a 1\n put a 2\n put b 1\n get a \\0 rev=2",
        expect![[r#"
        put a 1
            rev=2
        put a 2
            rev=3
        put b 1
            rev=4
        get a \0 rev=2
            rev=4 count=1 a=1[2,2,1]
    "#]],
    );
}

/// A plain put looks for the lease before the key, a transaction for the key before the lease.
#[test]
fn put_with_lease_is_refused() {
    check(
        "put a 1 lease=7
         put a '' ignore_value lease=7
         txn if then ( put a '' ignore_value lease=7 )
         txn if then ( put a 1 lease=7 )",
        expect![[r#"
            put a 1 lease=7
                NotFound: etcdserver: requested lease not found
            put a '' ignore_value lease=7
                NotFound: etcdserver: requested lease not found
            txn if then ( put a '' ignore_value lease=7 )
                InvalidArgument: etcdserver: key not found
            txn if then ( put a 1 lease=7 )
                NotFound: etcdserver: requested lease not found
        "#]],
    );
}

/// An empty end is one key, "\0" everything from the key on, and an end before the key is nothing.
#[test]
fn range_ends() {
    check(
        "put a 1
         put b 2
         put c 3
         get b
         get a c
         get b \\0
         get \\0 \\0
         get c a
         get b b
         get ''
         put '' 1
         del ''
         txn if mod:''=0 then",
        expect![[r#"
            put a 1
                rev=2
            put b 2
                rev=3
            put c 3
                rev=4
            get b
                rev=4 count=1 b=2[3,3,1]
            get a c
                rev=4 count=2 a=1[2,2,1] b=2[3,3,1]
            get b \0
                rev=4 count=2 b=2[3,3,1] c=3[4,4,1]
            get \0 \0
                rev=4 count=3 a=1[2,2,1] b=2[3,3,1] c=3[4,4,1]
            get c a
                rev=4 count=0
            get b b
                rev=4 count=0
            get ''
                InvalidArgument: etcdserver: key is not provided
            put '' 1
                InvalidArgument: etcdserver: key is not provided
            del ''
                InvalidArgument: etcdserver: key is not provided
            txn if mod:''=0 then
                InvalidArgument: etcdserver: key is not provided
        "#]],
    );
}

/// The count ignores limit and filters; `more` is said after filter and sort.
#[test]
fn count_ignores_limit_and_filters() {
    check(
        "put a 1
         put b 2
         put c 3
         put a 4
         get a z limit=1
         get a z limit=3
         get a z limit=-1
         get a z limit=1 min_mod=4
         get a z min_mod=4 max_mod=4
         get a z min_create=3 max_create=3
         get a z min_mod=9
         get a z count limit=1
         get a z keys",
        expect![[r#"
            put a 1
                rev=2
            put b 2
                rev=3
            put c 3
                rev=4
            put a 4
                rev=5
            get a z limit=1
                rev=5 count=3 more a=4[2,5,2]
            get a z limit=3
                rev=5 count=3 a=4[2,5,2] b=2[3,3,1] c=3[4,4,1]
            get a z limit=-1
                rev=5 count=3 a=4[2,5,2] b=2[3,3,1] c=3[4,4,1]
            get a z limit=1 min_mod=4
                rev=5 count=3 more a=4[2,5,2]
            get a z min_mod=4 max_mod=4
                rev=5 count=3 c=3[4,4,1]
            get a z min_create=3 max_create=3
                rev=5 count=3 b=2[3,3,1]
            get a z min_mod=9
                rev=5 count=3
            get a z count limit=1
                rev=5 count=3
            get a z keys
                rev=5 count=3 a=[2,5,2] b=[3,3,1] c=[4,4,1]
        "#]],
    );
}

/// A target other than the key sorts ascending even if no order is asked for; but then the limit
/// has already been applied to the natural order.
#[test]
fn sort_orders() {
    check(
        "put a 3
         put b 2
         put c 1
         put c 1
         put a 3
         get a z sort=key desc
         get a z sort=value
         get a z sort=value limit=2
         get a z sort=value asc limit=2
         get a z sort=mod desc limit=2
         get a z sort=version
         get a z sort=version desc
         get a z sort=create desc",
        expect![[r#"
            put a 3
                rev=2
            put b 2
                rev=3
            put c 1
                rev=4
            put c 1
                rev=5
            put a 3
                rev=6
            get a z sort=key desc
                rev=6 count=3 c=1[4,5,2] b=2[3,3,1] a=3[2,6,2]
            get a z sort=value
                rev=6 count=3 c=1[4,5,2] b=2[3,3,1] a=3[2,6,2]
            get a z sort=value limit=2
                rev=6 count=3 more c=1[4,5,2] b=2[3,3,1]
            get a z sort=value asc limit=2
                rev=6 count=3 more c=1[4,5,2] b=2[3,3,1]
            get a z sort=mod desc limit=2
                rev=6 count=3 more a=3[2,6,2] c=1[4,5,2]
            get a z sort=version
                rev=6 count=3 b=2[3,3,1] a=3[2,6,2] c=1[4,5,2]
            get a z sort=version desc
                rev=6 count=3 a=3[2,6,2] c=1[4,5,2] b=2[3,3,1]
            get a z sort=create desc
                rev=6 count=3 c=1[4,5,2] b=2[3,3,1] a=3[2,6,2]
        "#]],
    );
}

/// The compacted revision itself is readable, older and future ones are not; 0 and less is the
/// newest.
#[test]
fn compaction_bounds_history() {
    check(
        "put a 1
         put a 2
         put a 3
         compact 3
         get a rev=2
         get a rev=3
         get a rev=4
         get a rev=5
         get a rev=-7
         compact 3
         compact 5
         compact 4
         get a rev=3",
        expect![[r#"
            put a 1
                rev=2
            put a 2
                rev=3
            put a 3
                rev=4
            compact 3
                rev=4
            get a rev=2
                OutOfRange: etcdserver: mvcc: required revision has been compacted
            get a rev=3
                rev=4 count=1 a=2[2,3,2]
            get a rev=4
                rev=4 count=1 a=3[2,4,3]
            get a rev=5
                OutOfRange: etcdserver: mvcc: required revision is a future revision
            get a rev=-7
                rev=4 count=1 a=3[2,4,3]
            compact 3
                OutOfRange: etcdserver: mvcc: required revision has been compacted
            compact 5
                OutOfRange: etcdserver: mvcc: required revision is a future revision
            compact 4
                rev=4
            get a rev=3
                OutOfRange: etcdserver: mvcc: required revision has been compacted
        "#]],
    );
}

/// Within a transaction a negative revision is checked.
#[test]
fn negative_revision_in_transaction() {
    check(
        "put a 1
         txn if then ( get a rev=-1 )
         txn if then ( get a rev=-2 )
         read txn if then ( get a rev=-2 )
         compact 2
         read txn if then ( get a rev=-1 )
         txn if then ( put b 1 ) ( get a rev=3 )
         read txn if then ( put b 1 )",
        expect![[r#"
            put a 1
                rev=2
            txn if then ( get a rev=-1 )
                rev=2 then (rev=2 count=1 a=1[2,2,1])
            txn if then ( get a rev=-2 )
                OutOfRange: etcdserver: mvcc: required revision has been compacted
            read txn if then ( get a rev=-2 )
                OutOfRange: etcdserver: mvcc: required revision has been compacted
            compact 2
                rev=2
            read txn if then ( get a rev=-1 )
                OutOfRange: etcdserver: mvcc: required revision has been compacted
            txn if then ( put b 1 ) ( get a rev=3 )
                OutOfRange: etcdserver: mvcc: required revision is a future revision
            read txn if then ( put b 1 )
                Unimplemented: kvraft: transaction writes and needs a log entry
        "#]],
    );
}

/// Puts of one key twice, or of a key that is deleted too, are refused; either branch may have its
/// own.
#[test]
fn duplicate_keys() {
    check(
        "txn if then ( put a 1 ) ( put a 2 )
         txn if then ( del a c ) ( put b 1 )
         txn if then ( del a \\0 ) ( put b 1 )
         txn if then ( del a c ) ( put c 1 )
         txn if then ( del a ) ( del a z )
         txn if then ( put a 1 ) ( txn if then ( put a 2 ) )
         txn if then ( txn if then ( del a b ) ) ( put a 1 )
         txn if then ( del a b ) ( txn if then else ( put a 1 ) )
         txn if then ( txn if then ( put a 1 ) else ( put a 2 ) )
         txn if then ( put b 1 ) else ( put b 2 )",
        expect![[r#"
            txn if then ( put a 1 ) ( put a 2 )
                InvalidArgument: etcdserver: duplicate key given in txn request
            txn if then ( del a c ) ( put b 1 )
                InvalidArgument: etcdserver: duplicate key given in txn request
            txn if then ( del a \0 ) ( put b 1 )
                InvalidArgument: etcdserver: duplicate key given in txn request
            txn if then ( del a c ) ( put c 1 )
                rev=2 then (rev=1 deleted=0) (rev=2)
            txn if then ( del a ) ( del a z )
                rev=3 then (rev=2 deleted=0) (rev=3 deleted=1)
            txn if then ( put a 1 ) ( txn if then ( put a 2 ) )
                InvalidArgument: etcdserver: duplicate key given in txn request
            txn if then ( txn if then ( del a b ) ) ( put a 1 )
                InvalidArgument: etcdserver: duplicate key given in txn request
            txn if then ( del a b ) ( txn if then else ( put a 1 ) )
                InvalidArgument: etcdserver: duplicate key given in txn request
            txn if then ( txn if then ( put a 1 ) else ( put a 2 ) )
                rev=4 then (rev=0 then (rev=4))
            txn if then ( put b 1 ) else ( put b 2 )
                rev=5 then (rev=5)
        "#]],
    );
}

/// A transaction within may delete what one before it wrote: both in one main revision.
#[test]
fn sibling_deletes_what_sibling_wrote() {
    check(
        "txn if then ( txn if then ( put a 1 ) ) ( txn if then ( del a ) )
         get a
         put a 2
         get a rev=2
         compact 2
         crash
         get a",
        expect![[r#"
            txn if then ( txn if then ( put a 1 ) ) ( txn if then ( del a ) )
                rev=2 then (rev=0 then (rev=2)) (rev=0 then (rev=2 deleted=1))
            get a
                rev=2 count=0
            put a 2
                rev=3
            get a rev=2
                rev=3 count=0
            compact 2
                rev=3
            crash
                done
            get a
                rev=3 count=1 a=2[3,3,1]
        "#]],
    );
}

/// All comparisons see the state before the outermost transaction.
#[test]
fn nested_comparisons_see_the_state_before() {
    check(
        "put a 1
         txn if value:a=1 then ( put a 2 ) ( txn if value:a=2 then ( put b 1 ) else ( put b 2 ) )
         get a z",
        expect![[r#"
            put a 1
                rev=2
            txn if value:a=1 then ( put a 2 ) ( txn if value:a=2 then ( put b 1 ) else ( put b 2 ) )
                rev=3 then (rev=3) (rev=0 else (rev=3))
            get a z
                rev=3 count=2 a=2[2,3,2] b=2[3,3,1]
        "#]],
    );
}

/// A missing key counts as zeros, but no comparison with its value holds; a range must hold for
/// all.
#[test]
fn comparisons() {
    check(
        "put a 1
         put b 1
         put b 2
         read txn if version:x=0 create:x=0 mod:x=0 lease:x=0 then
         read txn if value:x!=1 then
         read txn if value:x='' then
         read txn if version:a..c>0 then
         read txn if version:a..c=1 then
         read txn if version:x..z=0 then
         read txn if value:a..\\0<3 then
         read txn if mod:b=4 create:b<4 then
         read txn if lease:a=0 then
         read txn if lease:a!=0 then",
        expect![[r#"
            put a 1
                rev=2
            put b 1
                rev=3
            put b 2
                rev=4
            read txn if version:x=0 create:x=0 mod:x=0 lease:x=0 then
                rev=4 then
            read txn if value:x!=1 then
                rev=4 else
            read txn if value:x='' then
                rev=4 else
            read txn if version:a..c>0 then
                rev=4 then
            read txn if version:a..c=1 then
                rev=4 else
            read txn if version:x..z=0 then
                rev=4 then
            read txn if value:a..\0<3 then
                rev=4 then
            read txn if mod:b=4 create:b<4 then
                rev=4 then
            read txn if lease:a=0 then
                rev=4 then
            read txn if lease:a!=0 then
                rev=4 else
        "#]],
    );
}

/// A put that keeps value or lease needs the key to have been there before the transaction.
#[test]
fn ignore_value_needs_the_key() {
    check(
        "put a 1 ignore_value
         put a '' ignore_value
         put a 1 ignore_lease
         put a 1 ignore_lease lease=1
         put a 1
         put a '' ignore_value prev
         put a 2 ignore_lease
         txn if value:a=2 then ( put b '' ignore_value ) else ( put c 1 )
         get a z",
        expect![[r#"
            put a 1 ignore_value
                InvalidArgument: etcdserver: value is provided
            put a '' ignore_value
                InvalidArgument: etcdserver: key not found
            put a 1 ignore_lease
                InvalidArgument: etcdserver: key not found
            put a 1 ignore_lease lease=1
                InvalidArgument: etcdserver: lease is provided
            put a 1
                rev=2
            put a '' ignore_value prev
                rev=3 prev a=1[2,2,1]
            put a 2 ignore_lease
                rev=4
            txn if value:a=2 then ( put b '' ignore_value ) else ( put c 1 )
                InvalidArgument: etcdserver: key not found
            get a z
                rev=4 count=1 a=2[2,4,3]
        "#]],
    );
}

/// A compaction exactly at a tombstone keeps it; a later one drops the key altogether.
#[test]
fn tombstone_at_compaction_stays() {
    check(
        "put a 1
         del a
         put b 1
         compact 3
         stats
         settle
         crash
         stats
         hashkv
         compact 4
         hashkv
         stats
         get a rev=4",
        expect![[r#"
            put a 1
                rev=2
            del a
                rev=3 deleted=1
            put b 1
                rev=4
            compact 3
                rev=4
            stats
                keys=1 changes=2 records=15B clock=0 sessions=0 results=0B
            settle
                done
            crash
                done
            stats
                keys=1 changes=2 records=15B clock=0 sessions=0 results=0B
            hashkv
                rev=4 hash=3584256279 compacted=3 upto=4
            compact 4
                rev=4
            hashkv
                rev=4 hash=3584256279 compacted=4 upto=4
            stats
                keys=1 changes=1 records=12B clock=0 sessions=0 results=0B
            get a rev=4
                rev=4 count=0
        "#]],
    );
}

/// The revision survives even if no record of it does.
#[test]
fn revision_survives_without_records() {
    check(
        "put a 1
         put b 1
         del a z
         put c 1
         del c
         compact 6
         settle
         crash
         put d 1
         compact 7
         get a z",
        expect![[r#"
            put a 1
                rev=2
            put b 1
                rev=3
            del a z
                rev=4 deleted=2
            put c 1
                rev=5
            del c
                rev=6 deleted=1
            compact 6
                rev=6
            settle
                done
            crash
                done
            put d 1
                rev=7
            compact 7
                rev=7
            get a z
                rev=7 count=1 d=1[7,7,1]
        "#]],
    );
}

/// A store that was never compacted says -1, as etcd does; a hash of the past is that of then.
#[test]
fn hash_of_the_past_is_that_of_then() {
    check(
        "hashkv
         put a 1
         hashkv
         put a 2
         del a
         hashkv 2
         hashkv 9
         compact 3
         hashkv 2
         hashkv 3
         settle
         hashkv 3
         hashkv 4",
        expect![[r#"
            hashkv
                rev=1 hash=1084519789 compacted=-1 upto=1
            put a 1
                rev=2
            hashkv
                rev=2 hash=2587454935 compacted=-1 upto=2
            put a 2
                rev=3
            del a
                rev=4 deleted=1
            hashkv 2
                rev=4 hash=2587454935 compacted=-1 upto=2
            hashkv 9
                OutOfRange: etcdserver: mvcc: required revision is a future revision
            compact 3
                rev=4
            hashkv 2
                OutOfRange: etcdserver: mvcc: required revision has been compacted
            hashkv 3
                rev=4 hash=1483641527 compacted=3 upto=3
            settle
                done
            hashkv 3
                rev=4 hash=1483641527 compacted=3 upto=3
            hashkv 4
                rev=4 hash=573317793 compacted=3 upto=4
        "#]],
    );
}
