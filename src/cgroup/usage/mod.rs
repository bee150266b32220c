//! Reads what containers use, from the kernel's own counters: their control groups, and the interfaces of their network namespaces.
//!
//! Owns the open files. Decides nothing: it reads what it is asked for, and says of which containers it cannot. All functions
//! block, but only as long as the kernel takes to print its counters. Invariants: a container is found by its first process,
//! which must be in a control group with the container's id (`find`); the directory of that process stays open, so its number
//! cannot come to mean another process; and no file keeps a container's network namespace alive.
//!
//! Reading order: this file, `find` (where the groups are), `v1` and `v2` (which file has what), `source` (how a file is read),
//! `parse` (the forms of the files).

mod find;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod parse;
mod source;
#[cfg(test)]
mod tests;
mod v1;
mod v2;

use ecs_core::model::RuntimeId;
use ecs_core::model::usage::{CgroupVersion, Interface, Moment, Process, Reading};
use rustix::fs::{Mode, OFlags, openat};
use source::{Access, Budget, Permit, is_end, read, read_once};
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::time::{Instant, SystemTime, UNIX_EPOCH};
use v1::FilesV1;
use v2::FilesV2;

/// A process that does not exist is looked for this often. It may have ended, and then Docker says so soon; or it is one that this
/// agent cannot see.
const MAX_MISSING: u32 = 5;
/// The files that the rest of the agent may need, most of them for connections of containers.
const RESERVED_FILES: usize = 768;
/// Upper limit of the files that stay open: enough for 500 containers.
const MAX_FILES: usize = 8192;

/// A container to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Docker's id of the container.
    pub id: RuntimeId,
    /// Its first process.
    pub process: Process,
    /// It has network interfaces of its own.
    pub has_networks: bool,
}

/// The result of reading one container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The counters.
    Read(Box<Reading>),
    /// The container has ended, or has not been found yet.
    Missing,
    /// The counters of this run of the container cannot be read here, for this reason.
    Unreadable(String),
}

/// Reads the counters of containers.
#[derive(Debug)]
pub struct Sampler {
    proc: PathBuf,
    mounts: Vec<find::Mount>,
    readers: BTreeMap<RuntimeId, Entry>,
    budget: Budget,
    buffer: Vec<u8>,
    /// The memory of the host in bytes; `None` if it is not known.
    host_memory: Option<u64>,
    /// The time of the host's processors in nanoseconds, and their number.
    host_cpu: (u64, u32),
    started: Instant,
}

#[derive(Debug)]
struct Entry {
    process: Process,
    state: State,
}

#[derive(Debug)]
enum State {
    Open(Box<Reader>),
    /// The process was not found, this many times.
    Missing(u32),
    Unreadable(String),
}

/// The open files of one run of a container.
#[derive(Debug)]
struct Reader {
    files: Files,
    /// The directory of the first process below `/proc`; `None`: it is opened when it is needed.
    process: Option<(File, Permit)>,
}

#[derive(Debug)]
enum Files {
    V1(Box<FilesV1>),
    V2(Box<FilesV2>),
}

/// Why a container cannot be read.
#[derive(Debug)]
enum Failed {
    /// The container, or its process, does not exist.
    Missing,
    /// This will not change while the container runs.
    Unreadable(String),
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        if is_end(&error) { Self::Missing } else { Self::Unreadable(error.to_string()) }
    }
}

impl Sampler {
    /// A sampler without open files. Times of readings are counted from `since`.
    pub fn new(since: Instant) -> Self {
        Self::with_proc("/proc".into(), max_files(), since)
    }

    fn with_proc(proc: PathBuf, max_files: usize, started: Instant) -> Self {
        let mut buffer = Vec::new();
        let text = read_once(&proc.join("meminfo"), &mut buffer).unwrap_or_default();
        Self {
            proc,
            mounts: Vec::new(),
            readers: BTreeMap::new(),
            budget: Budget::new(max_files),
            buffer,
            host_memory: parse::host_memory(&text),
            host_cpu: (0, 0),
            started,
        }
    }

    /// Closes the files of all containers that are not among these.
    pub fn keep_only(&mut self, targets: &[Target]) {
        let ids: std::collections::BTreeSet<_> = targets.iter().map(|target| &target.id).collect();
        self.readers.retain(|id, _| ids.contains(id));
    }

    /// No files are open.
    pub fn is_idle(&self) -> bool {
        self.readers.is_empty()
    }

    /// Reads these containers, one after the other.
    pub fn sample(&mut self, targets: &[Target]) -> Vec<Outcome> {
        let host = read_once(&self.proc.join("stat"), &mut self.buffer).unwrap_or_default();
        let host_cpu = parse::host_cpu(&host);
        // A file that cannot be read for a moment changes no number of processors.
        if host_cpu.1 > 0 {
            self.host_cpu = host_cpu;
        }
        targets.iter().map(|target| self.sample_target(target)).collect()
    }

