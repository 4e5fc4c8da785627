//! The play itself: pop an event, move the clock, let somebody act, deliver what it says, check.

use std::{
    collections::{BTreeMap, VecDeque},
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};

use kvraft_base::{Instant, MemberId, Prng};

use super::{
    Asked, Broken, Heard, Played, Script, Step, System,
    host::{Host, Player},
    recorder::{Recorder, Sent},
    step::Wants,
};
use crate::{
    disk::{CrashPolicy, DiskCosts, SimDisk},
    heap::EventHeap,
    linear::Call,
    network::{Endpoint, Network},
    plan::{Fault, RATE_PPM, Target, TimedFault},
    trace::{Trace, digest},
};

/// How often the caller is asked whether the play may go on.
pub(super) const EVENTS_BETWEEN_LOOKS: u64 = 1_024;

/// A play that takes more events than this does not end by itself.
const EVENT_COUNT_MAX: u64 = 2_000_000;

/// When everything is mended, every call must be answered within this time.
const ANSWER_MAX: Duration = Duration::from_secs(60);

/// Who ended itself because of its disk is started again after this time.
const RESTART_AFTER: Duration = Duration::from_millis(50);

enum Happening<S: System> {
    /// A message arrives.
    Arrival { from: Endpoint, to: Endpoint, message: S::Message, sent: Sent },
    /// A server that was busy may go on.
    Free { server: MemberId, boot: u64 },
    /// Somebody may want to be woken.
    Wake { end: Endpoint },
    /// A client does its next operation.
    Ask { client: u64 },
    /// Something goes wrong.
    Fault(usize),
    /// A server that has ended itself comes back.
    Restart { server: MemberId },
    /// Everything is mended.
    Mend,
}

struct Stage<'s, S: System> {
    system: &'s S,
    faults: &'s [TimedFault],
    now: Instant,
    heap: EventHeap<Happening<S>>,
    ids: Vec<MemberId>,
    hosts: BTreeMap<MemberId, Host<S>>,
    players: BTreeMap<u64, Player<S>>,
    calls: Vec<Asked<S>>,
    /// Places of calls and returns in the order of all.
    moment: u64,
    network: Network,
    net_prng: Prng,
    crash_prng: Prng,
    own_prng: Prng,
    trace: Trace,
    event_count: u64,
    is_mended: bool,
    recorder: Option<Recorder>,
}

pub(super) fn play<S: System>(
    system: &S,
    script: &Script<S::Operation>,
    is_recorded: bool,
    may_go_on: &dyn Fn() -> bool,
) -> Played<S> {
    let mut stage = Stage::new(system, script, is_recorded);
    let result = catch_unwind(AssertUnwindSafe(|| stage.run(script, may_go_on)));
    let broken = result.unwrap_or_else(|panic| Err(of_panic(panic.as_ref()))).err();
    let Stage { trace, event_count, now, calls, recorder, .. } = stage;
    let recorded = recorder.map(|it| it.finish::<S>(now, script.seed, &calls, broken.as_ref()));
    Played {
        broken,
        trace_hash: trace.hash(),
        event_count,
        virtual_time: now.since(Instant::ZERO),
        lines: trace.lines().map(ToString::to_string).collect(),
        calls,
        recorded,
    }
}

fn of_panic(panic: &(dyn std::any::Any + Send)) -> Broken {
    let text = panic.downcast_ref::<String>().cloned();
    let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
    Broken::new("no-panic", text.unwrap_or_else(|| "no message".to_owned()))
}

impl<'s, S: System> Stage<'s, S> {
    fn new(system: &'s S, script: &'s Script<S::Operation>, is_recorded: bool) -> Self {
        let root = Prng::new(script.seed);
        let ids: Vec<MemberId> = (1..=script.config.servers).map(MemberId).collect();
        let mut disk_prng = root.fork("disks");
        let host = |id: &MemberId| {
            let drawn = DiskCosts::draw(&mut disk_prng);
            let costs = if script.config.free_disks { DiskCosts::FREE } else { drawn };
            (*id, Host::new(SimDisk::new(&format!("server{id}"), costs)))
        };
        let hosts = ids.iter().map(host).collect();
        let mut players: BTreeMap<u64, Player<S>> = BTreeMap::new();
        for line in &script.lines {
            let player = players.entry(line.client).or_insert_with(|| Player {
                client: system.client(line.client),
                lines: VecDeque::new(),
                calling: None,
                wake_at: None,
            });
            player.lines.push_back(line.clone());
        }
        let recorder = is_recorded.then(|| Recorder::new(&ids, players.keys().copied()));
        Self {
            system,
            faults: &script.faults,
            now: Instant::ZERO,
            heap: EventHeap::new(),
            ids,
            hosts,
            players,
            calls: Vec::new(),
            moment: 0,
            network: Network::new(script.config.network),
            net_prng: root.fork("network"),
            crash_prng: root.fork("crashes"),
            own_prng: root.fork("system"),
            trace: Trace::new(if is_recorded { usize::MAX } else { 0 }),
            event_count: 0,
            is_mended: false,
            recorder,
        }
    }

