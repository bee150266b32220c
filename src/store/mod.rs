//! The state on disk: one redb file in `ECS_DATADIR`, versioned JSON documents, one writer.
//!
//! What is committed survives the death of the process at any instant: redb commits are atomic and flushed to the disk before
//! [`Store::commit`] returns. The directory is 0700 and the file 0600, since a task's plain environment is in it. Secrets
//! ([`crate::model::Secret`]) cannot be serialised and so cannot be in it.

mod schema;

use crate::engine::state::{HostState, Key, State, TaskState};
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use serde::{Deserialize, Serialize};
use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Task ARN to task document.
const TASKS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("tasks");
/// Name to document: `schema`, `host`, `identity`.
const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
/// Name of the file in the data directory. The reference's file is `agent.db`; this one must not be mistaken for it.
const FILE: &str = "ecs-agent.redb";
/// redb's page cache; a state is some hundred kilobytes.
const CACHE_BYTES: usize = 1 << 20;

/// What is said of a file whose structure is broken.
const DAMAGED: &str = "its pages are damaged";

/// Why the store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The directory or file cannot be made or opened.
    #[error("the data directory {path} (ECS_DATADIR) cannot be used; it must be a directory this process may write to")]
    Unusable {
        /// The path.
        path: PathBuf,
        /// What the system said.
        #[source]
        cause: std::io::Error,
    },
    /// Another agent has it open.
    #[error("the state file {path} is in use by another agent; run one agent per data directory (ECS_DATADIR)")]
    InUse {
        /// The path.
        path: PathBuf,
    },
    /// It was written by a newer agent.
    #[error(
        "the state was written by a newer agent (schema {found}, this one knows {known}); start that version again"
    )]
    Newer {
        /// Schema on disk.
        found: u32,
        /// Schema of this build.
        known: u32,
    },
    /// It is damaged, or was not written by this agent.
    #[error("the state file {path} cannot be read: {what}; restore it, or move it away to register as a new instance")]
    Corrupt {
        /// The path.
        path: PathBuf,
        /// Which part, without its content.
        what: String,
    },
    /// A read or write failed (disk full, I/O error).
    #[error("the state could not be written or read")]
    Io(#[from] Box<redb::Error>),
}

/// Who the agent is to ECS; outlives restarts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Cluster the instance is registered in.
    pub cluster: String,
    /// ARN that ECS gave it.
    pub container_instance_arn: String,
    /// EC2 instance it was registered on; empty if unknown.
    #[serde(default)]
    pub ec2_instance_id: String,
    /// Availability zone ECS said it is in.
    #[serde(default)]
    pub availability_zone: String,
    /// Version of the agent that wrote this.
    #[serde(default)]
    pub agent_version: String,
}

/// What was on disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Loaded {
    /// Who the agent is; `None` on first start.
    pub identity: Option<Identity>,
    /// What is remembered beyond tasks.
    pub host: HostState,
    /// Every task.
    pub tasks: Vec<TaskState>,
}

/// The open state file.
#[derive(Debug)]
pub struct Store {
    database: Database,
    path: PathBuf,
}

impl Store {
    /// Opens or makes the state file in `directory`, and reads all of it.
    ///
    /// # Errors
    /// [`StoreError`]; each names what the operator can do.
    pub fn open(directory: &Path) -> Result<(Self, Loaded), StoreError> {
        let unusable = |cause| StoreError::Unusable { path: directory.to_owned(), cause };
        prepare(directory).map_err(unusable)?;
        let path = directory.join(FILE);
        // redb trusts the pages of a file that was closed properly, and panics over some of those that are damaged.
        let opened = std::panic::catch_unwind(|| Self::read_all(&path));
        opened.unwrap_or_else(|_panic| Err(StoreError::Corrupt { path, what: DAMAGED.to_owned() }))
    }

    fn read_all(path: &Path) -> Result<(Self, Loaded), StoreError> {
        let path = path.to_owned();
        let file = open_file(&path).map_err(|cause| StoreError::Unusable { path: path.clone(), cause })?;
        let backend = redb::backends::FileBackend::new(file);
        let opened =
            backend.and_then(|backend| Database::builder().set_cache_size(CACHE_BYTES).create_with_backend(backend));
        let database = opened.map_err(|error| match error {
            redb::DatabaseError::DatabaseAlreadyOpen => StoreError::InUse { path: path.clone() },
            other => StoreError::Corrupt { path: path.clone(), what: format!("it is not a usable database ({other})") },
        })?;
        Self { database, path }.load()
    }

    /// A store that forgets everything with the process (`ECS_CHECKPOINT=false`).
    ///
    /// # Errors
    /// [`StoreError::Io`], which memory does not cause.
    pub fn in_memory() -> Result<Self, StoreError> {
        let backend = redb::backends::InMemoryBackend::new();
        let database = Database::builder().set_cache_size(CACHE_BYTES).create_with_backend(backend).map_err(io)?;
        Ok(Self { database, path: PathBuf::from("(memory)") })
    }

