//! Vector clocks: what a node knows of everybody's past.
//!
//! Every node counts its own records from 1; what it has heard of others stands beside that
//! (Mattern 1989). An event happened before another exactly if the other's clock has reached it.
//!
//! Invariant: components are sorted by name, names are unique, and no component is 0.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser::SerializeMap as _};

/// A name of a node, shared by all clocks that have it.
pub type Identity = Arc<str>;

/// How many records of each node are known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VectorClock(Vec<(Identity, u64)>);

impl VectorClock {
    /// A clock that knows of nobody.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How many records of this node are known.
    #[must_use]
    pub fn get(&self, identity: &str) -> u64 {
        self.place(identity).map_or(0, |place| self.0[place].1)
    }

    /// All that are known, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&Identity, u64)> {
        self.0.iter().map(|(identity, count)| (identity, *count))
    }

    /// How many nodes are known.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nobody is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Sets one component; 0 takes it away.
    pub fn set(&mut self, identity: &Identity, count: u64) {
        match (self.place(identity), count) {
            (Ok(place), 0) => drop(self.0.remove(place)),
            (Ok(place), _) => self.0[place].1 = count,
            (Err(_), 0) => {}
            (Err(place), _) => self.0.insert(place, (Arc::clone(identity), count)),
        }
    }

    /// One more record of this node. Counts no further than a `u64` can.
    pub fn tick(&mut self, identity: &Identity) {
        self.set(identity, self.get(identity).saturating_add(1));
    }

    /// Knows from now on what the other knows as well.
    pub fn merge(&mut self, other: &Self) {
        for (identity, count) in &other.0 {
            if self.get(identity) < *count {
                self.set(identity, *count);
            }
        }
    }

    /// Whether this clock has reached every component of the other.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        other.iter().all(|(identity, count)| count <= self.get(identity))
    }

    /// Lets names be exchanged for equal ones.
    pub(crate) fn each_name(&mut self, mut exchange: impl FnMut(&mut Identity)) {
        self.0.iter_mut().for_each(|(identity, _)| exchange(identity));
    }

    fn place(&self, identity: &str) -> Result<usize, usize> {
        self.0.binary_search_by(|(known, _)| known.as_ref().cmp(identity))
    }
}

impl FromIterator<(Identity, u64)> for VectorClock {
    fn from_iter<I: IntoIterator<Item = (Identity, u64)>>(components: I) -> Self {
        let mut clock = Self::new();
        for (identity, count) in components {
            clock.set(&identity, count);
        }
        clock
    }
}

/// As in ShiViz logs: `{"a":1, "b":2}`.
impl fmt::Display for VectorClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (place, (identity, count)) in self.0.iter().enumerate() {
            let comma = if place == 0 { "" } else { ", " };
            let name = serde_json::to_string(identity.as_ref()).map_err(|_| fmt::Error)?;
            write!(f, "{comma}{name}:{count}")?;
        }
        f.write_str("}")
    }
}

impl Serialize for VectorClock {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (identity, count) in &self.0 {
            map.serialize_entry(identity.as_ref(), count)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for VectorClock {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ClockVisitor)
    }
}

struct ClockVisitor;

impl<'de> de::Visitor<'de> for ClockVisitor {
    type Value = VectorClock;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a vector clock: an object of counts by name")
    }

    fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<VectorClock, A::Error> {
        let mut components = Vec::new();
        while let Some((identity, count)) = map.next_entry::<String, u64>()? {
            if CLOCK_NODES_MAX == components.len() {
                return Err(de::Error::custom(format_args!(
                    "a clock names at most {CLOCK_NODES_MAX} nodes"
                )));
            }
            components.push((Identity::from(identity), count));
        }
        from_components(components).map_err(|name| {
            de::Error::custom(format_args!("{name:?} stands twice in one vector clock"))
        })
    }
}

/// Sorts what was read; the name of one that stands there twice is an error.
pub(crate) fn from_components(
    mut components: Vec<(Identity, u64)>,
) -> Result<VectorClock, Identity> {
    components.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    if let Some(pair) = components.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        return Err(Arc::clone(&pair[0].0));
    }
    components.retain(|(_, count)| *count != 0);
    Ok(VectorClock(components))
}

/// Nodes that a clock names at most: nobody could look at more, and a hostile one costs no more.
pub const CLOCK_NODES_MAX: usize = 1024;

/// Bytes of a node's name at most.
pub const IDENTITY_SIZE_BYTES_MAX: usize = 128;

/// Whether a node may be called that: one word, since ShiViz tells names by the space after them.
#[must_use]
pub fn is_identity(name: &str) -> bool {
    let plain = |letter: char| !letter.is_whitespace() && !letter.is_control();
    !name.is_empty() && name.len() <= IDENTITY_SIZE_BYTES_MAX && name.chars().all(plain)
}