    fn run(
        &mut self,
        script: &Script<S::Operation>,
        may_go_on: &dyn Fn() -> bool,
    ) -> Result<(), Broken> {
        for id in self.ids.clone() {
            self.start(id);
        }
        let clients: Vec<u64> = self.players.keys().copied().collect();
        for client in clients {
            self.ask_next(client);
        }
        for (item, timed) in self.faults.iter().enumerate() {
            self.heap.push(timed.at, Happening::Fault(item));
        }
        let mended_at = Instant::ZERO + script.config.faults_until;
        self.heap.push(mended_at, Happening::Mend);
        while !(self.is_mended && self.players.values().all(Player::is_done)) {
            if mended_at + ANSWER_MAX < self.now {
                let who = self.players.iter().find(|(_, player)| !player.is_done());
                let who = who.map_or(0, |(client, _)| *client);
                return Err(Broken::new("progress", format!("client {who} was never answered")));
            }
            if EVENT_COUNT_MAX < self.event_count {
                return Err(Broken::new("play-ends", "too many events"));
            }
            if self.event_count.is_multiple_of(EVENTS_BETWEEN_LOOKS) && !may_go_on() {
                return Err(Broken::new("play-ends", "it was ended from outside"));
            }
            self.step()?;
        }
        self.system.judge(&self.calls)
    }

    /// Handles the next event.
    fn step(&mut self) -> Result<(), Broken> {
        let Some((at, happening)) = self.heap.pop() else {
            return Err(Broken::new("progress", "nothing is left to happen"));
        };
        self.now = at;
        self.event_count += 1;
        match happening {
            Happening::Arrival { from, to, message, sent } => {
                self.on_arrival(from, to, message, sent);
            }
            Happening::Free { server, boot } => {
                if self.hosts[&server].boot == boot {
                    self.serve_waiting(server);
                }
            }
            Happening::Wake { end } => self.on_wake(end),
            Happening::Ask { client } => self.on_ask(client),
            Happening::Fault(item) if !self.is_mended => {
                let fault = &self.faults[item].fault;
                self.trace.record(at, None, "fault", item as u64, || fault.to_string());
                self.note(None, "Fault", &fault.to_string());
                self.inject(fault);
            }
            Happening::Fault(_) => {}
            Happening::Restart { server } => self.start(server),
            Happening::Mend => self.mend(),
        }
        let up = self.hosts.iter().filter_map(|(id, host)| Some((*id, host.process.as_ref()?)));
        self.system.check(&up.collect())
    }

    fn note(&mut self, end: Option<Endpoint>, kind: &'static str, text: &str) {
        if let Some(recorder) = &mut self.recorder {
            recorder.on_world(self.now, end, kind, text);
        }
    }

    fn host(&mut self, id: MemberId) -> &mut Host<S> {
        self.hosts.get_mut(&id).expect("only ids of the stage are used")
    }

    // What is said.

    fn send(&mut self, from: Endpoint, to: Endpoint, after: Duration, message: &S::Message) {
        let left_at = self.now + after;
        let arrivals =
            self.network.send(left_at, from, to, size_of::<S::Message>(), &mut self.net_prng);
        let is_damaged = !arrivals.is_empty() && self.network.draw_damage(&mut self.net_prng);
        let arrivals = if is_damaged { Vec::new() } else { arrivals };
        let is_lost = arrivals.is_empty();
        let sent = self.recorder.as_mut().and_then(|recorder| {
            recorder.on_sent(self.now, from, to, &format!("{message:?}"), is_lost)
        });
        for at in arrivals {
            let message = message.clone();
            self.heap.push(at, Happening::Arrival { from, to, message, sent });
        }
    }