    fn sample_target(&mut self, target: &Target) -> Outcome {
        let known = self.readers.remove(&target.id).filter(|entry| entry.process == target.process);
        let known = known.map_or(State::Missing(0), |entry| entry.state);
        let missed = if let State::Missing(times) = known { times } else { 0 };
        let result = match known {
            State::Unreadable(why) => Err(Failed::Unreadable(why)),
            State::Open(mut reader) => self.read(target, &mut reader).map(|read| (read, reader)),
            State::Missing(_) => self.open(target).and_then(|mut reader| {
                let read = self.read(target, &mut reader)?;
                Ok((read, Box::new(reader)))
            }),
        };
        let (state, outcome) = match result {
            Ok((read, reader)) => (State::Open(reader), Outcome::Read(Box::new(read))),
            Err(Failed::Missing) if missed + 1 < MAX_MISSING => (State::Missing(missed + 1), Outcome::Missing),
            Err(failed) => {
                let why = match failed {
                    Failed::Missing => "its first process is not visible here".to_owned(),
                    Failed::Unreadable(why) => why,
                };
                (State::Unreadable(why.clone()), Outcome::Unreadable(why))
            }
        };
        self.readers.insert(target.id.clone(), Entry { process: target.process.clone(), state });
        outcome
    }

    fn open(&mut self, target: &Target) -> Result<Reader, Failed> {
        let (process, groups) = self.find(target)?;
        let files = match groups.version {
            CgroupVersion::V1 => Files::V1(Box::new(FilesV1::new(&groups.directories))),
            CgroupVersion::V2 => {
                let directory = groups.directories.into_iter().map(|(_, path)| path).find(|path| path.is_dir());
                Files::V2(Box::new(FilesV2::new(directory.unwrap_or_default())))
            }
        };
        let permit = self.budget.take().filter(|_| target.has_networks);
        Ok(Reader { files, process: permit.map(|permit| (process, permit)) })
    }

    /// The directory of the container's first process below `/proc`, and its groups.
    fn find(&mut self, target: &Target) -> Result<(File, find::Groups), Failed> {
        let process = File::open(self.proc.join(target.process.pid.to_string()))?;
        let text = read(&open_below(&process, "cgroup")?, &mut self.buffer)?.to_owned();
        // The list of mounts is long on some hosts, so it is read again only if the group is not below those that are known.
        let is_there = |groups: &find::Groups| groups.directories.iter().any(|(_, path)| path.is_dir());
        let mut groups = find::groups(&text, target.id.as_str(), &self.mounts).filter(is_there);
        if groups.is_none() {
            self.mounts = find::mounts(&read_once(&self.proc.join("self/mountinfo"), &mut self.buffer)?);
            groups = find::groups(&text, target.id.as_str(), &self.mounts).filter(is_there);
        }
        match groups {
            Some(groups) => Ok((process, groups)),
            None => Err(Failed::Unreadable("its control groups are not visible here".to_owned())),
        }
    }

    fn read(&mut self, target: &Target, reader: &mut Reader) -> Result<Reading, Failed> {
        let (at, read) = (self.started.elapsed(), SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default());
        let mut access = Access { budget: &self.budget, buffer: &mut self.buffer };
        let mut usage = match &mut reader.files {
            Files::V1(files) => files.read(&mut access)?,
            Files::V2(files) => files.read(&mut access)?,
        };
        (usage.cpu.system, usage.cpu.online) = self.host_cpu;
        if let Some(all) = self.host_memory {
            usage.memory.limit = usage.memory.limit.min(all);
        }
        if target.has_networks {
            usage.networks = match &reader.process {
                Some((process, _)) => networks(process, &mut self.buffer)?,
                None => networks(&self.find(target)?.0, &mut self.buffer)?,
            };
        }
        let nanos = |time: std::time::Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        Ok(Reading { id: target.id.clone(), read: Moment(nanos(read)), at: nanos(at), usage })
    }
}

/// How many files may stay open; further ones are opened for each reading.
fn max_files() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let limit = limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
    limit.saturating_sub(RESERVED_FILES).min(MAX_FILES)
}

/// Opened for each reading: an open file would keep the network namespace alive after the container has ended.
fn networks(process: &File, buffer: &mut Vec<u8>) -> io::Result<Vec<Interface>> {
    Ok(parse::interfaces(read(&open_below(process, "net/dev")?, buffer)?))
}

/// Opens a file below the directory of a process. After the end of the process there is none, whatever its number means then.
fn open_below(process: &File, path: &str) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    Ok(File::from(openat(process, path, flags, Mode::empty())?))
}
