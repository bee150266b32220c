//! The state on disk: one redb file in `ECS_DATADIR`, versioned JSON documents, one writer.
//!
//! Owns what is written, what is read back, and what becomes of a file that cannot be read. Invariant: what is committed survives
//! the death of the process and of the machine at any instant; redb commits are atomic and on the disk before [`Store::commit`]
//! returns. The file is 0600, since a task's plain environment is in it; a directory that is made for it is 0700, one that was
//! there before keeps its mode. Secrets
//! ([`crate::model::Secret`]) cannot be serialised and so cannot be in it.
//!
//! | What is found | What becomes of it |
//! |---|---|
//! | no directory, no file, an empty file | made |
//! | random bytes, altered bytes, a file cut off, a directory, device or link in its place | set aside as `ecs-agent.redb.broken-<time>`; the state is lost |
//! | a document that cannot be read | a copy is set aside; everything else is kept; that task is lost |
//! | an older schema | read, and all of it written anew |
//! | a newer schema | refused ([`StoreError::Newer`]), the file is kept |
//! | no right to it, a file system that cannot be written | refused ([`StoreError::Unusable`]), nothing is changed |
//! | no space at the start | refused ([`StoreError::is_full`]): the caller waits before it registers |
//! | another agent has it | refused ([`StoreError::InUse`]) |
//! | a commit fails (no space, I/O error) | the next one opens the file again and writes everything |
//! | the file is deleted or replaced while the agent runs | the next commit makes it anew, with everything |
//!
//! The identity of the agent ([`Owners`]), which containers carry, and the registration of the instance ([`Identity`]) are in the state file
//! and once more in small files beside it: they outlive the loss of either.
//!
//! A lost state is told by [`HostState::lost`]: the core then rebuilds tasks from what the containers themselves tell.

mod beside;
mod error;
mod file;
mod identity;
mod instance;
mod owners;
mod schema;

use crate::core::state::{HostState, Key, State, TaskState};
use crate::model::Owners;
use file::{FileError, Opened, guarded};
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use std::path::{Path, PathBuf};

pub use error::StoreError;
pub use identity::Identity;

/// A table: name to document.
type Table<'a> = redb::Table<'a, &'static str, &'static [u8]>;
/// Task ARN to task document.
const TASKS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("tasks");
/// Name to document: `schema`, `writer`, `host`, `identity`, `owners`. The form of `schema` and `writer` never changes.
const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");

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

/// The state file.
#[derive(Debug)]
pub struct Store {
    /// `None`: in memory.
    directory: Option<PathBuf>,
    /// `None` after a failure, until a commit succeeds again.
    opened: Option<Opened>,
    /// Written again with everything else when the file has to be made anew.
    identity: Option<Identity>,
    /// Whose containers are this agent's; written again likewise.
    owners: Owners,
    /// Highest sequence number seen in payloads and manifests; 0 if none was seen.
    manifest_number: i64,
    /// The registration, beside the state file.
    copy: instance::Copy,
}

