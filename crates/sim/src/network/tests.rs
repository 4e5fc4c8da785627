//! Tests of the simulated network.

use std::time::Duration;

use kvraft_base::{Instant, MemberId, Prng};

use crate::plan::FaultKinds;

use super::{Endpoint, Network, NetworkConfig, Partition, exponential};

const WILD: NetworkConfig = NetworkConfig {
    delay_min: Duration::from_millis(1),
    delay_extra_mean: Duration::from_millis(10),
    kib_ns: 0,
    loss_ppm: 200_000,
    duplicate_ppm: 100_000,
    corrupt_ppm: 0,
    fifo: false,
};

fn server(id: u64) -> Endpoint {
    Endpoint::Server(MemberId(id))
}

fn servers(count: u64) -> Vec<MemberId> {
    (1..=count).map(MemberId).collect()
}

/// Links that are open, as text: "1>2 2>1 …".
fn open_links(network: &Network, count: u64) -> String {
    let pairs = (1..=count).flat_map(|from| (1..=count).map(move |to| (from, to)));
    let open = pairs
        .filter(|(from, to)| from != to && network.is_open(server(*from), server(*to)))
        .map(|(from, to)| format!("{from}>{to}"));
    open.collect::<Vec<_>>().join(" ")
}

fn open_after(partition: &Partition, count: u64) -> String {
    let mut network = Network::new(NetworkConfig::CALM);
    network.partition(partition, &servers(count));
    open_links(&network, count)
}

/// The shapes, link by link.
#[test]
fn partitions_block_what_they_say() {
    assert_eq!(open_after(&Partition::Isolate(MemberId(2)), 3), "1>3 3>1");
    assert_eq!(open_after(&Partition::Deaf(MemberId(2)), 3), "1>3 2>1 2>3 3>1");
    assert_eq!(open_after(&Partition::Mute(MemberId(2)), 3), "1>2 1>3 3>1 3>2");
    let side = vec![MemberId(1), MemberId(3)];
    assert_eq!(open_after(&Partition::Split(side.clone()), 4), "1>3 2>4 3>1 4>2");
    assert_eq!(open_after(&Partition::OneWay(side), 4), "1>3 2>1 2>3 2>4 3>1 4>1 4>2 4>3");
    assert_eq!(open_after(&Partition::Ring, 4), "1>2 1>4 2>1 2>3 3>2 3>4 4>1 4>3");
    assert_eq!(
        open_after(&Partition::Bridge(MemberId(3)), 5),
        "1>2 1>3 2>1 2>3 3>1 3>2 3>4 3>5 4>3 4>5 5>3 5>4"
    );
}

/// Healing opens links but does not bring back who was disconnected; clients go with a
/// disconnection and not with a partition.
#[test]
fn heal_and_reconnect_are_two_things() {
    let mut network = Network::new(NetworkConfig::CALM);
    let client = Endpoint::Client(1);
    network.partition(&Partition::Isolate(MemberId(1)), &servers(3));
    assert!(network.is_open(client, server(1)));
    network.disconnect(server(2));
    network.heal();
    assert_eq!(open_links(&network, 3), "1>3 3>1");
    assert!(!network.is_open(client, server(2)) && !network.is_open(server(2), client));
    network.reconnect(server(2));
    assert_eq!(open_links(&network, 3).len(), 6 * 3 + 5);
}

/// A blocked link carries nothing, one way only.
#[test]
fn blocked_links_lose_frames() {
    let mut network = Network::new(NetworkConfig::CALM);
    let mut prng = Prng::new(1);
    network.block(server(1), server(2));
    assert!(network.send(Instant(0), server(1), server(2), 10, &mut prng).is_empty());
    assert_eq!(network.send(Instant(0), server(2), server(1), 10, &mut prng).len(), 1);
    network.unblock(server(1), server(2));
    assert_eq!(network.send(Instant(0), server(1), server(2), 10, &mut prng).len(), 1);
    assert_eq!((network.stats().sent_count, network.stats().blocked_count), (3, 1));
}

