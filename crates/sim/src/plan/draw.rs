//! Drawing faults: when one of a kind comes, whom it meets, how strong it is, what repairs it.

use std::time::Duration;

use kvraft_base::{Instant, MemberId, Prng};

use super::{
    Build, CoordinatorFault, Decay, Fault, FaultKind, Part, RATE_PPM, RunConfig, Target,
    TimedFault, Whom, Wish,
};
use crate::{
    disk::ChangePoint,
    network::{Endpoint, Partition},
};

/// A fault and its repair, where it needs one of its own.
type Broken = (Fault, Option<Fault>);

/// The faults of one kind over a whole run, with the kind's own generator.
pub(super) fn draw_kind(
    config: &RunConfig,
    prng: &mut Prng,
    kind: FaultKind,
    faults: &mut Vec<TimedFault>,
) {
    let Some(breaker) = breaker_of(kind) else { return };
    let is_of_clients =
        matches!(kind, FaultKind::ClientCut | FaultKind::ClientCrash | FaultKind::ClientPause);
    if is_of_clients && config.client_count == 0 {
        return;
    }
    let is_decay = matches!(
        kind,
        FaultKind::Rot | FaultKind::Misdirect | FaultKind::LostWrite | FaultKind::Misread
    );
    if is_decay && config.server_count < 2 {
        return; // Nobody could repair it.
    }
    // How strong a kind is in a run: how often it comes.
    let rarity = *prng.pick(&[1, 2, 6]).expect("any");
    let interval = config.fault_interval_mean * (rarity * weight(kind));
    let mut at = config.faults_from;
    loop {
        at = at + prng.duration(Duration::from_nanos(1), interval * 2);
        if config.faults_until <= at {
            return;
        }
        let repaired_at =
            at + prng.duration(config.repair_after_max / 100, config.repair_after_max);
        let mut push = |at: Instant, fault| {
            if at < config.faults_until {
                faults.push(TimedFault { at, fault });
            }
        };
        if kind == FaultKind::Rolling {
            let pause = repaired_at.since(at) / 4;
            for (number, server) in config.servers().into_iter().enumerate() {
                let down = at + pause * 2 * u32::try_from(number).expect("at most seven");
                push(down, Fault::Kill(Target::Server(server)));
                push(down + pause, Fault::Restart(Target::Server(server)));
            }
        } else if kind == FaultKind::Usurp {
            draw_usurp(config, prng, at, repaired_at).into_iter().for_each(|(at, it)| push(at, it));
        } else if kind == FaultKind::ClientCut {
            for (fault, repair) in draw_client_cut(config, prng) {
                push(at, fault);
                push(repaired_at, repair);
            }
        } else if kind == FaultKind::Regrow {
            let faults = draw_regrow(config, prng, at);
            faults.into_iter().for_each(|timed| push(timed.at, timed.fault));
            return; // Once is enough for a run.
        } else if kind == FaultKind::Upgrade {
            let faults = draw_upgrade(config, prng, at);
            faults.into_iter().for_each(|timed| push(timed.at, timed.fault));
            return;
        } else {
            let (fault, repair) = breaker(config, prng);
            push(at, fault);
            if let Some(repair) = repair {
                push(repaired_at, repair);
            }
        }
        at = at.max(repaired_at);
    }
}

/// Kinds that concern everybody, or end a process, come more rarely.
fn weight(kind: FaultKind) -> u32 {
    match kind {
        FaultKind::Power | FaultKind::Rolling => 8,
        FaultKind::SyncError
        | FaultKind::FalseClean
        | FaultKind::WriteError
        | FaultKind::Full
        | FaultKind::ReadError => 3,
        FaultKind::Members
        | FaultKind::Transfer
        | FaultKind::Stop
        | FaultKind::ClientCrash
        | FaultKind::ClientPause => 2,
        FaultKind::Replace => 6,
        _ => 1,
    }
}

