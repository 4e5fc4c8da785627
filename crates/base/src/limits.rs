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

/// Most voters, in each half of a joint configuration. Seven survive three failures; more only make
/// every commit slower.
pub const VOTERS_MAX: usize = 7;

/// Most learners. Each costs the leader as much sending as a voter.
pub const LEARNERS_MAX: usize = 8;

/// Longest name or address of a member, as long as a DNS name may be, and a port.
pub const MEMBER_TEXT_SIZE_BYTES_MAX: usize = 261;

/// Most addresses of a member for one purpose.
pub const MEMBER_ADDRESSES_MAX: usize = 8;

const _: () = assert!(ENTRY_SIZE_BYTES_MAX < FRAME_SIZE_BYTES_MAX, "one entry must fit in a frame");

/// Most bytes that wait for one connection to a peer: a tenth of a second at 1 Gb/s, and twice what
/// consensus lets be in flight to one follower.
pub const PEER_QUEUE_SIZE_BYTES_MAX: usize = 16 << 20;

/// Most bytes of frames from all peers that wait for the core of a server: a few windows of
/// Appends.
pub const PEER_INBOX_SIZE_BYTES_MAX: usize = 64 << 20;

/// What a waiting frame takes beside its bytes.
pub const PEER_FRAME_OVERHEAD_BYTES: usize = 128;

/// Frames up to this size find room where greater ones are dropped: heartbeats, votes and answers
/// are what a busy connection must not lose.
pub const PEER_SMALL_FRAME_SIZE_BYTES_MAX: usize = 4096;

/// Room that is kept for small frames at the end of every queue of peers' frames.
pub const PEER_RESERVE_SIZE_BYTES: usize = 1 << 20;

const _: () = assert!(
    2 * FRAME_SIZE_BYTES_MAX <= PEER_QUEUE_SIZE_BYTES_MAX,
    "the greatest frame must find room"
);

/// What a frame of this size counts while it waits.
#[must_use]
pub const fn peer_frame_cost(size_bytes: usize) -> usize {
    PEER_FRAME_OVERHEAD_BYTES + size_bytes
}

/// Whether a frame of this size finds room behind what waits, in a queue of at most `most` bytes
/// beside the reserve. `waiting` is the sum of the [`peer_frame_cost`] of what waits.
#[must_use]
pub const fn peer_frame_finds_room(size_bytes: usize, waiting: usize, most: usize) -> bool {
    let small = size_bytes <= PEER_SMALL_FRAME_SIZE_BYTES_MAX;
    let reserve = if small { PEER_RESERVE_SIZE_BYTES } else { 0 };
    waiting + peer_frame_cost(size_bytes) <= most + reserve
}