impl Store {
    /// Opens or makes the state file in `directory`, and reads all of it. A broken one is set aside first.
    ///
    /// # Errors
    /// [`StoreError`]; each names what the operator can do.
    pub fn open(directory: &Path) -> Result<(Self, Loaded), StoreError> {
        let (opened, Reading { mut loaded, owners, damage, version }) = match open_and_read(directory) {
            Err(FileError::Broken(what)) => {
                let kept = file::set_aside(directory)?;
                tracing::error!(what, kept = %kept.display(), "the state file is broken and was set aside; tasks are rebuilt from their containers");
                open_and_read(directory)
            }
            read => read,
        }
        .map_err(|error| final_error(directory, error))?;
        if !damage.is_empty() {
            let kept = file::copy_aside(directory)?;
            for what in &damage {
                tracing::error!(what, kept = %kept.display(), "a part of the state is broken and is left out; a copy of the file was set aside");
            }
            loaded.host.lost = true;
        }
        let owners = owners::known(owners, owners::read(directory));
        if loaded.identity.is_none()
            && let Some(kept) = instance::read(directory)
        {
            loaded.host.seq = loaded.host.seq.max(kept.manifest_number);
            loaded.identity = Some(kept.identity);
        }
        let mut store = Self {
            directory: Some(directory.to_owned()),
            opened: Some(opened),
            identity: loaded.identity.clone(),
            owners: owners.clone(),
            manifest_number: loaded.host.seq,
            copy: instance::Copy::default(),
        };
        // What is not on disk yet is put there now: a disk without space is noticed before anything rests on it.
        store.write(|meta, tasks| {
            if damage.is_empty() && version == schema::CURRENT {
                schema::sign(meta)?;
                schema::put(meta, "owners", &owners)?;
                schema::put(meta, "host", &loaded.host)
            } else {
                everything(meta, tasks, loaded.identity.as_ref(), &owners, &loaded.host, &loaded.tasks)
            }
        })?;
        store.copy_beside();
        Ok((store, loaded))
    }

    /// A store that forgets everything with the process (`ECS_CHECKPOINT=false`).
    ///
    /// # Errors
    /// [`StoreError::Io`], which memory does not cause.
    pub fn in_memory() -> Result<Self, StoreError> {
        let database = file::in_memory().map_err(|error| StoreError::Io(Box::new(error.into())))?;
        let owners = owners::new();
        let opened = Some(Opened { database, place: (0, 0) });
        let copy = instance::Copy::default();
        Ok(Self { directory: None, opened, identity: None, owners, manifest_number: 0, copy })
    }

    /// Whose containers are this agent's.
    pub fn owners(&self) -> &Owners {
        &self.owners
    }

    /// Remembers that more containers are this agent's.
    ///
    /// # Errors
    /// Nothing was written; the same call may be made again.
    pub fn save_owners(&mut self, owners: Owners) -> Result<(), StoreError> {
        self.reopen()?;
        self.owners = owners.clone();
        self.write(|meta, _| schema::put(meta, "owners", &owners))?;
        if let Some(directory) = &self.directory {
            owners::write(directory, &self.owners);
        }
        Ok(())
    }

    /// Brings the files beside the state file up to date.
    fn copy_beside(&mut self) {
        if let Some(directory) = &self.directory {
            owners::write(directory, &self.owners);
            self.copy.update(directory, self.identity.as_ref(), self.manifest_number);
        }
    }