/// How to draw one fault; `None` for kinds that are a property of links rather than an event.
fn breaker_of(kind: FaultKind) -> Option<fn(&RunConfig, &mut Prng) -> Broken> {
    Some(match kind {
        FaultKind::Crash => break_crash,
        FaultKind::Power => break_power,
        FaultKind::Kill | FaultKind::Rolling => break_kill,
        FaultKind::Fuse => break_fuse,
        FaultKind::Pause => break_pause,
        FaultKind::Suspend => break_suspend,
        FaultKind::Jump => break_jump,
        FaultKind::Drift => break_drift,
        FaultKind::Slow => break_slow,
        FaultKind::Stall => break_stall,
        FaultKind::SyncError => break_sync,
        FaultKind::WriteError => break_write,
        FaultKind::Full => break_full,
        FaultKind::Disconnect => break_disconnect,
        FaultKind::Partition => break_partition,
        FaultKind::Block => break_block,
        FaultKind::Clog => break_clog,
        FaultKind::Rot => |config, prng| break_rot(config, prng, Decay::Flip),
        FaultKind::Misdirect => |config, prng| break_rot(config, prng, Decay::Misdirect),
        FaultKind::Misread => |config, prng| break_rot(config, prng, Decay::Misread),
        FaultKind::LostWrite => |config, prng| break_rot(config, prng, Decay::Lose),
        FaultKind::ReadError => break_read,
        FaultKind::FalseClean => break_clean,
        FaultKind::Ambush => break_ambush,
        FaultKind::Lag => break_lag,
        FaultKind::Throttle => break_throttle,
        FaultKind::ClientCrash => break_client,
        FaultKind::ClientPause => pause_client,
        FaultKind::Members
        | FaultKind::Regrow
        | FaultKind::Usurp
        | FaultKind::Upgrade
        | FaultKind::ClientCut => break_members,
        FaultKind::Transfer => break_transfer,
        FaultKind::Replace => break_replace,
        FaultKind::Stop => break_stop,
        FaultKind::Coordinator => break_coordinator,
        FaultKind::Loss | FaultKind::Duplicate | FaultKind::Reorder | FaultKind::Corrupt => {
            return None;
        }
    })
}

/// Mostly some server, often the leader.
fn draw_target(config: &RunConfig, prng: &mut Prng) -> Target {
    if prng.chance(2, 5) { Target::Leader } else { Target::Server(draw_server(config, prng)) }
}

fn draw_server(config: &RunConfig, prng: &mut Prng) -> MemberId {
    MemberId(prng.between(1, config.server_count + config.newcomer_count))
}

/// A repair of whatever the target was then: the leader is not the leader any more.
fn repair_target(target: Target) -> Target {
    match target {
        Target::Server(_) => target,
        Target::Leader | Target::All => Target::All,
    }
}

fn break_crash(config: &RunConfig, prng: &mut Prng) -> Broken {
    let target = draw_target(config, prng);
    (Fault::Crash(target), Some(Fault::Restart(repair_target(target))))
}

fn break_kill(config: &RunConfig, prng: &mut Prng) -> Broken {
    let target = draw_target(config, prng);
    (Fault::Kill(target), Some(Fault::Restart(repair_target(target))))
}

fn break_fuse(config: &RunConfig, prng: &mut Prng) -> Broken {
    let target = draw_target(config, prng);
    let most = *prng.pick(&[4, 30, 300]).unwrap_or(&30);
    let change_count = prng.between(1, most);
    (Fault::Fuse { target, change_count }, Some(Fault::Restart(repair_target(target))))
}

fn break_pause(config: &RunConfig, prng: &mut Prng) -> Broken {
    let target = draw_target(config, prng);
    (Fault::Pause(target), Some(Fault::Resume(repair_target(target))))
}

fn break_disconnect(config: &RunConfig, prng: &mut Prng) -> Broken {
    let target = draw_target(config, prng);
    (Fault::Disconnect(target), Some(Fault::Reconnect(repair_target(target))))
}

fn break_partition(config: &RunConfig, prng: &mut Prng) -> Broken {
    let server = draw_server(config, prng);
    let partition = match prng.below(7) {
        0 => Partition::Isolate(server),
        1 => Partition::Deaf(server),
        2 => Partition::Mute(server),
        3 => Partition::Split(draw_side(config, prng)),
        4 => Partition::OneWay(draw_side(config, prng)),
        5 => Partition::Ring,
        _ => Partition::Bridge(server),
    };
    (Fault::Partition(partition), Some(Fault::Heal))
}