/// Loss, duplication and delay have the drawn strengths; younger frames overtake.
#[test]
fn frames_are_lost_doubled_delayed_and_reordered() {
    let mut network = Network::new(WILD);
    let mut prng = Prng::new(5);
    let (mut total_ns, mut overtaken, mut last) = (0, 0, Instant::ZERO);
    for number in 0..10_000 {
        let now = Instant(number * 1_000_000);
        for at in network.send(now, server(1), server(2), 100, &mut prng) {
            assert!(now + WILD.delay_min <= at);
            total_ns += at.since(now).as_nanos();
            overtaken += u64::from(at < last);
            last = at;
        }
    }
    let stats = network.stats();
    assert!((1_800..2_200).contains(&stats.lost_count), "{stats:?}");
    assert!((700..900).contains(&stats.duplicated_count), "{stats:?}");
    let arrived = u128::from(10_000 - stats.lost_count + stats.duplicated_count);
    assert!((10_000_000..13_000_000).contains(&(total_ns / arrived)), "{}", total_ns / arrived);
    assert!(1_000 < overtaken);
}

/// FIFO links keep order, and clients' frames are neither lost nor doubled.
#[test]
fn fifo_links_keep_order() {
    let mut network = Network::new(NetworkConfig { fifo: true, ..WILD });
    let (mut prng, mut last) = (Prng::new(5), Instant::ZERO);
    for number in 0..1_000 {
        let arrivals =
            network.send(Instant(number), Endpoint::Client(1), server(2), 100, &mut prng);
        assert_eq!(arrivals.len(), 1);
        assert!(last < arrivals[0]);
        last = arrivals[0];
    }
}

/// Clogged links hold frames back; large frames take longer.
#[test]
fn clogs_and_sizes_delay() {
    let mut network = Network::new(NetworkConfig { fifo: false, ..NetworkConfig::CALM });
    let mut prng = Prng::new(1);
    let until = Instant(5_000_000_000);
    network.clog(server(1), server(2), until);
    assert!(until < network.send(Instant(7), server(1), server(2), 1, &mut prng)[0]);
    assert!(network.send(Instant(7), server(2), server(1), 1, &mut prng)[0] < until);
    let large = network.send(Instant(0), server(2), server(1), 1 << 30, &mut prng)[0];
    assert!(Instant((1 << 20) * 1_000) < large, "a KiB takes a microsecond");
}

/// The integer draw has about the mean and the tail it claims.
#[test]
fn exponential_is_nearly_exponential() {
    let mut prng = Prng::new(9);
    let mean = Duration::from_micros(1_000);
    let drawn: Vec<_> = (0..20_000).map(|_| exponential(mean, &mut prng)).collect();
    let total: Duration = drawn.iter().sum();
    let mean_drawn = total / 20_000;
    assert!((980..1_080).contains(&mean_drawn.as_micros()), "{mean_drawn:?}");
    let beyond = |times: u32| drawn.iter().filter(|delay| mean * times < **delay).count();
    // e^-1 = 36.8 %, e^-3 = 5.0 %.
    assert!((6_600..8_200).contains(&beyond(1)), "{}", beyond(1));
    assert!((800..1_250).contains(&beyond(3)), "{}", beyond(3));
}

/// The same seed gives the same arrivals.
#[test]
fn network_is_a_function_of_its_seed() {
    let run = || {
        let mut prng = Prng::new(77);
        let mut network = Network::new(NetworkConfig::draw(&mut prng, FaultKinds::all()));
        let mut all = Vec::new();
        for number in 0..200 {
            all.push(network.send(Instant(number), server(1), server(2), 64, &mut prng));
        }
        all
    };
    assert_eq!(run(), run());
}

/// Endpoints read back as they print.
#[test]
fn endpoints_round_trip() {
    for endpoint in [server(3), Endpoint::Client(12)] {
        assert_eq!(endpoint.to_string().parse::<Endpoint>().unwrap(), endpoint);
    }
    for wrong in ["", "s", "x1", "s-1", "c1x"] {
        assert!(wrong.parse::<Endpoint>().is_err());
    }
}