    /// Writes these documents of the state, all or none, and returns when they are on disk.
    ///
    /// # Errors
    /// Nothing was written, and no effect that rests on it may start. The same call may be made again: it then opens the file anew
    /// and writes everything.
    pub fn commit<'a>(&mut self, state: &State, changed: impl IntoIterator<Item = &'a Key>) -> Result<(), StoreError> {
        self.manifest_number = state.host.seq;
        if !self.is_usable() {
            return self.commit_everything(state);
        }
        self.write(|meta, tasks| {
            for key in changed {
                match key {
                    Key::Host => schema::put(meta, "host", &state.host)?,
                    Key::Task(arn) => match state.tasks.get(arn) {
                        Some(task) => schema::put(tasks, &arn.0, task)?,
                        None => {
                            tasks.remove(arn.as_str())?;
                        }
                    },
                }
            }
            Ok(())
        })?;
        if let Some(directory) = &self.directory {
            self.copy.number_grew(directory, self.manifest_number);
        }
        Ok(())
    }

    /// It is open, and the file is still the one in the directory.
    pub fn is_usable(&self) -> bool {
        match (&self.opened, &self.directory) {
            (None, _) => false,
            (Some(_), None) => true,
            (Some(opened), Some(directory)) => file::place_of(directory) == Some(opened.place),
        }
    }

    /// After a failure, or when the file was taken away: a file with everything in it.
    fn commit_everything(&mut self, state: &State) -> Result<(), StoreError> {
        self.close();
        let Some(directory) = self.directory.clone() else {
            self.opened = Self::in_memory()?.opened;
            return self.commit_everything_now(state);
        };
        let opened = match file::open(&directory) {
            Err(FileError::Broken(what)) => {
                let kept = file::set_aside(&directory)?;
                tracing::error!(what, kept = %kept.display(), "the state file is broken and was set aside; it is written anew");
                file::open(&directory)
            }
            opened => opened,
        };
        self.opened = Some(opened.map_err(|error| final_error(&directory, error))?);
        self.commit_everything_now(state)
    }

    fn commit_everything_now(&mut self, state: &State) -> Result<(), StoreError> {
        let (identity, owners) = (self.identity.clone(), self.owners.clone());
        self.write(|meta, tasks| {
            everything(meta, tasks, identity.as_ref(), &owners, &state.host, state.tasks.values().map(|task| &**task))
        })?;
        self.copy_beside();
        Ok(())
    }

    /// Opens the file again after a failure.
    fn reopen(&mut self) -> Result<(), StoreError> {
        if self.opened.is_none()
            && let Some(directory) = &self.directory
        {
            let opened = file::open(directory).map_err(|error| final_error(directory, error))?;
            self.opened = Some(opened);
        }
        Ok(())
    }

    /// Remembers the registration.
    ///
    /// # Errors
    /// Nothing was written; the same call may be made again.
    pub fn save_identity(&mut self, identity: &Identity) -> Result<(), StoreError> {
        self.reopen()?;
        let owners = self.owners.clone();
        self.identity = Some(identity.clone());
        self.write(|meta, _| {
            schema::sign(meta)?; // the file may have been made just now
            schema::put(meta, "owners", &owners)?;
            schema::put(meta, "identity", identity)
        })?;
        self.copy_beside();
        Ok(())
    }

    /// Forgets everything: the disk belongs to another instance (an AMI made from a running one). Its containers are not ours, so this agent
    /// gets another identity.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn clear(&mut self) -> Result<(), StoreError> {
        (self.identity, self.owners, self.manifest_number) = (None, owners::new(), 0);
        let owners = self.owners.clone();
        self.write(|meta, tasks| everything(meta, tasks, None, &owners, &HostState::default(), []))?;
        self.copy_beside();
        Ok(())
    }

    /// Drops the registration that was left beside a lost state: the instance is about to be registered anew.
    pub fn forget_registration(&mut self) {
        (self.identity, self.manifest_number) = (None, 0);
        self.copy_beside();
    }

    fn write(
        &mut self,
        change: impl FnOnce(&mut Table<'_>, &mut Table<'_>) -> Result<(), FileError>,
    ) -> Result<(), StoreError> {
        let Some(opened) = &self.opened else { return Err(StoreError::Io(Box::new(redb::Error::DatabaseClosed))) };
        let written = guarded(|| write(&opened.database, change));
        written.map_err(|error| {
            // redb takes nothing more after a failure; the next commit opens the file again.
            self.close();
            let path = self.directory.clone().unwrap_or_default();
            final_error(&path, error)
        })
    }

    /// Lets go of the file, whatever state it is in.
    fn close(&mut self) {
        let opened = self.opened.take();
        let closed = guarded(|| {
            drop(opened);
            Ok(())
        });
        if let Err(error) = closed {
            tracing::warn!(?error, "the state file could not be closed");
        }
    }
}

fn final_error(directory: &Path, error: FileError) -> StoreError {
    match error {
        FileError::Unavailable(error) => error,
        FileError::Broken(what) => StoreError::Corrupt { path: directory.join(file::FILE), what },
    }
}

