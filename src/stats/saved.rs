//! The file with what must survive the agent: what containers used before their last restart.
//!
//! Owns the file. Invariants: it is replaced as a whole; without such containers there is none; and a file that cannot be read is
//! logged and counts as empty, since nothing but figures depends on it.

use super::carried::Carried;
use crate::lane::{self, Lane, read_file};
use ecs_core::model::{RuntimeId, with_causes};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// The name of the file in the data directory.
const FILE: &str = "statistics.json";
/// Upper limit of the file's size in bytes. A larger one is not ours.
const MAX_FILE: u64 = 16 << 20;
/// The thread that reads and writes the file.
const LANE: lane::Settings = lane::Settings { threads: 1, spare: 1, limit: Duration::from_secs(10) };

/// What containers used before their last restart, by Docker's ids.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Saved(pub(super) BTreeMap<RuntimeId, Arc<Carried>>);

/// The file in the data directory.
#[derive(Debug)]
pub struct SavedFile {
    /// `None`: nothing is saved.
    path: Option<PathBuf>,
    lane: Lane,
}

impl SavedFile {
    /// The file in this directory; `None`: nothing is saved.
    pub fn new(directory: Option<&Path>) -> Self {
        let path = directory.map(|directory| directory.join(FILE));
        Self { path, lane: Lane::new("statistics file", LANE) }
    }

    /// What an earlier process of the agent has saved.
    pub async fn read(&self) -> Saved {
        let Some(path) = self.path.clone() else { return Saved::default() };
        let shown = path.display().to_string();
        let read = self.lane.run(&shown, move || read(&path)).await;
        let read = read.map_err(|error| with_causes(&error)).and_then(|read| read.map_err(|error| with_causes(&error)));
        read.unwrap_or_else(|error| {
            tracing::warn!(error, path = shown, "counters of restarted containers begin again");
            Saved::default()
        })
    }

    /// Replaces what is saved.
    ///
    /// # Errors
    /// The file cannot be written. The text names it.
    pub async fn write(&self, saved: Saved) -> Result<(), String> {
        let Some(path) = self.path.clone() else { return Ok(()) };
        let shown = path.display().to_string();
        let written = self.lane.run(&shown, move || write(&path, &saved)).await;
        let written = written.map_err(|error| with_causes(&error));
        let written = written.and_then(|written| written.map_err(|error| with_causes(&error)));
        written.map_err(|error| format!("{shown}: {error}"))
    }
}

fn read(path: &Path) -> io::Result<Saved> {
    match read_file(path, MAX_FILE) {
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(io::Error::from),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Saved::default()),
        Err(error) => Err(error),
    }
}

fn write(path: &Path, saved: &Saved) -> io::Result<()> {
    let new = path.with_extension("json.new");
    remove(&new)?;
    if saved.0.is_empty() {
        return remove(path);
    }
    let mut written = File::options().write(true).create_new(true).mode(0o600).open(&new)?;
    written.write_all(&serde_json::to_vec(saved)?)?;
    written.sync_all()?;
    std::fs::rename(&new, path)?;
    path.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all())
}

fn remove(path: &Path) -> io::Result<()> {
    std::fs::remove_file(path).or_else(|error| if error.kind() == ErrorKind::NotFound { Ok(()) } else { Err(error) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_saved_survives_the_process() {
        let directory = std::env::temp_dir().join(format!("ecs-statistics-{}", uuid::Uuid::new_v4().simple()));
        std::fs::create_dir(&directory).unwrap();
        let file = SavedFile::new(Some(&directory));
        assert_eq!(file.read().await, Saved::default());
        let saved = Saved(BTreeMap::from([("id".into(), Arc::default())]));
        file.write(saved.clone()).await.unwrap();
        assert_eq!(SavedFile::new(Some(&directory)).read().await, saved);
        std::fs::write(directory.join(FILE), "{\"id\":[").unwrap();
        assert_eq!(file.read().await, Saved::default());
        file.write(Saved::default()).await.unwrap();
        assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 0, "without content there is no file");
        std::fs::remove_dir_all(&directory).unwrap();
        let error = file.write(saved.clone()).await.unwrap_err();
        assert!(error.contains("statistics.json: No such file"), "{error}");
        let nowhere = SavedFile::new(None);
        nowhere.write(saved).await.unwrap();
        assert_eq!(nowhere.read().await, Saved::default());
    }
}
