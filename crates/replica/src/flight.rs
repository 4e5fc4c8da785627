//! The flight recorder's contents: what the deciding lanes were given, and what shows that a
//! replay does the same with it.
//!
//! Why here: a lane's inputs decide everything that it does, so whoever keeps them can run the same
//! code to the same states later. What the inputs are is known here; files are the owner's.
//!
//! - [`Tape`] is held by whoever owns the lanes: it turns each turn's inputs into bytes before the
//!   turn, and a digest of what came of them into bytes after it.
//! - [`Image`] is the state that a recording begins with.
//! - [`Segment`] is one file of a recording: an image, and the turns that followed.
//! - [`Replay`] runs the turns of a segment through the lanes again, and compares digests.
//! - [`redacted`] makes a segment that can be given away.
//!
//! Invariants:
//! - recording changes nothing: what a lane does with a tape is what it does without one;
//! - what is not in the recording is not needed: payloads that nothing looks into are zeroes of the
//!   same length ([`kvraft_base::thin`]), rows that applying has read are kept as inputs;
//! - garbage is an error with an offset. States that only a forged file can hold may break an
//!   assertion of a lane, as they would have in the server: whoever replays catches that.
//!
//! What it lacks: the disk lanes. Their answers are inputs of the others, and are not made again.

mod digest;
mod inputs;
mod redact;
mod replay;
mod segment;
mod tape;

pub use redact::redacted;
pub use replay::{Difference, Played, Replay};
pub use segment::{
    Cut, FORMAT_VERSION, Follows, Header, KIND_RECORDS, Segment, SegmentError, Step, Steps,
    end_block, header_bytes, image_block, records_block, seal_block,
};
pub use tape::{End, Image, ImageError, Tape, Turn};
