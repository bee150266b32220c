//! The state on disk: one redb file in `ECS_DATADIR`, versioned JSON documents, one writer.
//!
//! Owns what is written and read, and the handling of a file that cannot be read. It decides nothing about tasks. Invariant: a
//! commit that has returned survives a crash of the process or of the machine at any moment, since redb's commits are atomic
//! and on disk before [`Store::commit`] returns.
//!
//! The file has the mode 0600, since it contains the plain environment of tasks. A directory that is created for it has the mode
//! 0700; an existing directory keeps its mode. Secrets ([`ecs_core::model::Secret`]) cannot be serialised, so the file never
//! contains one.
//!
//! | situation | reaction |
//! |---|---|
//! | no directory, no file, an empty file | it is created |
//! | random or altered bytes, a truncated file | it is set aside as `ecs-agent.redb.broken-<time>`; the state is lost |
//! | a directory, device or link of this name | the same |
//! | a document that cannot be read | a copy of the file is set aside; only this document is lost |
//! | an older schema | the file is read, and completely rewritten |
//! | a newer schema | refused ([`StoreError::Newer`]); the file is kept |
//! | no permission, a read-only file system | refused ([`StoreError::Unusable`]); nothing is changed |
//! | no space at the start | refused ([`StoreError::is_full`]); the caller waits before it registers |
//! | another agent uses the file | refused ([`StoreError::InUse`]) |
//! | a commit fails (no space, I/O error) | the next commit opens the file again and writes everything |
//! | the file is removed or replaced while the agent runs | the next commit creates a file with everything |
//!
//! The identity of the agent ([`Owners`]), with which it labels containers, and the registration of the instance ([`Identity`])
//! are in the state file, and also in small files beside it. So they survive the loss of either file.
//!
//! [`HostState::lost`] marks a lost state: the core then rebuilds its tasks from their containers.

mod error;
mod file;
mod identity;
mod instance;
mod owners;
mod schema;
mod side_file;

use ecs_core::model::{Owners, with_causes};
use ecs_core::state::{HostState, Key, State, TaskState};
use file::{FileError, Opened, guarded};
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use std::path::{Path, PathBuf};

pub use error::StoreError;
pub use identity::Identity;

/// A table that maps a name to a document.
type Table<'a> = redb::Table<'a, &'static str, &'static [u8]>;
/// The documents of the tasks, by ARN.
const TASKS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("tasks");
/// The other documents, by name: `schema`, `writer`, `host`, `identity`, `owners`. The form of `schema` and `writer` never
/// changes.
const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");

/// The state that was on disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Loaded {
    /// The registration of this instance; `None` if it has not registered yet.
    pub identity: Option<Identity>,
    /// The part of the state that belongs to no task.
    pub host: HostState,
    /// All tasks whose documents can be read.
    pub tasks: Vec<TaskState>,
}

/// The state file.
#[derive(Debug)]
pub struct Store {
    /// The data directory; `None`: the state is kept in memory only.
    directory: Option<PathBuf>,
    /// The open file; `None` after a failure, until the file is opened again.
    opened: Option<Opened>,
    /// The registration, kept here to rewrite the whole file; `None` if the instance is not registered.
    identity: Option<Identity>,
    /// The identities whose containers belong to this agent, kept here for the same purpose.
    owners: Owners,
    /// Highest sequence number seen in payloads and manifests, for the copy of the registration; 0 if none was seen.
    manifest_number: i64,
    /// The copy of the registration in a file beside the state file.
    copy: instance::Copy,
}

