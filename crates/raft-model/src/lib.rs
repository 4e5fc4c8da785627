//! The production consensus value under a model checker: every interleaving within bounds.
//!
//! Why: tests and simulations look at many runs; this looks at all of them, of a small group. What
//! is checked is [`kvraft_raft::Raft`] itself, through `step` and `finish`, and nothing else
//! decides what a server does.
//!
//! "Exhausted" always means: within the printed [`Bounds`], the model below, and the chance of
//! about n²/2⁶⁵ that two of n states have one 64-bit fingerprint.
//!
//! # What the model is
//!
//! - **Three servers** in a ring, each with a disk that takes writes in order and loses those under
//!   way in a crash, and a machine that applies at once.
//! - **The network** keeps every message for ever and delivers any of them at any time, any number
//!   of times, in any order. Loss is a delivery that does not come. So any number of losses,
//!   repetitions and overtakings is covered, not only one of each.
//! - **Time** is no part of a state. A timeout may come at any moment: the clock of that server is
//!   moved to where its own deadline says. At no other moment does a clock reach a deadline, which
//!   is asserted.
//! - **Randomness** only draws durations, so it is no part of a state either.
//!
//! Two server states are one if what `Debug` prints of them is, without times, draws, and absolute
//! write numbers; `tree` says exactly what is left out. Everything the group does is put together
//! from single steps of single servers, each run through the production code once (`table`).
//!
//! # Reductions, and why nothing is lost
//!
//! **Symmetry.** Each server calls itself 1 and its neighbours 2 and 3, so turning the ring changes
//! no server's state, and mirroring it exchanges two names. The six images of a group behave the
//! same up to names: consensus compares ids only for equality, and no rule names a server. One of
//! the six is explored.
//!
//! **Pre-votes are granted by the model**, unasked. They change nothing at a voter but timers, and
//! a mark that only learners heed, of which the model has none. So more servers campaign than in
//! reality, and every real campaign is among them. A refused one changes roles, timers and at most
//! the term, see below.
//!
//! **A term is learned when it matters.** To hear of a later term makes a server drop its role and
//! refuse what is older, which is no more than to be silent to it. It enables two things: to vote
//! in that term, for which the vote request suffices, and to campaign in the one after, for which
//! the model lets a server hear of a term right before, once anybody has been in it. For the same
//! reason a vote request that wins no vote is left out, and a leader finds that it lost its quorum
//! when another asks for its vote.
//!
//! **What can do nothing any more is taken from the network**: messages of a term that the
//! receiver's disk has left behind, answers to who is no longer candidate or leader of their term,
//! vote requests once they cannot win or are no longer needed, answers and commit notices that say
//! what is known, Appends whose entries are on the follower's disk while it follows their sender.
//! What such a delivery could still do is refuse, repeat an answer, or, after a crash, follow a
//! leader again that other messages lead to as well.
//!
//! **Whole elections** ([`Bounds::whole_elections`]). A candidate does nothing between its campaign
//! and its victory but wait: what would make it do something ends its candidacy. A voter does
//! nothing between its vote and the write of it but what voids the vote. And what either does
//! commutes with what the third server does. So in every run, each election that is won can be
//! moved together into one step. Elections that nobody wins only make servers refuse more, and
//! leave terms unused, which nothing but comparisons looks at. Rests on
//! [`Rule::PromiseIsDurable`], which is checked in every step. Searches without this reduction
//! explore every interleaving of elections, within smaller bounds.
//!
//! **Crashes that lose only memory** ([`Bounds::idle_crashes`]) make a server a silent follower;
//! larger searches leave them out.
//!
//! # What it lacks
//!
//! Snapshots, reads, damage, clocks that matter (leases), closed connections, logs that outgrow
//! memory. Those are the simulator's.

mod bounds;
mod model;
mod names;
mod node;
mod rules;
mod run;
mod state;
mod table;
mod tree;

pub use bounds::{Bounds, Search};
pub use model::{Action, Group, Voters};
pub use node::{Local, Removed, Tag};
pub use rules::Rule;
pub use run::{Order, Verdict, explore};
pub use state::{Committed, SERVER_COUNT, Server, State};
pub use table::{Digest, Event, MessageId, NodeId};
