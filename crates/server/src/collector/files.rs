//! The two files of a tracing server.

use std::{
    fs::File,
    io::{self, BufWriter, Write as _},
    path::{Path, PathBuf},
    time::Duration,
};

use kvraft_trace::{record::Record, shiviz};
use tokio::{sync::mpsc, time::MissedTickBehavior};

use super::{CollectorConfig, CollectorError, nodes::Batch};

/// How far the files may be behind: half of what is promised.
const FLUSH_INTERVAL: Duration = Duration::from_millis(500);

/// Both files, open.
#[derive(Debug)]
pub(super) struct Files {
    json: Output,
    shiviz: Output,
    count: u64,
}

#[derive(Debug)]
struct Output {
    path: PathBuf,
    file: BufWriter<File>,
}

impl Output {
    fn create(path: &Path) -> Result<Self, CollectorError> {
        let failed = |error| CollectorError::File { path: path.to_owned(), error };
        let file = BufWriter::new(File::create(path).map_err(failed)?);
        Ok(Self { path: path.to_owned(), file })
    }

    fn failed(&self, error: io::Error) -> CollectorError {
        CollectorError::File { path: self.path.clone(), error }
    }

    fn write(&mut self, text: &str) -> Result<(), CollectorError> {
        self.file.write_all(text.as_bytes()).map_err(|error| self.failed(error))
    }

    fn flush(&mut self) -> Result<(), CollectorError> {
        self.file.flush().map_err(|error| self.failed(error))
    }
}

impl Files {
    /// Begins both anew.
    pub(super) fn create(config: &CollectorConfig) -> Result<Self, CollectorError> {
        let json = Output::create(&config.output_file)?;
        let mut shiviz = Output::create(&config.shiviz_output_file)?;
        shiviz.write(&format!("{}\n\n", shiviz::HEADER))?;
        shiviz.flush()?;
        Ok(Self { json, shiviz, count: 0 })
    }

    fn write(&mut self, record: &Record) -> Result<(), CollectorError> {
        self.json.write(&record.to_json())?;
        self.json.write("\n")?;
        let mut text = String::new();
        shiviz::write_record(&mut text, &record.identity, &record.clock, record);
        self.shiviz.write(&text)?;
        self.count += 1;
        Ok(())
    }

    fn flush(&mut self) -> Result<(), CollectorError> {
        self.json.flush()?;
        self.shiviz.flush()
    }
}

/// Writes until nobody is left who could send; returns how many records there were.
pub(super) async fn write_records(
    mut files: Files,
    mut batches: mpsc::Receiver<Batch>,
) -> Result<u64, CollectorError> {
    let mut ticks = tokio::time::interval(FLUSH_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let batch = tokio::select! {
            batch = batches.recv() => batch,
            _ = ticks.tick() => {
                files.flush()?;
                continue;
            }
        };
        let Some(batch) = batch else {
            files.flush()?;
            return Ok(files.count);
        };
        for record in &batch {
            files.write(record)?;
        }
    }
}
