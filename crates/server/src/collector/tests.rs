//! Nodes that restart, vanish, send rubbish or come twice.

use std::net::Ipv4Addr;

use kvraft_trace::{
    action::Action, clock::VectorClock, record::Log, tracer::Tracer, verify::verify,
};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt as _;

use super::*;

struct Place {
    directory: TempDir,
    config: CollectorConfig,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let config = CollectorConfig {
            // The system chooses a port, and nobody else wants it afterwards.
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            output_file: directory.path().join("trace_output.log"),
            shiviz_output_file: directory.path().join("shiviz_output.log"),
        };
        Self { directory, config }
    }

    fn log(&self) -> Log {
        Log::read(&std::fs::read(&self.config.output_file).unwrap()).unwrap()
    }
}

/// A node, as far as the tracing server sees it.
struct Link {
    reader: Reader<OwnedReadHalf>,
    writer: Writer<tokio::net::tcp::OwnedWriteHalf>,
}

impl Link {
    async fn open(collector: &Collector, identity: &str) -> (Self, Frame) {
        let stream = TcpStream::connect(collector.local_address()).await.unwrap();
        let (reader, writer) = stream.into_split();
        let mut link = Self { reader: Reader::new(reader), writer: Writer::new(writer) };
        link.writer.write(&Frame::Hello(identity.to_owned())).await.unwrap();
        let answer = link.reader.read().await.unwrap().unwrap();
        (link, answer)
    }

    async fn send(&mut self, records: &[Record]) -> Option<Frame> {
        let lines: Vec<_> = records.iter().map(Record::to_json).collect();
        self.writer.write(&Frame::Records(lines.join("\n") + "\n")).await.unwrap();
        self.reader.read().await.unwrap()
    }
}

fn clock_of(answer: Frame) -> VectorClock {
    match answer {
        Frame::Welcome(clock) => clock,
        other => panic!("{other:?}"),
    }
}

fn noops(tracer: &mut Tracer, count: usize) -> Vec<Record> {
    (0..count).map(|_| tracer.record(1, &Action::NoOpRequest {})).collect()
}

/// A node that starts again goes on; what it sends twice is there once.
#[tokio::test]
async fn a_node_that_starts_again_goes_on() {
    let place = Place::new();
    let collector = Collector::start(place.config.clone()).await.unwrap();
    let (mut link, answer) = Link::open(&collector, "server1").await;
    assert!(clock_of(answer).is_empty());
    let mut tracer = Tracer::new("server1");
    let records = noops(&mut tracer, 3);
    assert_eq!(link.send(&records[..2]).await, Some(Frame::Taken(2)));
    assert_eq!(link.send(&records).await, Some(Frame::Taken(3)));
    // It vanishes without a word.
    drop(link);
    let (mut link, answer) = Link::open(&collector, "server1").await;
    let mut tracer = Tracer::resume("server1", clock_of(answer));
    assert_eq!(link.send(&noops(&mut tracer, 2)).await, Some(Frame::Taken(5)));
    assert_eq!(collector.stop().await.unwrap(), 5);
    let log = place.log();
    assert_eq!((verify(&log), log.records.len()), (Vec::new(), 5));
    drop(place.directory);
}

/// Records that a killed node never sent, but of which others know, are stood in for.
#[tokio::test]
async fn lost_records_leave_no_hole() {
    let place = Place::new();
    let collector = Collector::start(place.config.clone()).await.unwrap();
    let (mut one, _) = Link::open(&collector, "server1").await;
    let (mut two, _) = Link::open(&collector, "server2").await;
    let (mut first, mut second) = (Tracer::new("server1"), Tracer::new("server2"));
    one.send(&noops(&mut first, 2)).await;
    // Two records and a token that only server2 ever hears of.
    noops(&mut first, 2);
    let (token, _) = first.generate_token(1);
    two.send(&[second.receive_token(&token)]).await;
    drop(one);
    let (mut one, answer) = Link::open(&collector, "server1").await;
    let clock = clock_of(answer);
    assert_eq!(clock.get("server1"), 5);
    let mut first = Tracer::resume("server1", clock);
    assert_eq!(one.send(&noops(&mut first, 1)).await, Some(Frame::Taken(6)));
    collector.stop().await.unwrap();
    let log = place.log();
    assert_eq!(verify(&log), []);
    let lost = log.records.iter().filter(|record| record.tag.as_ref() == "RecordsLost").count();
    assert_eq!(lost, 3);
}

/// Rubbish ends a connection with a word, and nobody else's.
#[tokio::test]
async fn rubbish_ends_one_connection_only() {
    let place = Place::new();
    let collector = Collector::start(place.config.clone()).await.unwrap();
    let (mut good, _) = Link::open(&collector, "server1").await;
    let mut tracer = Tracer::new("server1");
    for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0; 64], &[0xff; 64], &[7]] {
        let mut stream = TcpStream::connect(collector.local_address()).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        stream.shutdown().await.ok();
    }
    let (_, answer) = Link::open(&collector, "two words").await;
    assert!(matches!(answer, Frame::Refused(_)), "{answer:?}");
    let (mut bad, _) = Link::open(&collector, "server2").await;
    let stranger = noops(&mut Tracer::new("server1"), 1);
    let answer = bad.send(&stranger).await.unwrap();
    assert!(matches!(&answer, Frame::Refused(why) if why.contains("for itself")), "{answer:?}");
    let (mut bad, _) = Link::open(&collector, "server3").await;
    bad.writer.write(&Frame::Records("nonsense\n".into())).await.unwrap();
    let answer = bad.reader.read().await.unwrap().unwrap();
    assert!(matches!(&answer, Frame::Refused(why) if why.contains("line 1")), "{answer:?}");
    assert_eq!(good.send(&noops(&mut tracer, 2)).await, Some(Frame::Taken(2)));
    assert_eq!(collector.stop().await.unwrap(), 2);
}

/// Of two processes with one name the later one speaks.
#[tokio::test]
async fn the_later_process_of_a_name_speaks() {
    let place = Place::new();
    let collector = Collector::start(place.config.clone()).await.unwrap();
    let (mut old, _) = Link::open(&collector, "server1").await;
    let (mut new, _) = Link::open(&collector, "server1").await;
    let records = noops(&mut Tracer::new("server1"), 1);
    let answer = old.send(&records).await.unwrap();
    assert!(matches!(&answer, Frame::Refused(why) if why.contains("another")), "{answer:?}");
    assert_eq!(new.send(&records).await, Some(Frame::Taken(1)));
    collector.stop().await.unwrap();
}

/// What has come is in the files within a second, without any stop.
#[tokio::test]
async fn files_are_at_most_a_second_behind() {
    let place = Place::new();
    let collector = Collector::start(place.config.clone()).await.unwrap();
    let (mut link, _) = Link::open(&collector, "server1").await;
    link.send(&noops(&mut Tracer::new("server1"), 4)).await;
    let taken = std::time::Instant::now();
    while place.log().records.len() < 4 {
        assert!(
            taken.elapsed() < Duration::from_secs(5),
            "busy machines are slow, but not so slow"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    collector.stop().await.unwrap();
}