    fn on_arrival(&mut self, from: Endpoint, to: Endpoint, message: S::Message, sent: Sent) {
        let is_up = match to {
            Endpoint::Server(id) => self.hosts.get(&id).is_some_and(Host::is_up),
            Endpoint::Client(client) => self.players.contains_key(&client),
        };
        let is_heard = is_up && self.network.is_open(from, to);
        if let (Some(recorder), Some(sent)) = (&mut self.recorder, sent) {
            recorder.on_arrived(self.now, to, sent, is_heard);
        }
        if !is_heard {
            return;
        }
        let text = format!("{message:?}");
        self.trace.record(self.now, Some(to), "hear", digest(text.as_bytes()), || {
            format!("from {from} {text}")
        });
        let heard = Heard::Message { from, message };
        match to {
            Endpoint::Server(id) => {
                self.host(id).waiting.push_back(heard);
                self.serve_waiting(id);
            }
            Endpoint::Client(client) => self.act(client, heard),
        }
    }

    // Clients.

    fn ask_next(&mut self, client: u64) {
        let player = &self.players[&client];
        if let Some(line) = player.lines.front() {
            self.heap.push(self.now + line.after, Happening::Ask { client });
        }
    }

    fn on_ask(&mut self, client: u64) {
        let player = self.players.get_mut(&client).expect("only clients of the script ask");
        let line = player.lines.pop_front().expect("it was there when this was put off");
        player.calling = Some(self.calls.len());
        let op = (line.operation.clone(), None);
        self.calls.push(Call { op, called: self.moment, returned: None });
        self.moment += 1;
        let text = line.operation.to_string();
        let end = Some(Endpoint::Client(client));
        self.trace.record(self.now, end, "ask", digest(text.as_bytes()), || text.clone());
        if let Some(recorder) = &mut self.recorder {
            recorder.on_asked(self.now, client, text);
        }
        self.act(client, Heard::Ask(line.operation));
    }

    fn act(&mut self, client: u64, heard: Heard<S>) {
        let end = Endpoint::Client(client);
        let player = self.players.get_mut(&client).expect("only clients of the script act");
        let mut step = Step {
            me: end,
            now: self.now,
            wall_ms: self.now.0 / 1_000_000,
            servers: &self.ids,
            prng: &mut self.own_prng,
            disk: None,
            wants: Wants::nothing(),
        };
        self.system.act(&mut player.client, heard, &mut step);
        let wants = step.wants;
        if let Some(after) = wants.wake_after {
            player.wake_at = Some(self.now + after);
            self.heap.push(self.now + after, Happening::Wake { end });
        }
        let answered = wants.answer.and_then(|answer| Some((answer, player.calling.take()?)));
        if answered.is_some() {
            player.wake_at = None;
        }
        for (to, message) in &wants.sends {
            self.send(end, *to, Duration::ZERO, message);
        }
        if let Some((answer, call)) = answered {
            self.on_answer(client, call, answer);
        }
    }

    fn on_answer(&mut self, client: u64, call: usize, answer: S::Answer) {
        let text = format!("{answer:?}");
        let end = Some(Endpoint::Client(client));
        self.trace.record(self.now, end, "answer", digest(text.as_bytes()), || text.clone());
        if let Some(recorder) = &mut self.recorder {
            recorder.on_answered(self.now, call, text);
        }
        self.calls[call].returned = Some(self.moment);
        self.calls[call].op.1 = Some(answer);
        self.moment += 1;
        self.ask_next(client);
    }

    fn on_wake(&mut self, end: Endpoint) {
        match end {
            Endpoint::Server(id) => self.serve_waiting(id),
            Endpoint::Client(client) => {
                let now = self.now;
                let player = self.players.get_mut(&client).expect("only clients of the script");
                if player.wake_at.take_if(|at| *at <= now).is_some() {
                    self.act(client, Heard::Wake);
                }
            }
        }
    }

    // Servers.

    /// A server hears what waits for it, one thing after another, and whether its time is over.
    fn serve_waiting(&mut self, id: MemberId) {
        loop {
            let now = self.now;
            let host = self.host(id);
            if !host.is_up() || host.is_paused || now < host.busy_until {
                return;
            }
            let clock = host.clock.monotonic(now);
            let is_woken = host.wake_at.take_if(|at| *at <= clock).is_some();
            let heard = if is_woken { Some(Heard::Wake) } else { host.waiting.pop_front() };
            let Some(heard) = heard else {
                return self.plan_wake(id);
            };
            self.serve(id, Some(heard));
        }
    }

