//! Draws what clients are like and what they ask for: the half of a plan that is not faults.
//!
//! Invariant: each client has a generator of its own, so that one client more or less leaves the
//! others as they were.

use std::time::Duration;

use bytes::Bytes;
use kvraft_base::{MemberId, Prng};

use super::{config::Draft, workload::Workload};
use crate::{
    history::Action,
    plan::{ClientPlan, Intent, PlannedOperation},
};

/// Before every key of the workload.
const FIRST_KEY: &[u8] = b"k";
/// Behind every key of the workload.
const END_KEY: &[u8] = b"l";

/// Clients look back by fewer revisions than this.
const BACK_END: u64 = 12;

/// What each client has to do in the second phase, at least, if its server must make progress.
const RESERVE_OPERATION_COUNT: u64 = 2;

/// Times to live that clients ask for: some expire in a run, some never.
const TTLS_MS: [u64; 3] = [2_000, 10_000, 3_600_000];

/// The clients of a seed.
pub(crate) fn draw(seed: u64, draft: &Draft) -> Vec<ClientPlan> {
    let root = Prng::new(seed);
    let client_prng = root.fork("clients");
    let mut budget_prng = root.fork("budgets");
    let draw = |id| {
        let mut prng = client_prng.fork(&format!("client {id}"));
        let mut client = draw_character(id, draft, &mut prng);
        let budget = budget_prng.between(1, draft.ops_max);
        let pause_max = *prng.fork("pace").pick(&PAUSES_MAX).expect("any");
        let mut author = Author { client: id, workload: draft.workload, prng, value_count: 0 };
        client.operations = author.draw_all(budget, pause_max);
        client
    };
    (1..=draft.clients).map(draw).collect()
}

fn draw_character(id: u64, draft: &Draft, prng: &mut Prng) -> ClientPlan {
    let millis = Duration::from_millis;
    let is_numbered = prng.chance(2, 3);
    let session = is_numbered.then(|| millis(*prng.pick(&TTLS_MS).expect("any")));
    // Without a number there is one try: waiting longer for its answer is only waiting.
    let timeouts: &[Duration] = if is_numbered {
        &[millis(3_000), millis(10_000), millis(60_000)]
    } else {
        &[millis(1_000), millis(3_000)]
    };
    let is_pinned = prng.chance(2, 3);
    // An answer takes so long at times: who waits for less waits in vain.
    let least = draft.config.election_timeout;
    ClientPlan {
        id,
        home: MemberId(1 + (id - 1) % draft.config.servers),
        is_pinned,
        session,
        pause_max: *prng.pick(&[millis(50), millis(500)]).expect("any"),
        attempt_timeout: least.max(*prng.pick(&[millis(500), millis(2_000)]).expect("any")),
        operation_timeout: least.max(*prng.pick(timeouts).expect("any")),
        operations: Vec::new(),
    }
}

/// The longest pauses between two operations of a client. Who is in haste has done everything long
/// before things stop going wrong; others are there all the time, a little.
const PAUSES_MAX: [Duration; 4] =
    [HASTE, HASTE, Duration::from_millis(250), Duration::from_millis(800)];

/// The longest pause of who is in haste.
const HASTE: Duration = Duration::from_millis(50);

/// A client's own part in the workload.
struct Author {
    client: u64,
    workload: Workload,
    prng: Prng,
    value_count: u64,
}

impl Author {
    fn draw_all(&mut self, budget: u64, pause_max: Duration) -> Vec<PlannedOperation> {
        let mut operations = Vec::new();
        for number in 0..budget + RESERVE_OPERATION_COUNT {
            let is_reserve = budget <= number;
            // What is asked for in the second phase is asked for at once.
            let longest = if is_reserve { HASTE } else { pause_max };
            let pause = self.prng.duration(Duration::from_millis(1), longest);
            let after = if number == 0 { Duration::from_millis(1) } else { pause };
            operations
                .push(PlannedOperation { is_reserve, ..PlannedOperation::new(after, self.draw()) });
        }
        operations
    }

    fn draw(&mut self) -> Intent {
        let key = Bytes::from(format!("k{}", self.prng.below(self.workload.keys)));
        match self.prng.below(12) {
            0..=4 => Intent::One(self.put(key)),
            5 => Intent::One(Action::Delete { key, end: None }),
            6 if self.workload.rich => Intent::Swap { key, value: self.value() },
            7 if self.workload.rich => self.draw_wide(),
            8 if self.workload.stale_reads => Intent::Stale(Action::Range { key, end: None }),
            9 if self.workload.looks_back => self.draw_look_back(key),
            _ => Intent::get(key),
        }
    }

    /// Something about the past: mostly a little before the newest, so that compactions and reads
    /// meet.
    fn draw_look_back(&mut self, key: Bytes) -> Intent {
        let back = self.prng.below(BACK_END);
        match self.prng.below(4) {
            0 => Intent::Compact { back },
            1 => {
                let (key, end) = (Bytes::from_static(FIRST_KEY), Bytes::from_static(END_KEY));
                Intent::Past { key, end: Some(end), back }
            }
            _ => Intent::Past { key, end: None, back },
        }
    }

    fn value(&mut self) -> Bytes {
        self.value_count += 1;
        Bytes::from(format!("c{}v{}", self.client, self.value_count))
    }

    fn put(&mut self, key: Bytes) -> Action {
        Action::Put { key, value: self.value() }
    }

    /// Something that concerns several keys.
    fn draw_wide(&mut self) -> Intent {
        let (key, end) = (Bytes::from_static(FIRST_KEY), Some(Bytes::from_static(END_KEY)));
        match self.prng.below(6) {
            0 => {
                let low = Bytes::from(format!("k{}", self.prng.below(self.workload.keys)));
                Intent::One(Action::Delete { key: low, end })
            }
            1 => Intent::Together(vec![self.put(Bytes::from("k0")), self.put(Bytes::from("k1"))]),
            _ => Intent::One(Action::Range { key, end }),
        }
    }
}