/// Some of the servers: at least one, and never all unless there is only one.
fn draw_side(config: &RunConfig, prng: &mut Prng) -> Vec<MemberId> {
    let mut servers = config.servers();
    let side_count = prng.between(1, (config.server_count - 1).max(1));
    while side_count < servers.len() as u64 {
        let out = prng.below(servers.len() as u64);
        servers.remove(usize::try_from(out).expect("below a length"));
    }
    servers
}

fn draw_link(config: &RunConfig, prng: &mut Prng) -> (Endpoint, Endpoint) {
    let from = draw_server(config, prng);
    let distance = prng.between(1, (config.server_count - 1).max(1));
    let to = MemberId(1 + (from.0 - 1 + distance) % config.server_count);
    (Endpoint::Server(from), Endpoint::Server(to))
}

fn break_block(config: &RunConfig, prng: &mut Prng) -> Broken {
    let (from, to) = draw_link(config, prng);
    (Fault::Block { from, to }, Some(Fault::Unblock { from, to }))
}

fn break_clog(config: &RunConfig, prng: &mut Prng) -> Broken {
    let (from, to) = draw_link(config, prng);
    let lasts = prng.duration(Duration::from_millis(1), config.repair_after_max);
    (Fault::Clog { from, to, lasts }, None)
}

fn break_lag(config: &RunConfig, prng: &mut Prng) -> Broken {
    let (from, to) = draw_link(config, prng);
    let mean = prng.duration(Duration::from_millis(1), LAG_MAX);
    (Fault::Lag { from, to, mean }, Some(Fault::Lag { from, to, mean: Duration::ZERO }))
}

/// From a link that is a little too narrow to one that hardly carries heartbeats; what does not fit
/// waits for long, or is lost at once.
fn break_throttle(config: &RunConfig, prng: &mut Prng) -> Broken {
    let (from, to) = draw_link(config, prng);
    let rate_bytes_max = *prng.pick(&[5_000, 200_000]).expect("any");
    let rate_bytes = prng.between(500, rate_bytes_max);
    let queue_bytes = *prng.pick(&[0, 500, 10_000, 1 << 20]).expect("any");
    let fault = Fault::Throttle { from, to, rate_bytes, queue_bytes };
    (fault, Some(Fault::Unthrottle { from, to }))
}

fn draw_client(config: &RunConfig, prng: &mut Prng) -> u64 {
    prng.between(1, config.client_count.max(1))
}

fn break_client(config: &RunConfig, prng: &mut Prng) -> Broken {
    let client = draw_client(config, prng);
    let down = prng.duration(Duration::from_millis(1), config.repair_after_max);
    (Fault::ClientCrash { client, down }, None)
}

fn pause_client(config: &RunConfig, prng: &mut Prng) -> Broken {
    let client = draw_client(config, prng);
    let lasts = prng.duration(Duration::from_millis(1), config.repair_after_max);
    (Fault::ClientPause { client, lasts }, None)
}

/// A client and some of the servers, both ways, or one: requests get through and answers do not, or
/// nothing arrives though the answers would.
fn draw_client_cut(config: &RunConfig, prng: &mut Prng) -> Vec<(Fault, Fault)> {
    let client = Endpoint::Client(draw_client(config, prng));
    let shape = prng.below(3);
    let mut cuts = Vec::new();
    for server in draw_side(config, prng) {
        let server = Endpoint::Server(server);
        for (from, to, other_shape) in [(client, server, 1), (server, client, 2)] {
            if shape != other_shape {
                cuts.push((Fault::Block { from, to }, Fault::Unblock { from, to }));
            }
        }
    }
    cuts
}

fn break_power(_config: &RunConfig, _prng: &mut Prng) -> Broken {
    (Fault::Crash(Target::All), Some(Fault::Restart(Target::All)))
}

fn break_suspend(config: &RunConfig, prng: &mut Prng) -> Broken {
    let target = draw_target(config, prng);
    (Fault::Suspend(target), Some(Fault::Resume(repair_target(target))))
}

/// A second, a minute or an hour, either way; nobody sets it right.
fn break_jump(config: &RunConfig, prng: &mut Prng) -> Broken {
    let most = *prng.pick(&[1_000, 60_000, 7_200_000]).expect("any");
    let by_ms = i64::try_from(prng.between(1, most)).expect("hours in milliseconds");
    let by_ms = if prng.chance(1, 2) { by_ms } else { -by_ms };
    (Fault::Jump { target: draw_target(config, prng), by_ms }, None)
}