    fn plan_wake(&mut self, id: MemberId) {
        let host = &self.hosts[&id];
        if let Some(at) = host.wake_at {
            let at = host.clock.world_at(at);
            if at != Instant::NEVER {
                self.heap.push(at.max(self.now), Happening::Wake { end: Endpoint::Server(id) });
            }
        }
    }

    fn start(&mut self, id: MemberId) {
        if self.hosts[&id].is_up() {
            return;
        }
        self.host(id).boot += 1;
        let boot = self.hosts[&id].boot;
        let end = Some(Endpoint::Server(id));
        self.trace.record(self.now, end, "start", boot, String::new);
        self.serve(id, None);
        if self.hosts[&id].is_up() {
            self.note(end, "Start", "");
            self.serve_waiting(id);
        }
    }

    /// One step of a server: it starts, or hears something.
    fn serve(&mut self, id: MemberId, heard: Option<Heard<S>>) {
        let now = self.now;
        let host = self.hosts.get_mut(&id).expect("only ids of the stage are used");
        let mut step = Step {
            me: Endpoint::Server(id),
            now: host.clock.monotonic(now),
            wall_ms: host.clock.wall_ms(now),
            servers: &self.ids,
            prng: &mut self.own_prng,
            disk: Some(&host.disk),
            wants: Wants::nothing(),
        };
        let done = match (heard, &mut host.process) {
            (Some(heard), Some(process)) => {
                self.system.serve(process, heard, &mut step).map(|()| None)
            }
            _ => self.system.start(&mut step).map(Some),
        };
        let Wants { sends, wake_after, .. } = step.wants;
        let cost = host.disk.take_cost();
        if host.disk.is_fuse_blown() {
            self.end_process(id, true, "PowerLost");
            self.heap.push(now + RESTART_AFTER, Happening::Restart { server: id });
            return;
        }
        match done {
            Ok(started) => host.process = started.or_else(|| host.process.take()),
            Err(_) => {
                let is_power_lost = self.crash_prng.chance(1, 2);
                self.end_process(id, is_power_lost, "DiskFailed");
                self.heap.push(now + RESTART_AFTER, Happening::Restart { server: id });
                return;
            }
        }
        if let Some(after) = wake_after {
            host.wake_at = Some(host.clock.monotonic(now) + after);
        }
        if !cost.is_zero() {
            host.busy_until = now + cost;
            let free = Happening::Free { server: id, boot: host.boot };
            self.heap.push(now + cost, free);
        }
        for (to, message) in &sends {
            self.send(Endpoint::Server(id), *to, cost, message);
        }
    }

    fn end_process(&mut self, id: MemberId, is_power_lost: bool, kind: &'static str) {
        let policy = CrashPolicy::draw(&mut self.crash_prng);
        let mut prng = self.crash_prng.fork("loss");
        let end = Some(Endpoint::Server(id));
        self.trace.record(self.now, end, "end", u64::from(is_power_lost), || kind.to_owned());
        self.note(end, kind, "");
        let host = self.host(id);
        if is_power_lost {
            host.disk.crash(&mut prng, policy);
        } else {
            host.disk.sever();
        }
        host.end();
    }

    // Faults.

    fn each(&mut self, target: Target, act: impl Fn(&mut Self, MemberId)) {
        match target {
            Target::Server(id) if self.hosts.contains_key(&id) => act(self, id),
            Target::Server(_) | Target::Leader => {}
            Target::All => self.ids.clone().into_iter().for_each(|id| act(self, id)),
        }
    }