/// A narrow link takes its time for each frame, lets a few wait, and loses the others; an idle one
/// takes any.
#[test]
fn throttled_link_queues_and_then_loses() {
    let config =
        NetworkConfig { kib_ns: 0, delay_extra_mean: Duration::ZERO, ..NetworkConfig::CALM };
    let (mut network, mut prng) = (Network::new(config), Prng::new(1));
    network.throttle(server(1), server(2), 1_000, 250);
    let mut send = |network: &mut Network, at_ms: u64, to: u64| {
        let at = Instant::ZERO + Duration::from_millis(at_ms);
        let arrivals = network.send(at, server(1), server(to), 100, &mut prng);
        arrivals.first().map(|at| at.0 / 1_000_000)
    };
    assert_eq!(send(&mut network, 0, 2), Some(100));
    assert_eq!(send(&mut network, 0, 2), Some(200));
    assert_eq!(send(&mut network, 0, 2), None, "three are more than 250 bytes");
    assert_eq!(send(&mut network, 0, 3), Some(0), "other links are as wide as before");
    assert_eq!(send(&mut network, 1_000, 2), Some(1_100));
    assert_eq!(network.stats().overflowed_count, 1);
    network.heal();
    assert_eq!(send(&mut network, 2_000, 2), Some(2_000));
}

/// What waits for a narrow link need not wait for long once the link is mended, and what comes
/// after it does not overtake it.
#[test]
fn mended_link_is_relieved() {
    let (mut network, mut prng) = (Network::new(NetworkConfig::CALM), Prng::new(1));
    let link = (server(1), server(2));
    let at = |ms: u64| Instant::ZERO + Duration::from_millis(ms);
    network.throttle(link.0, link.1, 1_000, 1 << 20);
    let slow = network.send(at(0), link.0, link.1, 10_000, &mut prng)[0];
    assert!(at(10_000) < slow, "ten thousand bytes at a thousand a second");
    assert_eq!(network.relieve(at(500), link), None, "the link is as narrow as it was");
    network.clog(link.0, link.1, at(2_000));
    network.unthrottle(link.0, link.1);
    let by = network.relieve(at(600), link).unwrap();
    assert!((at(2_000)..at(2_001)).contains(&by), "it is clogged for a while yet");
    assert_eq!(network.slowed().into_iter().collect::<Vec<_>>(), [link]);
    network.heal();
    assert!(network.slowed().is_empty());
    let by = network.relieve(at(700), link).unwrap();
    assert!((at(700)..at(701)).contains(&by));
    for _ in 0..100 {
        let next = network.send(at(700), link.0, link.1, 1, &mut prng)[0];
        assert!((by..at(800)).contains(&next) && by != next, "{next:?}");
    }
}

/// A slow link is slow one way, until it is mended.
#[test]
fn lagging_link_is_slow_one_way() {
    let (mut network, mut prng) = (Network::new(NetworkConfig::CALM), Prng::new(1));
    network.lag(server(1), server(2), Duration::from_secs(1));
    let mut mean_ms = |network: &mut Network, from: u64, to: u64| {
        let all: u64 = (0..1_000)
            .filter_map(|at| {
                let at = Instant::ZERO + Duration::from_secs(at * 100);
                let arrivals = network.send(at, server(from), server(to), 100, &mut prng);
                arrivals.first().map(|arrival| arrival.since(at).as_millis())
            })
            .map(|millis| u64::try_from(millis).unwrap())
            .sum();
        all / 1_000
    };
    assert!((900..1_150).contains(&mean_ms(&mut network, 1, 2)));
    assert!(mean_ms(&mut network, 2, 1) < 2);
    let mut network = Network::new(NetworkConfig::CALM);
    network.lag(server(1), server(2), Duration::from_secs(1));
    network.lag(server(1), server(2), Duration::ZERO);
    assert!(mean_ms(&mut network, 1, 2) < 2);
}
