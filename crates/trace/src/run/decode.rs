//! Reads a run back from its columns. Bytes may be of any origin: damage is an error, never a
//! panic, and no more memory is asked for than the columns themselves account for.

use std::{borrow::Cow, collections::BTreeMap, fmt, io::Read, sync::Arc};

use flate2::read::GzDecoder;
use serde_json::Value as Json;

use super::{
    Band, BandKind, Change, Clock, Event, EventId, Fate, Field, LogEntry, Node, NodeId, NodeKind,
    Operation, Outcome, Point, Power, Role, Run, RunError, Value, Violation, columns::ColumnReader,
    encode::MAGIC,
};

/// A recording is at most this large when it is decompressed, in bytes: what is more is an attack.
const SIZE_BYTES_MAX: u64 = 1 << 30;

/// Why bytes are no recorded run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RunDecodeError {
    /// They are not compressed, or cut short.
    Compression,
    /// They begin with something else, or are of another version.
    Magic,
    /// The header cannot be read, or lacks this.
    Header(&'static str),
    /// A column cannot be read.
    Column(String),
    /// What they say is no run.
    Run(RunError),
    /// The page holds no run.
    NoRun,
}

impl fmt::Display for RunDecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Compression => f.write_str("the recorded run cannot be decompressed"),
            Self::Magic => f.write_str("not a recorded run of this version"),
            Self::Header(what) => write!(f, "the header of the recorded run has no {what}"),
            Self::Column(name) => write!(f, "column {name} of the recorded run cannot be read"),
            Self::Run(error) => write!(f, "the recorded run is none: {error}"),
            Self::NoRun => f.write_str("there is no recorded run in this page"),
        }
    }
}

impl std::error::Error for RunDecodeError {}

impl Run {
    /// Reads what [`Run::encode`] has written.
    ///
    /// # Errors
    /// Any [`RunDecodeError`] but the last.
    pub fn decode(compressed: &[u8]) -> Result<Self, RunDecodeError> {
        let mut bytes = Vec::new();
        let mut gzip = GzDecoder::new(compressed).take(SIZE_BYTES_MAX);
        gzip.read_to_end(&mut bytes).map_err(|_| RunDecodeError::Compression)?;
        let rest = bytes.strip_prefix(MAGIC).ok_or(RunDecodeError::Magic)?;
        let (size, rest) = rest.split_first_chunk::<4>().ok_or(RunDecodeError::Magic)?;
        let size = u32::from_le_bytes(*size) as usize;
        let (header, rest) = rest.split_at_checked(size).ok_or(RunDecodeError::Header("end"))?;
        let header: Json =
            serde_json::from_slice(header).map_err(|_| RunDecodeError::Header("JSON"))?;
        let mut decoder = Decoder::new(&header, rest)?;
        let run = decoder.run(&header)?;
        run.check().map_err(RunDecodeError::Run)?;
        Ok(run)
    }
}

/// The shape of an event: its kind and its fields' names, each with whether it is text.
struct Shape {
    kind: String,
    fields: Vec<(String, bool)>,
}

struct Decoder<'a> {
    columns: BTreeMap<String, ColumnReader<'a>>,
    counts: BTreeMap<String, usize>,
    shapes: Vec<Shape>,
    strings: Vec<Arc<str>>,
}

type Decoded<T> = Result<T, RunDecodeError>;

impl<'a> Decoder<'a> {
    fn new(header: &Json, mut rest: &'a [u8]) -> Decoded<Self> {
        let (mut columns, mut counts) = (BTreeMap::new(), BTreeMap::new());
        for column in list(header, "columns")? {
            let name = text(column, "name")?;
            let (size, count) = (number(column, "bytes")?, number(column, "count")?);
            let (size, count) = (usize_of(size)?, usize_of(count)?);
            let (bytes, after) =
                rest.split_at_checked(size).ok_or_else(|| RunDecodeError::Column(name.clone()))?;
            rest = after;
            columns.insert(name.clone(), ColumnReader::new(bytes));
            // Each number takes a byte at least.
            counts.insert(name, count.min(size));
        }
        let shapes = list(header, "shapes")?.iter().map(shape).collect::<Decoded<_>>()?;
        let mut decoder = Self { columns, counts, shapes, strings: Vec::new() };
        decoder.read_strings()?;
        Ok(decoder)
    }