impl Store {
    /// Opens or creates the state file in `directory`, and reads all of it. A broken file is set aside.
    ///
    /// # Errors
    /// Fails if the directory cannot be used, another agent uses the file, a newer agent wrote it, or reading or writing fails.
    pub fn open(directory: &Path) -> Result<(Self, Loaded), StoreError> {
        let (opened, Reading { mut loaded, owners, damage, version }) = match open_and_read(directory) {
            Err(FileError::Broken(what)) => {
                let kept = file::set_aside(directory)?;
                tracing::error!(
                    error = what,
                    kept = %kept.display(),
                    "Error loading previously saved state: the state file is broken and was set aside; tasks are rebuilt from their containers"
                );
                open_and_read(directory)
            }
            read => read,
        }
        .map_err(|error| final_error(directory, error))?;
        if !damage.is_empty() {
            let kept = file::copy_aside(directory)?;
            for what in &damage {
                tracing::error!(
                    error = what,
                    kept = %kept.display(),
                    "Error loading previously saved state: a part of it cannot be read and is left out; a copy of the file is kept"
                );
            }
            loaded.host.lost = true;
        }
        let owners = owners::merged(owners, owners::read(directory));
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
        // Written now, so that a full disk is noticed before anything depends on the store.
        store.write(|meta, tasks| {
            if damage.is_empty() && version == schema::CURRENT {
                schema::put_version(meta)?;
                schema::put(meta, "owners", &owners)?;
                schema::put(meta, "host", &loaded.host)
            } else {
                write_everything(meta, tasks, loaded.identity.as_ref(), &owners, &loaded.host, &loaded.tasks)
            }
        })?;
        store.copy_beside();
        Ok((store, loaded))
    }

    /// A store in memory, which ends with the process (`ECS_CHECKPOINT=false`).
    ///
    /// # Errors
    /// Fails only if redb cannot create a database in memory.
    pub fn in_memory() -> Result<Self, StoreError> {
        let database = file::in_memory().map_err(|error| StoreError::Io(Box::new(error.into())))?;
        let owners = owners::new();
        let opened = Some(Opened { database, file_id: (0, 0) });
        let copy = instance::Copy::default();
        Ok(Self { directory: None, opened, identity: None, owners, manifest_number: 0, copy })
    }

    /// The identities whose containers belong to this agent.
    pub fn owners(&self) -> &Owners {
        &self.owners
    }

    /// Stores the identities whose containers belong to this agent.
    ///
    /// # Errors
    /// Fails if the file cannot be opened or written. Nothing was written, and the call may be repeated.
    pub fn save_owners(&mut self, owners: Owners) -> Result<(), StoreError> {
        self.reopen()?;
        self.owners = owners.clone();
        self.write(|meta, _| schema::put(meta, "owners", &owners))?;
        if let Some(directory) = &self.directory {
            owners::write(directory, &self.owners);
        }
        Ok(())
    }

    /// Updates the files beside the state file.
    fn copy_beside(&mut self) {
        if let Some(directory) = &self.directory {
            owners::write(directory, &self.owners);
            self.copy.update(directory, self.identity.as_ref(), self.manifest_number);
        }
    }

