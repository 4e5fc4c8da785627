//! Schedules and reports; the requests themselves are measured by hand.

use std::{
    num::NonZeroU32,
    sync::Arc,
    time::{Duration, Instant},
};

use clap::Parser as _;

use super::{
    BenchArgs,
    load::{Schedule, Tally},
    report::Report,
};

#[derive(clap::Parser)]
struct Line {
    #[command(flatten)]
    args: BenchArgs,
}

fn args(line: &str) -> BenchArgs {
    let words = ["bench"].into_iter().chain(line.split_whitespace());
    Line::try_parse_from(words).map(|line| line.args).unwrap()
}

/// A late client gets the moment at which its request was due, not the present one.
#[tokio::test]
async fn latency_counts_from_when_a_request_was_due() {
    let start = Instant::now();
    let rate = NonZeroU32::new(1_000);
    let schedule = Arc::new(Schedule::new(start, Duration::from_millis(200), rate));
    let pacer = schedule.clone().start().unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    for number in 0..3 {
        let due = schedule.next().await.unwrap();
        assert_eq!(due, start + Duration::from_millis(number));
    }
    assert_eq!(schedule.late_count(), 3, "they were due before anybody asked");
    while let Some(due) = schedule.next().await {
        assert!(due <= Instant::now(), "nothing is sent before it is due");
    }
    assert!(Duration::from_millis(200) <= start.elapsed());
    assert!(schedule.taken_count() <= 201, "no more than the rate allows");
    pacer.join().unwrap();
}

/// Tallies are summed; errors are in no percentile.
#[test]
fn report_sums_clients() {
    let mut first = Tally::new();
    first.writes.saturating_record(1_000);
    first.elapsed = Duration::from_secs(2);
    let mut second = Tally::new();
    second.reads.saturating_record(3_000);
    second.errors.insert("etcdserver: no leader".to_owned(), 4);
    second.elapsed = Duration::from_secs(1);
    let report = Report::new(&args("mixed --rate 7"), vec![first, second], 1);
    let json: serde_json::Value = serde_json::from_slice(&report.json().unwrap()).unwrap();
    assert_eq!(json["operations"], 2);
    assert_eq!(json["operations_per_second"], 1.0);
    assert_eq!(json["latency_us"]["max"].as_u64().unwrap() / 10, 300);
    assert_eq!(json["write_latency_us"]["p50"].as_u64().unwrap() / 10, 100);
    assert_eq!(json["errors"]["etcdserver: no leader"], 4);
    assert_eq!((&json["error_count"], &json["rate"]), (&4.into(), &7.into()));
    assert_eq!(json["late"], 1);
    assert!(report.text().contains("4 × etcdserver: no leader"));
    assert!(report.text().contains("1 of 2 waited for a free client"));
}

/// Connections follow the clients, up to a bound.
#[test]
fn connections_follow_clients() {
    assert_eq!(args("put").connection_count(), 16);
    assert_eq!(args("put --clients 3").connection_count(), 3);
    assert_eq!(args("put --clients 300").connection_count(), 16);
    assert_eq!(args("put --connections 40").connection_count(), 40);
}
