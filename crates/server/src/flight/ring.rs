//! The files of a recording: numbered segments, of which the oldest goes first.

use std::{
    collections::VecDeque,
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use kvraft_replica::flight::{
    Cut, Follows, Header, Image, end_block, header_bytes, image_block, seal_block,
};

use super::FlightConfig;

/// The ring has room for so many full segments.
const SEGMENT_COUNT: u64 = 4;

/// Ending of the files' names.
const FILE_ENDING: &str = "flight";

pub(super) struct Ring {
    config: FlightConfig,
    /// Numbers and sizes of the files that are there, oldest first; the present one is not in it.
    kept: VecDeque<(u64, u64)>,
    file: Option<File>,
    number: u64,
    /// Bytes in the present file, and those that stood there before the first turn.
    size_bytes: u64,
    head_bytes: u64,
}

impl Ring {
    /// Looks at what earlier lives have left.
    pub(super) fn open(config: FlightConfig) -> io::Result<Self> {
        fs::create_dir_all(&config.directory)?;
        let kept: VecDeque<_> = flight_files(&config.directory)?
            .into_iter()
            .map(|(number, path)| Ok((number, fs::metadata(path)?.len())))
            .collect::<io::Result<_>>()?;
        let number = kept.back().map_or(0, |(number, _)| *number);
        Ok(Self { config, kept, file: None, number, size_bytes: 0, head_bytes: 0 })
    }

    fn segment_size_bytes(&self) -> u64 {
        self.config.size_bytes / SEGMENT_COUNT
    }

    /// Whether another segment should begin. A large state takes its share of the ring, but turns
    /// always get as much again.
    pub(super) fn is_full(&self) -> bool {
        let turns = self.size_bytes - self.head_bytes;
        let full = self.segment_size_bytes();
        self.file.is_some() && full <= self.size_bytes && full / 2 <= turns
    }

    /// Begins the next file.
    pub(super) fn begin(&mut self, image: &Image, follows: Follows) -> io::Result<()> {
        if self.file.take().is_some() {
            self.kept.push_back((self.number, self.size_bytes));
        }
        self.number += 1;
        self.size_bytes = 0;
        self.make_room(self.segment_size_bytes())?;
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let header = header_bytes(&Header {
            software: env!("CARGO_PKG_VERSION").to_owned(),
            cluster: self.config.cluster,
            member: self.config.member,
            incarnation: self.config.incarnation,
            number: self.number,
            wall_ms: u64::try_from(wall.as_millis()).unwrap_or(u64::MAX),
            follows,
            is_redacted: false,
        });
        let mut file = File::create(path_of(&self.config.directory, self.number))?;
        file.write_all(&header)?;
        self.file = Some(file);
        self.size_bytes = header.len() as u64;
        self.put(&image_block(image))?;
        self.head_bytes = self.size_bytes;
        Ok(())
    }

    /// Adds a block of turns.
    pub(super) fn append(&mut self, block: &[u8]) -> io::Result<()> {
        self.put(block)
    }

    /// Ends the present file.
    pub(super) fn end(&mut self, cut: Cut) -> io::Result<()> {
        self.put(&end_block(cut))?;
        self.file = None;
        self.kept.push_back((self.number, self.size_bytes));
        Ok(())
    }

    fn put(&mut self, block: &[u8]) -> io::Result<()> {
        let Some(file) = &mut self.file else { return Ok(()) };
        let head = seal_block(self.size_bytes, block);
        file.write_all(&head)?;
        file.write_all(block)?;
        self.size_bytes += (head.len() + block.len()) as u64;
        self.make_room(0)
    }

    /// Removes the oldest files until there is room for so many bytes more.
    fn make_room(&mut self, size_bytes: u64) -> io::Result<()> {
        let kept: u64 = self.kept.iter().map(|(_, size)| *size).sum();
        let mut all = kept + self.size_bytes + size_bytes;
        while self.config.size_bytes < all {
            let Some((number, size)) = self.kept.pop_front() else {
                let why = "the state of this server alone is larger than the whole ring";
                return Err(io::Error::other(why));
            };
            fs::remove_file(path_of(&self.config.directory, number))?;
            all -= size;
        }
        Ok(())
    }
}

fn path_of(directory: &Path, number: u64) -> PathBuf {
    directory.join(flight_file_name(number))
}

/// How the file of the segment with this number is called.
#[must_use]
pub fn flight_file_name(number: u64) -> String {
    format!("{number:012}.{FILE_ENDING}")
}

/// The numbers and paths of the files of a recording, oldest first.
///
/// # Errors
/// Whatever the system reports of the folder.
pub fn flight_files(directory: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let is_ours = path.extension().is_some_and(|ending| ending == FILE_ENDING);
        let number = path.file_stem().and_then(|stem| stem.to_str()?.parse().ok());
        if let Some(number) = number.filter(|_| is_ours) {
            found.push((number, path));
        }
    }
    found.sort();
    Ok(found)
}