    /// Writes the changed documents of the state, all or none, and returns when they are on disk.
    ///
    /// # Errors
    /// Fails if the file cannot be opened or written. Nothing was written, and no effect that depends on it may start. The call
    /// may be repeated: it then opens the file again and writes everything.
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
            self.copy.update_number(directory, self.manifest_number);
        }
        Ok(())
    }

    /// Size of the state file in bytes; `None` if there is no file.
    pub fn file_bytes(&self) -> Option<u64> {
        file::bytes_in(self.directory.as_deref()?)
    }

    /// Whether the file is open, and is still the one in the directory.
    pub fn is_usable(&self) -> bool {
        match (&self.opened, &self.directory) {
            (None, _) => false,
            (Some(_), None) => true,
            (Some(opened), Some(directory)) => file::file_id_in(directory) == Some(opened.file_id),
        }
    }

    /// Opens or creates the file and writes everything to it: after a failure, or after the file was removed or replaced.
    fn commit_everything(&mut self, state: &State) -> Result<(), StoreError> {
        self.close();
        let Some(directory) = self.directory.clone() else {
            self.opened = Self::in_memory()?.opened;
            return self.commit_everything_now(state);
        };
        let opened = match file::open(&directory) {
            Err(FileError::Broken(what)) => {
                let kept = file::set_aside(&directory)?;
                tracing::error!(
                    error = what,
                    kept = %kept.display(),
                    "the state file is broken and was set aside; it is written again from memory"
                );
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
            write_everything(
                meta,
                tasks,
                identity.as_ref(),
                &owners,
                &state.host,
                state.tasks.values().map(|task| &**task),
            )
        })?;
        self.copy_beside();
        Ok(())
    }

    /// Opens the file again if a failure has closed it.
    fn reopen(&mut self) -> Result<(), StoreError> {
        if self.opened.is_none()
            && let Some(directory) = &self.directory
        {
            let opened = file::open(directory).map_err(|error| final_error(directory, error))?;
            self.opened = Some(opened);
        }
        Ok(())
    }

    /// Stores the registration of the instance.
    ///
    /// # Errors
    /// Fails if the file cannot be opened or written. Nothing was written, and the call may be repeated.
    pub fn save_identity(&mut self, identity: &Identity) -> Result<(), StoreError> {
        self.reopen()?;
        let owners = self.owners.clone();
        self.identity = Some(identity.clone());
        self.write(|meta, _| {
            schema::put_version(meta)?; // the file may be new
            schema::put(meta, "owners", &owners)?;
            schema::put(meta, "identity", identity)
        })?;
        self.copy_beside();
        Ok(())
    }

    /// Removes everything: the state belongs to another instance (the AMI was made from a running one). The containers of that
    /// instance are not ours, so this agent gets a new identity.
    ///
    /// # Errors
    /// Fails if the file cannot be written.
    pub fn clear(&mut self) -> Result<(), StoreError> {
        (self.identity, self.owners, self.manifest_number) = (None, owners::new(), 0);
        let owners = self.owners.clone();
        self.write(|meta, tasks| write_everything(meta, tasks, None, &owners, &HostState::default(), []))?;
        self.copy_beside();
        Ok(())
    }

    /// Removes the registration that was kept beside a lost state file: the instance is about to register as a new one.
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
            // redb accepts no more writes after a failure; the next commit opens the file again.
            self.close();
            let path = self.directory.clone().unwrap_or_default();
            final_error(&path, error)
        })
    }

    /// Closes the file, even if redb panics over damaged pages.
    fn close(&mut self) {
        let opened = self.opened.take();
        let closed = guarded(|| {
            drop(opened);
            Ok(())
        });
        if let Err(error) = closed {
            let error = match error {
                FileError::Broken(what) => what,
                FileError::Unavailable(error) => with_causes(&error),
            };
            tracing::warn!(error, "the state file could not be closed");
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
    // With one phase, a commit that is damaged later would look unfinished, and the previous commit would be taken as the last.
    write.set_two_phase_commit(true);
    {
        let mut meta = write.open_table(META)?;
        let mut tasks = write.open_table(TASKS)?;
        change(&mut meta, &mut tasks)?;
    }
    Ok(write.commit()?)
}

/// Replaces the content of the file by these documents.
fn write_everything<'a>(
    meta: &mut Table<'_>,
    tasks: &mut Table<'_>,
    identity: Option<&Identity>,
    owners: &Owners,
    host: &HostState,
    all: impl IntoIterator<Item = &'a TaskState>,
) -> Result<(), FileError> {
    meta.retain(|_, _| false)?;
    tasks.retain(|_, _| false)?;
    schema::put_version(meta)?;
    if let Some(identity) = identity {
        schema::put(meta, "identity", identity)?;
    }
    schema::put(meta, "owners", owners)?;
    schema::put(meta, "host", host)?;
    all.into_iter().try_for_each(|task| schema::put(tasks, &task.spec.arn.0, task))
}

/// The content of a state file.
struct Reading {
    loaded: Loaded,
    /// The identities in the file; `None` if it has none that can be read. The file beside it also has them.
    owners: Option<Owners>,
    /// One text for each document that cannot be read.
    damage: Vec<String>,
    /// The version of the schema of the documents.
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

/// A document; `None` if the file does not have it. The error says what is wrong with it.
type Document<T> = Result<Option<T>, String>;

fn document<T: serde::de::DeserializeOwned>(
    table: &impl ReadableTable<&'static str, &'static [u8]>,
    name: &str,
    version: u32,
) -> Result<Document<T>, FileError> {
    let found = table.get(name)?;
    Ok(found.map(|bytes| schema::read(name, bytes.value(), version)).transpose())
}

/// The document; `None` if it is missing or damaged. Damage is noted.
fn note<T>(damage: &mut Vec<String>, document: Document<T>) -> Option<T> {
    document.unwrap_or_else(|what| {
        damage.push(what);
        None
    })
}

#[cfg(test)]
mod tests;