/// From a bad quartz to a machine that hardly gets time.
fn break_drift(config: &RunConfig, prng: &mut Prng) -> Broken {
    let (low, high) = *prng
        .pick(&[(999_500, 1_000_500), (800_000, 1_200_000), (250_000, 4_000_000)])
        .expect("any");
    let (low, high) = (low.max(config.drift_ppm.0), high.min(config.drift_ppm.1));
    let target = draw_target(config, prng);
    let repaired = Fault::Drift { target: repair_target(target), rate_ppm: RATE_PPM };
    (Fault::Drift { target, rate_ppm: prng.between(low, high) }, Some(repaired))
}

fn break_slow(config: &RunConfig, prng: &mut Prng) -> Broken {
    let target = draw_target(config, prng);
    let factor_max = *prng.pick(&[5, 50]).expect("any");
    let factor = prng.between(2, factor_max);
    (Fault::Slow { target, factor }, Some(Fault::Slow { target: repair_target(target), factor: 1 }))
}

fn break_stall(config: &RunConfig, prng: &mut Prng) -> Broken {
    let target = draw_target(config, prng);
    (Fault::Stall { target, lasts: prng.duration(Duration::from_millis(10), STALL_MAX) }, None)
}

fn break_sync(config: &RunConfig, prng: &mut Prng) -> Broken {
    let target = draw_target(config, prng);
    (Fault::SyncError { target, sync_count: prng.between(1, 8) }, None)
}

fn break_clean(config: &RunConfig, prng: &mut Prng) -> Broken {
    let target = draw_target(config, prng);
    (Fault::FalseClean { target, sync_count: prng.between(1, 8) }, None)
}

fn break_ambush(config: &RunConfig, prng: &mut Prng) -> Broken {
    let target = draw_target(config, prng);
    let point = *prng.pick(&ChangePoint::ALL).expect("any");
    // Files come and go more rarely than they are written.
    let most = match point {
        ChangePoint::Write | ChangePoint::Sync => 20,
        ChangePoint::SyncDir | ChangePoint::Create | ChangePoint::Rename | ChangePoint::Remove => 2,
    };
    let fault = Fault::Ambush { target, point, change_count: prng.between(1, most) };
    (fault, Some(Fault::Restart(repair_target(target))))
}

fn break_write(config: &RunConfig, prng: &mut Prng) -> Broken {
    let target = draw_target(config, prng);
    (Fault::WriteError { target, write_count: prng.between(1, 30) }, None)
}

fn break_full(config: &RunConfig, prng: &mut Prng) -> Broken {
    let target = draw_target(config, prng);
    let left_bytes = prng.below(20_000);
    (Fault::Full { target, left_bytes }, Some(Fault::Space(repair_target(target))))
}

/// Mostly the same server, which then is hit again and again. Whether the others can do without it
/// is looked at when the time has come.
fn break_rot(config: &RunConfig, prng: &mut Prng, decay: Decay) -> Broken {
    let often = MemberId(config.server_count);
    let server = if prng.chance(1, 2) { often } else { draw_server(config, prng) };
    let part = draw_part(prng);
    let fault = Fault::Rot { decay, server, part, draw: prng.next_u64() };
    (fault, Some(Fault::Restart(Target::Server(server))))
}

fn draw_part(prng: &mut Prng) -> Part {
    if prng.chance(1, 2) { Part::Journal } else { Part::Table }
}

fn break_read(config: &RunConfig, prng: &mut Prng) -> Broken {
    if prng.chance(1, 2) {
        let target = draw_target(config, prng);
        return (Fault::ReadError { target, read_count: prng.between(1, 10) }, None);
    }
    let (server, part) = (draw_server(config, prng), draw_part(prng));
    let fault = Fault::BadSector { server, part, draw: prng.next_u64() };
    (fault, Some(Fault::GoodSectors(Target::Server(server))))
}

/// Mostly one wish; sometimes several at once, which takes a joint step.
fn break_members(_config: &RunConfig, prng: &mut Prng) -> Broken {
    let count = *prng.pick(&[1, 1, 1, 2, 3, 4]).expect("any");
    (Fault::Change((0..count).map(|_| Wish::draw(prng)).collect()), None)
}