    fn load(self) -> Result<(Self, Loaded), StoreError> {
        let mut loaded = Loaded::default();
        let io = |error| self.unreadable(error);
        let read = self.database.begin_read().map_err(|error| io(error.into()))?;
        match read.open_table(META) {
            Ok(meta) => {
                schema::check(self.document(&meta, "schema")?)?;
                loaded.host = self.document(&meta, "host")?.unwrap_or_default();
                loaded.identity = self.document(&meta, "identity")?;
            }
            Err(redb::TableError::TableDoesNotExist(_)) => {}
            Err(error) => return Err(io(error.into())),
        }
        match read.open_table(TASKS) {
            Ok(tasks) => {
                for row in tasks.iter().map_err(|error| io(error.into()))? {
                    let (arn, document) = row.map_err(|error| io(error.into()))?;
                    loaded.tasks.push(self.decode(&format!("task {}", arn.value()), document.value())?);
                }
            }
            Err(redb::TableError::TableDoesNotExist(_)) => {}
            Err(error) => return Err(io(error.into())),
        }
        drop(read);
        Ok((self, loaded))
    }

    /// Writes these documents of the state, all or none, and returns when they are on disk.
    ///
    /// # Errors
    /// [`StoreError::Io`]: nothing was written, and no effect that rests on it may start.
    pub fn commit<'a>(&self, state: &State, changed: impl IntoIterator<Item = &'a Key>) -> Result<(), StoreError> {
        self.write(|meta, tasks| {
            for key in changed {
                match key {
                    Key::Host => schema::put(meta, "host", &state.host)?,
                    Key::Task(arn) => match state.tasks.get(arn) {
                        Some(task) => schema::put(tasks, &arn.0, task)?,
                        None => {
                            tasks.remove(arn.0.as_str())?;
                        }
                    },
                }
            }
            Ok(())
        })
    }

    /// Remembers who the agent is.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn save_identity(&self, identity: &Identity) -> Result<(), StoreError> {
        self.write(|meta, _| schema::put(meta, "identity", identity))
    }

    /// Forgets everything: the disk belongs to another instance (an AMI made from a running one).
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn clear(&self) -> Result<(), StoreError> {
        self.write(|meta, tasks| {
            meta.retain(|_, _| false)?;
            tasks.retain(|_, _| false)?;
            Ok(())
        })
    }

    fn write(
        &self,
        change: impl FnOnce(
            &mut redb::Table<'_, &'static str, &'static [u8]>,
            &mut redb::Table<'_, &'static str, &'static [u8]>,
        ) -> Result<(), redb::Error>,
    ) -> Result<(), StoreError> {
        let write = self.database.begin_write().map_err(io)?;
        {
            let mut meta = write.open_table(META).map_err(io)?;
            let mut tasks = write.open_table(TASKS).map_err(io)?;
            change(&mut meta, &mut tasks).map_err(io)?;
            schema::put(&mut meta, "schema", &schema::CURRENT).map_err(io)?;
        }
        write.commit().map_err(io)
    }

    fn document<T: serde::de::DeserializeOwned>(
        &self,
        table: &impl ReadableTable<&'static str, &'static [u8]>,
        name: &str,
    ) -> Result<Option<T>, StoreError> {
        match table.get(name).map_err(|error| self.unreadable(error.into()))? {
            Some(document) => self.decode(name, document.value()).map(Some),
            None => Ok(None),
        }
    }

    /// A damaged file stays damaged, unlike a disk that fails now.
    fn unreadable(&self, error: redb::Error) -> StoreError {
        match error {
            redb::Error::Corrupted(_) => StoreError::Corrupt { path: self.path.clone(), what: DAMAGED.to_owned() },
            other => io(other),
        }
    }

    fn decode<T: serde::de::DeserializeOwned>(&self, name: &str, document: &[u8]) -> Result<T, StoreError> {
        // The cause may quote the document, which may hold what the customer wants kept: say where, not what.
        serde_json::from_slice(document).map_err(|cause| StoreError::Corrupt {
            path: self.path.clone(),
            what: format!("the document of {name} is malformed at line {} column {}", cause.line(), cause.column()),
        })
    }
}

fn prepare(directory: &Path) -> std::io::Result<()> {
    if !directory.is_dir() {
        DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    }
    std::fs::set_permissions(directory, Permissions::from_mode(0o700))
}

fn open_file(path: &Path) -> std::io::Result<File> {
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
    file.set_permissions(Permissions::from_mode(0o600))?;
    Ok(file)
}

fn io(error: impl Into<redb::Error>) -> StoreError {
    StoreError::Io(Box::new(error.into()))
}

#[cfg(test)]
mod tests;