    fn read_strings(&mut self) -> Decoded<()> {
        for _ in 0..self.count("string.size") {
            let size = usize_of(self.plain("string.size")?)?;
            let name = "string.bytes";
            let bytes = self.columns.get_mut(name).and_then(|column| column.take(size));
            let bytes = bytes.ok_or_else(|| RunDecodeError::Column(name.to_owned()))?;
            self.strings.push(String::from_utf8_lossy(bytes).into());
        }
        Ok(())
    }

    fn count(&self, name: &str) -> usize {
        self.counts.get(name).copied().unwrap_or(0)
    }

    fn read<T>(
        &mut self,
        name: &str,
        read: impl Fn(&mut ColumnReader<'a>) -> Option<T>,
    ) -> Decoded<T> {
        let value = self.columns.get_mut(name).and_then(read);
        value.ok_or_else(|| RunDecodeError::Column(name.to_owned()))
    }

    fn plain(&mut self, name: &str) -> Decoded<u64> {
        self.read(name, ColumnReader::plain)
    }

    fn byte(&mut self, name: &str) -> Decoded<u8> {
        self.read(name, ColumnReader::byte)
    }

    fn difference(&mut self, name: &str, owner: NodeId) -> Decoded<u64> {
        self.read(name, |column| column.difference(owner.0))
    }

    fn node(&mut self, name: &str) -> Decoded<NodeId> {
        let number = self.plain(name)?;
        u16::try_from(number).map(NodeId).map_err(|_| RunDecodeError::Column(name.to_owned()))
    }

    fn string(&self, number: u64, name: &str) -> Decoded<Arc<str>> {
        let string = usize::try_from(number).ok().and_then(|place| self.strings.get(place));
        string.cloned().ok_or_else(|| RunDecodeError::Column(name.to_owned()))
    }

    fn run(&mut self, header: &Json) -> Decoded<Run> {
        let clock = match text(header, "clock")?.as_str() {
            "virtual" => Clock::Virtual,
            "wall" => Clock::Wall,
            "logical" => Clock::Logical,
            _ => return Err(RunDecodeError::Header("clock")),
        };
        let mut run = Run::new(text(header, "title")?, clock);
        (run.command, run.version) = (text(header, "command")?, text(header, "version")?);
        run.seed = header["seed"].as_str().and_then(|seed| seed.parse().ok());
        run.truncated = header["truncated"].as_str().map(str::to_owned);
        run.nodes = list(header, "nodes")?.iter().map(node).collect::<Decoded<_>>()?;
        run.violations =
            list(header, "violations")?.iter().map(violation).collect::<Decoded<_>>()?;
        run.events = self.events()?;
        self.changes(&mut run.events)?;
        run.bands = (0..self.count("band.kind")).map(|_| self.band()).collect::<Decoded<_>>()?;
        let operations = 0..self.count("operation.client");
        run.operations = operations.map(|_| self.operation()).collect::<Decoded<_>>()?;
        Ok(run)
    }

    fn events(&mut self) -> Decoded<Vec<Event>> {
        let mut events = Vec::new();
        for number in 0..self.count("event.at") {
            let at = self.difference("event.at", NodeId(0))?;
            let node = self.node("event.node")?;
            let shape = usize_of(self.plain("event.shape")?)?;
            let back = usize_of(self.plain("event.cause")?)?;
            let fate = fate(self.byte("event.fate")?);
            let (kind, fields) = self.fields(shape, node)?;
            let wrong = || RunDecodeError::Column("event.cause".to_owned());
            let cause = match back {
                0 => None,
                back => {
                    let cause = number.checked_sub(back).ok_or_else(wrong)?;
                    Some(EventId(u32::try_from(cause).map_err(|_| wrong())?))
                }
            };
            events.push(Event { at, node, kind, fields, cause, fate, changes: Vec::new() });
        }
        Ok(events)
    }

    fn fields(&mut self, shape: usize, node: NodeId) -> Decoded<(super::Name, Vec<Field>)> {
        let wrong = || RunDecodeError::Column("event.shape".to_owned());
        let Shape { kind, fields } = self.shapes.get(shape).ok_or_else(wrong)?;
        let (kind, named) = (kind.clone(), fields.clone());
        let mut fields = Vec::with_capacity(named.len());
        for (place, (name, is_text)) in named.into_iter().enumerate() {
            let column = format!("field.{shape}.{place}");
            let value = if is_text {
                let number = self.plain(&column)?;
                Value::Text(self.string(number, &column)?)
            } else {
                Value::Number(self.difference(&column, node)?)
            };
            fields.push(Field { name: Cow::Owned(name), value });
        }
        Ok((Cow::Owned(kind), fields))
    }

    fn changes(&mut self, events: &mut [Event]) -> Decoded<()> {
        for _ in 0..self.count("change.kind") {
            let number = usize_of(self.difference("change.event", NodeId(0))?)?;
            let wrong = || RunDecodeError::Column("change.event".to_owned());
            let event = events.get_mut(number).ok_or_else(wrong)?;
            let change = self.change(event.node)?;
            event.changes.push(change);
        }
        Ok(())
    }

    fn change(&mut self, owner: NodeId) -> Decoded<Change> {
        let kind = self.byte("change.kind")?;
        let wrong = || RunDecodeError::Column("change.kind".to_owned());
        let mut one = |name: &str| self.difference(name, owner);
        Ok(match kind {
            1 => Change::Role(role(one("change.role")?).ok_or_else(wrong)?),
            2 => Change::Term(one("change.term")?),
            3 => Change::Vote(optional(one("change.vote")?)?),
            4 => Change::Leader(optional(one("change.leader")?)?),
            5 => Change::Commit(one("change.commit")?),
            6 => Change::Applied(one("change.applied")?),
            7 => Change::Durable(one("change.durable")?),
            8 => Change::LogFirst(one("change.first")?),
            9 => Change::LogCut { from: one("change.cut")? },
            10 => {
                let (index, term) = (one("append.index")?, one("append.term")?);
                let text = one("append.text")?;
                let key = self.plain("append.key")?;
                let text = self.string(text, "append.text")?;
                let key = self.string(key, "append.key")?;
                Change::LogAppend(LogEntry { index, term, text, key })
            }
            11 => {
                let (peer, matched) = (one("progress.peer")?, one("progress.matched")?);
                let peer = optional(peer + 1)?.ok_or_else(wrong)?;
                Change::Progress { peer, matched, next: one("progress.next")? }
            }
            12 => Change::ProgressEnd,
            13 => Change::Power(power(one("change.power")?).ok_or_else(wrong)?),
            _ => return Err(wrong()),
        })
    }

    fn band(&mut self) -> Decoded<Band> {
        let kind = band_kind(self.byte("band.kind")?)
            .ok_or_else(|| RunDecodeError::Column("band.kind".to_owned()))?;
        let from = self.difference("band.from", NodeId(0))?;
        let to = from.saturating_add(self.plain("band.length")?);
        let text = self.plain("band.text")?;
        let text = self.string(text, "band.text")?;
        let count = self.plain("band.node-count")?;
        let nodes = (0..count).map(|_| self.node("band.node")).collect::<Decoded<_>>()?;
        Ok(Band { nodes, kind, from, to, text })
    }

    fn operation(&mut self) -> Decoded<Operation> {
        let client = self.node("operation.client")?;
        let number = self.difference("operation.number", client)?;
        let (text, answer) = (self.plain("operation.text")?, self.plain("operation.answer")?);
        let from = self.difference("operation.from", NodeId(0))?;
        let to = self.plain("operation.to")?;
        let outcome = outcome(self.byte("operation.outcome")?)
            .ok_or_else(|| RunDecodeError::Column("operation.outcome".to_owned()))?;
        let point = self.plain("operation.point")?;
        let index = self.difference("operation.index", NodeId(0))?;
        let count = self.plain("operation.key-count")?;
        let mut keys = Vec::new();
        for _ in 0..count {
            let key = self.plain("operation.key")?;
            keys.push(self.string(key, "operation.key")?);
        }
        let after = |back: u64| back.checked_sub(1).map(|since| from.saturating_add(since));
        Ok(Operation {
            client,
            number,
            text: self.string(text, "operation.text")?,
            keys,
            from,
            to: after(to),
            outcome,
            answer: self.string(answer, "operation.answer")?,
            point: after(point).map(|at| Point { at, index }),
        })
    }
}

fn list<'j>(json: &'j Json, name: &'static str) -> Decoded<&'j Vec<Json>> {
    json[name].as_array().ok_or(RunDecodeError::Header(name))
}

fn text(json: &Json, name: &'static str) -> Decoded<String> {
    json[name].as_str().map(str::to_owned).ok_or(RunDecodeError::Header(name))
}

fn number(json: &Json, name: &'static str) -> Decoded<u64> {
    json[name].as_u64().ok_or(RunDecodeError::Header(name))
}

fn usize_of(number: u64) -> Decoded<usize> {
    usize::try_from(number).map_err(|_| RunDecodeError::Header("number that fits"))
}

fn shape(json: &Json) -> Decoded<Shape> {
    let is_text = |field: &Json| field["text"].as_bool().ok_or(RunDecodeError::Header("text"));
    let fields = list(json, "fields")?.iter();
    let fields = fields.map(|field| Ok((text(field, "name")?, is_text(field)?)));
    Ok(Shape { kind: text(json, "kind")?, fields: fields.collect::<Decoded<_>>()? })
}

fn node(json: &Json) -> Decoded<Node> {
    let kind = match text(json, "kind")?.as_str() {
        "server" => NodeKind::Server,
        "client" => NodeKind::Client,
        "coordinator" => NodeKind::Coordinator,
        "world" => NodeKind::World,
        _ => return Err(RunDecodeError::Header("kind of a node")),
    };
    Ok(Node { name: text(json, "name")?, kind })
}

fn violation(json: &Json) -> Decoded<Violation> {
    let node = |node: &Json| node.as_u64().and_then(|node| u16::try_from(node).ok()).map(NodeId);
    let nodes = list(json, "nodes")?.iter().map(node).collect::<Option<_>>();
    let event = json["event"].as_u64().and_then(|event| u32::try_from(event).ok()).map(EventId);
    Ok(Violation {
        at: number(json, "at")?,
        event,
        nodes: nodes.ok_or(RunDecodeError::Header("nodes"))?,
        check: text(json, "check")?.into(),
        text: text(json, "text")?.into(),
    })
}

/// 0 is nobody, else one more than the node's number.
fn optional(number: u64) -> Decoded<Option<NodeId>> {
    let Some(node) = number.checked_sub(1) else { return Ok(None) };
    let wrong = |_| RunDecodeError::Column("of nodes".to_owned());
    u16::try_from(node).map(|node| Some(NodeId(node))).map_err(wrong)
}

fn fate(byte: u8) -> Option<Fate> {
    match byte {
        1 => Some(Fate::Delivered),
        2 => Some(Fate::Lost),
        3 => Some(Fate::Pending),
        _ => None,
    }
}

fn role(number: u64) -> Option<Role> {
    [Role::Follower, Role::PreCandidate, Role::Candidate, Role::Leader]
        .get(usize::try_from(number).ok()?)
        .copied()
}

fn power(number: u64) -> Option<Power> {
    [Power::Up, Power::Down, Power::Paused].get(usize::try_from(number).ok()?).copied()
}

fn band_kind(byte: u8) -> Option<BandKind> {
    let kinds = [
        BandKind::Crash,
        BandKind::Pause,
        BandKind::Partition,
        BandKind::Link,
        BandKind::Disk,
        BandKind::Clock,
    ];
    kinds.get(usize::from(byte)).copied()
}

fn outcome(byte: u8) -> Option<Outcome> {
    [Outcome::Ok, Outcome::Failed, Outcome::Unknown].get(usize::from(byte)).copied()
}
