//! Bounds that more than one crate must agree on, with their reasons. "Bounded" means numbers.

/// Greatest client request, as etcd's default `--max-request-bytes`.
pub const REQUEST_SIZE_BYTES_MAX: usize = 1_572_864;

/// Greatest entry payload: a request and its envelope.
pub const ENTRY_SIZE_BYTES_MAX: usize = REQUEST_SIZE_BYTES_MAX + 64 * 1024;

/// Greatest frame between peers: a batch of appends, or one snapshot chunk, and headers. Twice the
/// greatest entry, so that one entry always fits.
pub const FRAME_SIZE_BYTES_MAX: usize = 2 * ENTRY_SIZE_BYTES_MAX;

/// Most operations in one branch of a transaction, as etcd's default `--max-txn-ops`.
pub const TXN_OPS_MAX: usize = 128;

/// Most voters. Seven survive three failures; more only make every commit slower.
pub const MEMBERS_MAX: usize = 7;

/// Most learners. Each costs the leader as much sending as a voter.
pub const LEARNERS_MAX: usize = 8;

/// Longest name or address of a member, as long as a DNS name may be, and a port.
pub const MEMBER_TEXT_SIZE_BYTES_MAX: usize = 261;

/// Most addresses of a member for one purpose.
pub const MEMBER_ADDRESSES_MAX: usize = 8;

const _: () = assert!(ENTRY_SIZE_BYTES_MAX < FRAME_SIZE_BYTES_MAX, "one entry must fit in a frame");