fn write(
    database: &Database,
    change: impl FnOnce(&mut Table<'_>, &mut Table<'_>) -> Result<(), FileError>,
) -> Result<(), FileError> {
    let mut write = database.begin_write()?;
    // With one phase, a commit damaged later would look like one that never ended, and the one before it would be believed.
    write.set_two_phase_commit(true);
    {
        let mut meta = write.open_table(META)?;
        let mut tasks = write.open_table(TASKS)?;
        change(&mut meta, &mut tasks)?;
    }
    Ok(write.commit()?)
}

fn everything<'a>(
    meta: &mut Table<'_>,
    tasks: &mut Table<'_>,
    identity: Option<&Identity>,
    owners: &Owners,
    host: &HostState,
    all: impl IntoIterator<Item = &'a TaskState>,
) -> Result<(), FileError> {
    meta.retain(|_, _| false)?;
    tasks.retain(|_, _| false)?;
    schema::sign(meta)?;
    if let Some(identity) = identity {
        schema::put(meta, "identity", identity)?;
    }
    schema::put(meta, "owners", owners)?;
    schema::put(meta, "host", host)?;
    all.into_iter().try_for_each(|task| schema::put(tasks, &task.spec.arn.0, task))
}

/// What a file holds.
struct Reading {
    loaded: Loaded,
    /// `None`: it says nothing that can be read. The file beside it does.
    owners: Option<Owners>,
    /// What of it cannot be read.
    damage: Vec<String>,
    /// The schema it is written in.
    version: u32,
}

fn open_and_read(directory: &Path) -> Result<(Opened, Reading), FileError> {
    let opened = file::open(directory)?;
    let reading = guarded(|| read(&opened.database))?;
    Ok((opened, reading))
}

fn read(database: &Database) -> Result<Reading, FileError> {
    let mut loaded = Loaded { host: HostState { lost: true, ..HostState::default() }, ..Loaded::default() };
    let mut damage = Vec::new();
    let read = database.begin_read()?;
    let meta = match read.open_table(META) {
        Err(redb::TableError::TableDoesNotExist(_)) => {
            return Ok(Reading { loaded, owners: None, damage, version: schema::CURRENT });
        }
        meta => meta?,
    };
    let text = |name| Ok::<_, redb::StorageError>(meta.get(name)?.map(|bytes| bytes.value().to_owned()));
    let writer = schema::writer(text("writer")?.as_deref(), text("identity")?.as_deref());
    let found = note(&mut damage, document(&meta, "schema", schema::CURRENT)?);
    let version = schema::check(found, writer).map_err(FileError::Unavailable)?;
    if let Some(host) = note(&mut damage, document(&meta, "host", version)?) {
        loaded.host = host;
    }
    loaded.identity = note(&mut damage, document(&meta, "identity", version)?);
    let owners = document(&meta, "owners", version)?.unwrap_or_default();
    for row in read.open_table(TASKS)?.iter()? {
        let (arn, bytes) = row?;
        let name = format!("task {}", arn.value());
        let task = schema::read(&name, bytes.value(), version).and_then(|task: TaskState| {
            if task.spec.arn.as_str() == arn.value() {
                Ok(task)
            } else {
                Err(format!("the document of {name} contradicts itself"))
            }
        });
        loaded.tasks.extend(note(&mut damage, task.map(Some)));
    }
    Ok(Reading { loaded, owners, damage, version })
}

type Document<T> = Result<Option<T>, String>;

fn document<T: serde::de::DeserializeOwned>(
    table: &impl ReadableTable<&'static str, &'static [u8]>,
    name: &str,
    version: u32,
) -> Result<Document<T>, FileError> {
    let found = table.get(name)?;
    Ok(found.map(|bytes| schema::read(name, bytes.value(), version)).transpose())
}

fn note<T>(damage: &mut Vec<String>, document: Document<T>) -> Option<T> {
    document.unwrap_or_else(|what| {
        damage.push(what);
        None
    })
}

#[cfg(test)]
mod cuts;
#[cfg(test)]
mod tests;