fn break_transfer(_config: &RunConfig, prng: &mut Prng) -> Broken {
    let to = prng.chance(1, 2).then(|| Whom::draw(prng));
    (Fault::Transfer(to), None)
}

fn break_replace(_config: &RunConfig, prng: &mut Prng) -> Broken {
    (Fault::Replace(Whom::draw(prng)), None)
}

fn break_stop(config: &RunConfig, prng: &mut Prng) -> Broken {
    let target = draw_target(config, prng);
    (Fault::Stop(target), Some(Fault::Restart(repair_target(target))))
}

/// It lies as often as anything else is wrong with it.
fn break_coordinator(config: &RunConfig, prng: &mut Prng) -> Broken {
    let most = config.repair_after_max;
    let late = CoordinatorFault::Late(prng.duration(Duration::from_millis(1), most));
    let some = draw_target(config, prng);
    let whom = if prng.chance(1, 4) { Target::All } else { some };
    let cut = CoordinatorFault::Cut(whom);
    let (fault, repair) = match prng.below(8) {
        0 => (CoordinatorFault::Crash, CoordinatorFault::Restart),
        1 => (CoordinatorFault::Pause, CoordinatorFault::Resume),
        2 => (cut, CoordinatorFault::Mend),
        3 => (late, CoordinatorFault::Mend),
        _ => (CoordinatorFault::Lie, CoordinatorFault::Mend),
    };
    (Fault::Coordinator(fault), Some(Fault::Coordinator(repair)))
}

/// What a lease must stand: the clocks as far apart as they may be, and a leader that those with
/// the fast ones hear no more.
fn draw_usurp(
    config: &RunConfig,
    prng: &mut Prng,
    from: Instant,
    until: Instant,
) -> Vec<(Instant, Fault)> {
    let server = draw_server(config, prng);
    let target = Target::Server(server);
    let (slowest, fastest) = config.drift_ppm;
    let (slowest, fastest) = (slowest.max(USURP_PPM.0), fastest.min(USURP_PPM.1));
    let to = Some(Whom::Member(server));
    let cut_at = from + prng.duration(Duration::ZERO, until.since(from));
    // Longer than most election timeouts: somebody else is to lead meanwhile.
    let until = cut_at + prng.duration(Duration::from_millis(500), USURP_LENGTH_MAX);
    let mut faults = vec![
        (from, Fault::Transfer(to)),
        (from, Fault::Drift { target: Target::All, rate_ppm: fastest }),
        (from, Fault::Drift { target, rate_ppm: slowest }),
    ];
    match prng.below(3) {
        0 => faults.extend(draw_forgetful(config, prng, server, from, cut_at)),
        1 => faults.extend(draw_late_answers(config, prng, server, cut_at)),
        _ => {}
    }
    faults.extend([
        (cut_at, Fault::Partition(Partition::Isolate(server))),
        (until, Fault::Heal),
        (until, Fault::Drift { target: Target::All, rate_ppm: RATE_PPM }),
    ]);
    faults
}

/// One server hears nothing of the leader for long and would lead instead; when the leader is cut
/// off, all the others begin anew: what they owe to the leader must outlive that.
fn draw_forgetful(
    config: &RunConfig,
    prng: &mut Prng,
    leader: MemberId,
    from: Instant,
    cut_at: Instant,
) -> Vec<(Instant, Fault)> {
    let mut others = config.servers();
    others.retain(|server| *server != leader);
    let Some(usurper) = prng.pick(&others).copied() else { return Vec::new() };
    let (one, other) = (Endpoint::Server(leader), Endpoint::Server(usurper));
    let back_at = cut_at + prng.duration(Duration::from_millis(1), Duration::from_millis(20));
    let mut faults = vec![
        (from, Fault::Block { from: one, to: other }),
        (from, Fault::Block { from: other, to: one }),
    ];
    for server in others.into_iter().filter(|server| *server != usurper) {
        faults.push((cut_at, Fault::Kill(Target::Server(server))));
        faults.push((back_at, Fault::Restart(Target::Server(server))));
    }
    faults
}

