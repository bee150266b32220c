//! The faults that this agent has started, in memory and in a file.
//!
//! Owns the file, whose content survives the agent. Invariant: a fault is in the file before its first command runs, and stays
//! there until nothing of it is left. So a fault whose agent was killed is found again.

use crate::lane::{self, Lane, read_file};
use ecs_core::model::fault::{FaultId, FaultNetwork};
use ecs_core::model::{TaskArn, with_causes};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::Mutex;

/// The name of the file in the data directory.
pub(super) const FILE: &str = "faults.json";
/// Upper limit of the number of faults. A task may start many blackholes, one for each port.
const MAX_RECORDS: usize = 1024;
/// Upper limit of the file's size in bytes. A larger one is not ours.
const MAX_FILE: u64 = 4 << 20;
/// The thread that reads and writes the file.
const LANE: lane::Settings = lane::Settings { threads: 1, spare: 1, limit: Duration::from_secs(4) };

/// A fault that this agent has started, or was about to start when it ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// The task that started it.
    pub(super) task: TaskArn,
    /// The file of the network namespace; `None`: the agent's own.
    pub(super) namespace: Option<String>,
    /// Which fault it is.
    pub(super) fault: FaultId,
    /// The interfaces whose packets it affects; empty for a blackhole.
    pub(super) interfaces: Vec<String>,
    /// All commands of the start have succeeded.
    pub(super) is_complete: bool,
}

impl Record {
    /// A fault that is about to be started.
    pub(super) fn begun(network: &FaultNetwork, fault: FaultId) -> Self {
        let interfaces = match fault {
            FaultId::Blackhole(_) => Vec::new(),
            FaultId::Latency | FaultId::Loss => network.interfaces.names.clone(),
        };
        let (task, namespace) = (network.task.clone(), network.namespace.clone());
        Self { task, namespace, fault, interfaces, is_complete: false }
    }

    /// Both records are about the same fault in the same network, perhaps of two tasks.
    pub(super) fn is_same_fault(&self, other: &Self) -> bool {
        (self.fault, &self.namespace) == (other.fault, &other.namespace)
    }
}

/// Why a fault is not in the file.
#[derive(Debug, thiserror::Error)]
pub(super) enum RecordError {
    #[error("{MAX_RECORDS} network faults are running already")]
    Full,
    #[error("the network faults cannot be saved in {0}: {1}")]
    NotWritten(PathBuf, String),
}

/// All records.
#[derive(Debug)]
pub(super) struct Records {
    /// `None`: the records are in memory only.
    file: Option<PathBuf>,
    lane: Lane,
    list: Mutex<Vec<Record>>,
}

impl Records {
    /// The records that are in the file. A file that cannot be read is logged, and counts as empty.
    pub(super) async fn restored(directory: Option<&Path>) -> Self {
        let file = directory.map(|directory| directory.join(FILE));
        let lane = Lane::new("network faults", LANE);
        let mut list = Vec::new();
        if let Some(file) = file.clone() {
            let shown = file.display().to_string();
            let read = lane.run(&shown, move || read(&file)).await;
            match read.map_err(|error| with_causes(&error)).and_then(|read| read.map_err(|error| error.to_string())) {
                Ok(found) => list = found,
                Err(error) => {
                    tracing::error!(
                        error,
                        path = shown,
                        "network faults of an earlier run are not known; they may be running"
                    );
                }
            }
        }
        Self { file, lane, list: Mutex::new(list) }
    }

    /// A copy of all records.
    pub(super) async fn all(&self) -> Vec<Record> {
        self.list.lock().await.clone()
    }

    /// Changes the list, and writes the file if that made a difference. On an error the list is as before.
    pub(super) async fn change(&self, change: impl FnOnce(&mut Vec<Record>)) -> Result<(), RecordError> {
        let mut list = self.list.lock().await;
        let mut changed = list.clone();
        change(&mut changed);
        if *list == changed {
            return Ok(());
        }
        if changed.len() > MAX_RECORDS {
            return Err(RecordError::Full);
        }
        if let Some(file) = self.file.clone() {
            let (copy, shown) = (changed.clone(), file.display().to_string());
            let written = self.lane.run(&shown, move || write(&file, &copy)).await;
            let written = written.map_err(|error| with_causes(&error));
            written
                .and_then(|written| written.map_err(|error| error.to_string()))
                .map_err(|error| RecordError::NotWritten(shown.into(), error))?;
        }
        *list = changed;
        Ok(())
    }
}

fn read(file: &Path) -> io::Result<Vec<Record>> {
    match read_file(file, MAX_FILE) {
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(io::Error::from),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// Replaces the file as a whole. Without records there is no file.
fn write(file: &Path, records: &[Record]) -> io::Result<()> {
    let new = file.with_extension("json.new");
    remove(&new)?;
    if records.is_empty() {
        return remove(file);
    }
    let mut open = File::options();
    let mut written = open.write(true).create_new(true).mode(0o600).open(&new)?;
    written.write_all(&serde_json::to_vec(records)?)?;
    written.sync_all()?;
    std::fs::rename(&new, file)?;
    file.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all())
}

fn remove(file: &Path) -> io::Result<()> {
    std::fs::remove_file(file).or_else(|error| if error.kind() == ErrorKind::NotFound { Ok(()) } else { Err(error) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use ecs_core::model::Protocol;
    use ecs_core::model::fault::{BlackholePort, Direction, Interfaces};

    fn record(task: &str, fault: FaultId) -> Record {
        let interfaces = Interfaces { names: vec!["eth0".to_owned()], ipv6_only: false };
        Record::begun(&FaultNetwork { task: task.into(), namespace: None, interfaces }, fault)
    }

    #[tokio::test]
    async fn records_survive_the_process_and_end_with_their_file() {
        let directory = std::env::temp_dir().join(format!("ecs-faults-{}", uuid::Uuid::new_v4().simple()));
        std::fs::create_dir(&directory).unwrap();
        let port = BlackholePort { direction: Direction::Egress, protocol: Protocol::Udp, port: 53 };
        let wanted = vec![record("a", FaultId::Loss), record("b", FaultId::Blackhole(port))];
        let records = Records::restored(Some(&directory)).await;
        records.change(|list| list.clone_from(&wanted)).await.unwrap();
        assert_eq!((wanted[0].interfaces.as_slice(), wanted[1].interfaces.len()), (["eth0".to_owned()].as_slice(), 0));
        assert_eq!(Records::restored(Some(&directory)).await.all().await, wanted);
        std::fs::write(directory.join("faults.json.new"), "half").unwrap();
        records.change(Vec::clear).await.unwrap();
        assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 0);
        std::fs::write(directory.join(FILE), "[{").unwrap();
        assert_eq!(Records::restored(Some(&directory)).await.all().await, []);
        std::fs::remove_dir_all(&directory).unwrap();
        let error = records.change(|list| list.push(record("a", FaultId::Latency))).await.unwrap_err().to_string();
        assert!(error.contains("faults.json: No such file"), "{error}");
        assert_eq!(records.all().await, [], "what is not in the file is not in the list");
    }

    #[tokio::test]
    async fn the_number_of_records_is_bounded() {
        let records = Records::restored(None).await;
        let many = vec![record("a", FaultId::Latency); MAX_RECORDS];
        records.change(|list| list.clone_from(&many)).await.unwrap();
        let refused = records.change(|list| list.push(record("b", FaultId::Latency))).await;
        assert!(matches!(refused, Err(RecordError::Full)));
        assert_eq!(records.all().await.len(), MAX_RECORDS);
    }
}