    fn inject(&mut self, fault: &Fault) {
        match fault {
            Fault::Crash(target) => self.each(*target, |stage, id| stage.stop(id, true)),
            Fault::Kill(target) => self.each(*target, |stage, id| stage.stop(id, false)),
            Fault::Restart(target) => self.each(*target, Self::start),
            Fault::Pause(target) => self.each(*target, |stage, id| stage.pause(id, false)),
            Fault::Suspend(target) => self.each(*target, |stage, id| stage.pause(id, true)),
            Fault::Resume(target) => self.each(*target, Self::resume),
            Fault::Jump { target, by_ms } => {
                self.each(*target, |stage, id| stage.host(id).clock.jump(*by_ms));
            }
            Fault::Drift { target, rate_ppm } => {
                self.each(*target, |stage, id| stage.set_rate(id, *rate_ppm));
            }
            Fault::Disconnect(target) => {
                self.each(*target, |stage, id| stage.network.disconnect(Endpoint::Server(id)));
            }
            Fault::Reconnect(target) => {
                self.each(*target, |stage, id| stage.network.reconnect(Endpoint::Server(id)));
            }
            Fault::Partition(partition) => self.network.partition(partition, &self.ids),
            Fault::Block { from, to } => self.network.block(*from, *to),
            Fault::Unblock { from, to } => self.network.unblock(*from, *to),
            Fault::Clog { from, to, lasts } => self.network.clog(*from, *to, self.now + *lasts),
            Fault::Lag { from, to, mean } => self.network.lag(*from, *to, *mean),
            Fault::Throttle { from, to, rate_bytes, queue_bytes } => {
                self.network.throttle(*from, *to, *rate_bytes, *queue_bytes);
            }
            Fault::Unthrottle { from, to } => self.network.unthrottle(*from, *to),
            Fault::Heal => self.network.heal(),
            other => self.inject_disk(other),
        }
    }

    fn inject_disk(&mut self, fault: &Fault) {
        let disk = |stage: &Self, id: MemberId| stage.hosts[&id].disk.clone();
        match fault {
            Fault::Fuse { target, change_count } => {
                self.each(*target, |stage, id| disk(stage, id).arm_fuse(*change_count));
            }
            Fault::Slow { target, factor } => {
                self.each(*target, |stage, id| disk(stage, id).set_slowness(*factor));
            }
            Fault::Stall { target, lasts } => {
                self.each(*target, |stage, id| disk(stage, id).stall(*lasts));
            }
            Fault::SyncError { target, sync_count } => {
                self.each(*target, |stage, id| {
                    disk(stage, id).arm_sync_failure(*sync_count, false)
                });
            }
            Fault::FalseClean { target, sync_count } => {
                self.each(*target, |stage, id| disk(stage, id).arm_sync_failure(*sync_count, true));
            }
            Fault::Ambush { target, point, change_count } => {
                self.each(*target, |stage, id| disk(stage, id).arm_fuse_at(*point, *change_count));
            }
            Fault::WriteError { target, write_count } => {
                self.each(*target, |stage, id| disk(stage, id).arm_write_failure(*write_count));
            }
            Fault::ReadError { target, read_count } => {
                self.each(*target, |stage, id| disk(stage, id).arm_read_failure(*read_count));
            }
            // Sectors go bad by file, which only clusters have names for.
            Fault::GoodSectors(_) => {}
            Fault::Full { target, left_bytes } => self.each(*target, |stage, id| {
                let disk = disk(stage, id);
                disk.set_capacity(Some(disk.size_bytes() + left_bytes));
            }),
            Fault::Space(target) => {
                self.each(*target, |stage, id| disk(stage, id).set_capacity(None));
            }
            _ => unreachable!("scripts refuse what a stage knows nothing of: {fault}"),
        }
    }

    fn stop(&mut self, id: MemberId, is_power_lost: bool) {
        if self.hosts[&id].is_up() {
            let kind = if is_power_lost { "PowerLost" } else { "Killed" };
            self.end_process(id, is_power_lost, kind);
        }
    }

    fn pause(&mut self, id: MemberId, stops_clock: bool) {
        let now = self.now;
        let host = self.host(id);
        host.is_paused = host.is_up();
        if stops_clock {
            host.clock.set_stopped(now, true);
        }
    }

    fn resume(&mut self, id: MemberId) {
        let now = self.now;
        let host = self.host(id);
        host.clock.set_stopped(now, false);
        host.is_paused = false;
        self.serve_waiting(id);
    }

    fn set_rate(&mut self, id: MemberId, rate_ppm: u64) {
        let now = self.now;
        self.host(id).clock.set_rate(now, rate_ppm);
        self.plan_wake(id);
    }

    fn mend(&mut self) {
        self.is_mended = true;
        self.trace.record(self.now, None, "mend", 0, String::new);
        self.note(None, "Heal", "everything is mended");
        self.network.heal();
        for id in self.ids.clone() {
            self.network.reconnect(Endpoint::Server(id));
            self.hosts[&id].disk.disarm_fuse();
            self.hosts[&id].disk.mend();
            self.set_rate(id, RATE_PPM);
            self.resume(id);
            self.start(id);
        }
    }
}