/// The leader is not heard any more for a while before it is cut off, and what the others had
/// answered before arrives only then.
fn draw_late_answers(
    config: &RunConfig,
    prng: &mut Prng,
    leader: MemberId,
    cut_at: Instant,
) -> Vec<(Instant, Fault)> {
    let late = prng.duration(Duration::from_millis(20), LATE_MAX);
    let from = Instant(cut_at.0.saturating_sub(u64::try_from(late.as_nanos()).unwrap_or(u64::MAX)));
    let lasts = cut_at.since(from).saturating_sub(Duration::from_millis(2));
    let others = config.servers().into_iter().filter(|server| *server != leader);
    let held = others.map(|server| {
        let (from, to) = (Endpoint::Server(server), Endpoint::Server(leader));
        Fault::Clog { from, to, lasts }
    });
    let mut faults: Vec<_> = held.map(|fault| (from, fault)).collect();
    // What is on its way back is of before.
    faults.push((from + Duration::from_millis(1), Fault::Partition(Partition::Mute(leader))));
    faults
}

/// How late answers come at most: with most election timeouts, the leader waits for them.
const LATE_MAX: Duration = Duration::from_millis(400);

/// The longest that a leader is cut off, if nothing else mends it.
const USURP_LENGTH_MAX: Duration = Duration::from_secs(4);

/// How far clocks are apart at most when a leader is cut off.
const USURP_PPM: (u64, u64) = (800_000, 1_200_000);

/// Two servers more, then one for all who were there first, who leave one by one or some at a time:
/// three become five and end up as three others. Somebody loses power in every step.
fn draw_regrow(config: &RunConfig, prng: &mut Prng, from: Instant) -> Vec<TimedFault> {
    let add = *prng.pick(&[Wish::AddVoter, Wish::AddLearner { promote: true }]).expect("any");
    let mut steps = if prng.chance(1, 2) { vec![vec![add]; 2] } else { vec![vec![add; 2]] };
    let removals = config.servers().into_iter().map(|id| Wish::Remove(Whom::Member(id)));
    let removals: Vec<Wish> = removals.collect();
    let at_once = *prng.pick(&[1, 1, 2, 3]).expect("any");
    let mut leaving = removals.chunks(at_once).map(<[Wish]>::to_vec);
    steps.extend(leaving.next());
    steps.push(vec![add]);
    steps.extend(leaving);
    let step_count = u32::try_from(steps.len()).expect("a step or two for each server");
    let pause = config.faults_until.since(from) / step_count;
    let mut faults = Vec::new();
    for (number, step) in (0..).zip(steps) {
        let at = from + pause * number;
        faults.push(TimedFault { at, fault: Fault::Change(step) });
        let (crash, restart) = break_crash(config, prng);
        let down = at + prng.duration(Duration::ZERO, pause);
        faults.push(TimedFault { at: down, fault: crash });
        let up = down + prng.duration(Duration::ZERO, pause);
        faults.extend(restart.map(|fault| TimedFault { at: up, fault }));
    }
    faults
}

/// One server after the other gets the new build; some of them the old one once more for a while,
/// and often somebody at the end, when that may be too late.
fn draw_upgrade(config: &RunConfig, prng: &mut Prng, from: Instant) -> Vec<TimedFault> {
    let span = config.faults_until.since(from);
    let count = config.server_count + config.newcomer_count;
    let step = span / (2 * u32::try_from(count).expect("a few servers"));
    let mut faults = Vec::new();
    let mut install = |prng: &mut Prng, id: MemberId, build: Build, at: Instant| {
        let target = Target::Server(id);
        let up = at + prng.duration(step / 100, step);
        faults.push(TimedFault { at, fault: Fault::Install { target, build } });
        faults.push(TimedFault { at: up, fault: Fault::Restart(target) });
    };
    let mut at = from;
    for id in (1..=count).map(MemberId) {
        install(prng, id, Build::New, at);
        if prng.chance(1, 3) {
            let back = at + prng.duration(step, step * 3);
            install(prng, id, Build::Old, back);
            let again = back + prng.duration(step, step * 3);
            install(prng, id, Build::New, again);
        }
        at = at + prng.duration(step / 2, step * 3 / 2);
    }
    if prng.chance(1, 2) {
        let late = from + prng.duration(span / 2, span);
        let late_comer = draw_server(config, prng);
        install(prng, late_comer, Build::Old, late);
    }
    faults
}

/// The slowest that a link becomes, in the mean.
const LAG_MAX: Duration = Duration::from_millis(500);

/// The longest that one operation of a disk takes.
const STALL_MAX: Duration = Duration::from_secs(3);
